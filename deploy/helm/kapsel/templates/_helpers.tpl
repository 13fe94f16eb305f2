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

{{- /* The groups as JSON, complete: one that does everything when none is named. fromJson gives them back. */ -}}
{{- define "kapsel.groups" -}}
{{- $groups := dict }}
{{- range $name, $group := .Values.groups | default (dict "" (dict "roles" (list "ingest" "api" "deliver" "seal"))) }}
{{- $full := include "kapsel.name" $ }}
{{- $merged := dict "fullname" (ternary $full (printf "%s-%s" $full $name) (eq $name "")) "component" ($name | default "node") "env" (concat $.Values.env ($group.env | default list)) }}
{{- $_ := set $merged "resources" (mergeOverwrite (deepCopy $.Values.resources) ($group.resources | default dict)) }}
{{- range $key := list "replicas" "serviceAccountAnnotations" "podAnnotations" "nodeSelector" "tolerations" "affinity" }}
{{- $_ := set $merged $key (ternary (index $group $key) (index $.Values $key) (hasKey $group $key)) }}
{{- end }}
{{- range $role := list "ingest" "api" "deliver" "seal" }}
{{- $_ := set $merged $role (has $role $group.roles) }}
{{- end }}
{{- $_ := set $merged "roles" $group.roles }}
{{- $_ := set $groups $name $merged }}
{{- end }}
{{- $groups | toJson }}
{{- end }}

{{- /* Whether all groups that listen to clients do the same: then one Service is enough. */ -}}
{{- define "kapsel.oneService" -}}
{{- $one := true }}
{{- range include "kapsel.groups" . | fromJson }}{{ if ne .ingest .api }}{{ $one = false }}{{ end }}{{ end }}
{{- if $one }}true{{ end }}
{{- end }}

{{- /* What the schema cannot say: values that contradict each other. */ -}}
{{- define "kapsel.check" -}}
{{- $sealing := false }}{{ $serving := false }}
{{- range $name, $group := include "kapsel.groups" . | fromJson }}
{{- if $group.seal }}{{ $sealing = true }}{{ end }}
{{- if or $group.ingest $group.api }}{{ $serving = true }}{{ end }}
{{- range $group.env }}
{{- if has .name (list "KAPSEL_DATABASE_URL" "KAPSEL_LISTEN" "KAPSEL_STATE_DIR" "KAPSEL_PUBLIC_URL" "KAPSEL_ROLES" "KAPSEL_GRACE" "KAPSEL_PRE_STOP_DELAY" "KAPSEL_ADMIN_LISTEN" "KAPSEL_ADMIN_PUBLIC" "KAPSEL_SECRETS_KEYSET" "KAPSEL_SECRETS_KMS" "KAPSEL_LOG_KEY") }}
{{- fail (printf "env: %s is set by the chart: use the value for it (database, keyset, logKey, groups, publicURL, admin, graceSeconds, preStopDelaySeconds)" .name) }}
{{- end }}
{{- if regexMatch "://[^/@]*:[^/@]*@" (.value | default "" | toString) }}
{{- fail (printf "env: %s has a password in it: put it into a Secret and name that with valueFrom" .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $sealing (not .Values.logKey.existingSecret) (not .Values.logKey.urls) }}
{{- fail "logKey: nodes with the role seal need the log's key: set logKey.existingSecret, or logKey.urls" }}
{{- end }}
{{- if and .Values.ingress.enabled (not $serving) }}
{{- fail "ingress: no group has the role ingest or api, so there is nothing to lead to: disable it" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.admin.enabled) }}
{{- fail "serviceMonitor: metrics are on the admin port: set admin.enabled" }}
{{- end }}
{{- end }}
