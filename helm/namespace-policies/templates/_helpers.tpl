{{/* An egress rule of a network policy, from an entry of .Values.network: its peers, if it has any, and its TCP ports. */}}
{{- define "egress-rule" -}}
- {{ with .to }}to: {{ toJson . }}
  {{ end }}ports:
  {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
