{{/* A network policy's rule from an end of .Values.network: its peers, where it names some, and its TCP ports. */}}
{{- define "egress" -}}
- {{ with .to }}to: {{ toJson . }}
  {{ end }}ports:
  {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
