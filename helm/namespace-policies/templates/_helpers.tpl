{{/* The namespace of the steps' pods: config.market_daily.step_namespace, or the release's. */}}
{{- define "step-namespace" -}}
{{- tpl (.Values.config.market_daily.step_namespace | default "") . | default .Release.Namespace }}
{{- end }}

{{/*
An egress rule of a network policy. Called with the root context and the name of an entry of .Values.network: its peers, if it has
any, and its TCP ports.
*/}}
{{- define "egress-rule" -}}
{{- $entry := index (first .).Values.network (last .) -}}
- {{ with $entry.to }}to: {{ toJson . }}
  {{ end }}ports:
  {{- range $entry.ports }}
    - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}

{{/* The same for a policy in the steps' namespace: a peer with only a podSelector still means pods in Airflow's namespace. */}}
{{- define "step-egress-rule" -}}
{{- $root := first . -}}
{{- $entry := deepCopy (index $root.Values.network (last .)) -}}
{{- if ne (include "step-namespace" $root) $root.Release.Namespace }}
{{- range $peer := $entry.to }}
{{- if and $peer.podSelector (not $peer.namespaceSelector) }}
{{- $_ := set $peer "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $root.Release.Namespace)) }}
{{- end }}
{{- end }}
{{- end }}
{{- $network := dict "network" (dict (last .) $entry) -}}
{{- include "egress-rule" (list (dict "Values" $network) (last .)) }}
{{- end }}
