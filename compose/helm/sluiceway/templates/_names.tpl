{{- define "sluiceway.name" -}}
{{- printf "%s-sluiceway" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "sluiceway.selector" -}}
app.kubernetes.io/name: sluiceway
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "sluiceway.labels" -}}
{{ include "sluiceway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}
