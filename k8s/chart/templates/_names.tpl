{{- define "kbs.labels" -}}
app.kubernetes.io/name: kbs
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- if .root.Values.dev }}
kbs.confidential.dev/insecure: "true"
{{- end }}
{{- end }}

{{- define "kbs.selector" -}}
app.kubernetes.io/name: kbs
app.kubernetes.io/component: broker
{{- end }}

{{- define "kbs.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "kbs.storage" -}}{{ dig "storage" "kind" "sqlite" .Values.settings }}{{- end }}

{{- define "kbs.scheme" -}}{{ if dig "server" "insecure_http" false .Values.settings }}HTTP{{ else }}HTTPS{{ end }}{{- end }}

{{- define "kbs.opa" -}}{{ if eq (dig "policy" "engine" "wasm" .Values.settings) "opa-server" }}yes{{ end }}{{- end }}

{{/* A value as TOML. Numbers go through JSON, because Helm reads every number of values as one with a fraction. */}}
{{- define "kbs.toml" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true }}{{ range $name, $value := . }}{{ if not $first }}, {{ end }}{{ toJson $name }} = {{ include "kbs.toml" $value }}{{ $first = false }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "kbs.toml" $value }}{{ end -}}]
{{- else -}}
{{ toJson . }}
{{- end }}
{{- end }}

{{- define "kbs.settings" -}}
{{- range $section, $table := .Values.settings }}
[{{ $section }}]
{{- range $name, $value := $table }}
{{- if not (kindIs "invalid" $value) }}
{{ toJson $name }} = {{ include "kbs.toml" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
