{{- define "kapsel.labels" -}}
{{ include "kapsel.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "kapsel.selector" -}}
app.kubernetes.io/name: kapsel
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "kapsel.name" -}}
{{ if contains "kapsel" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-kapsel{{ end }}
{{- end }}
{{- define "kapsel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "kapsel.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
