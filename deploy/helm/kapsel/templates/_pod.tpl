{{- /* The pod template of a group: a dict with root and group. */ -}}
{{- define "kapsel.pod" -}}
{{- $group := .group }}
{{- with .root -}}
metadata:
  labels: {{- include "kapsel.labels" . | nindent 4 }}
    {{- include "kapsel.group" $group | nindent 4 }}
    {{- range $role := $group.roles }}
    kapsel.dev/{{ $role }}: "true"
    {{- end }}
  {{- with $group.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $group.fullname }}
  automountServiceAccountToken: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add .Values.graceSeconds .Values.preStopDelaySeconds 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  initContainers:
    # A secret's files cannot be 0600 and readable for a process that is not root, so the keys are put into the state
    # directory. Another log key than one that is there is refused.
    - name: state
      image: {{ include "kapsel.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [state, install, --from, /keys, --state-dir, /var/lib/kapsel/state{{ if not (and $group.seal .Values.logKey.existingSecret) }}, --keyset-only{{ end }}]
      securityContext: {{- include "kapsel.securityContext" . | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - {name: keys, mountPath: /keys, readOnly: true}
        - {name: state, mountPath: /var/lib/kapsel}
  containers:
    - name: kapsel
      image: {{ include "kapsel.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - serve
        {{- if $group.seal }}{{ range .Values.logKey.urls }}
        - {{ printf "--log-key=%s" . | quote }}
        {{- end }}{{ end }}
      env:
        - name: KAPSEL_DATABASE_URL
          valueFrom:
            secretKeyRef: {name: {{ .Values.database.existingSecret | quote }}, key: {{ .Values.database.key | quote }}}
        - {name: KAPSEL_LISTEN, value: ":8080"}
        - {name: KAPSEL_STATE_DIR, value: /var/lib/kapsel/state}
        - {name: KAPSEL_PUBLIC_URL, value: {{ .Values.publicURL | quote }}}
        - {name: KAPSEL_ROLES, value: {{ join "," $group.roles | quote }}}
        - {name: KAPSEL_GRACE, value: "{{ .Values.graceSeconds }}s"}
        - {name: KAPSEL_PRE_STOP_DELAY, value: "{{ .Values.preStopDelaySeconds }}s"}
        {{- with .Values.keyset.kms }}
        - {name: KAPSEL_SECRETS_KMS, value: {{ . | quote }}}
        {{- end }}
        {{- if .Values.admin.enabled }}
        - {name: KAPSEL_ADMIN_LISTEN, value: ":{{ .Values.admin.port }}"}
        - {name: KAPSEL_ADMIN_PUBLIC, value: "true"}
        {{- end }}
        {{- with $group.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: http, containerPort: 8080}
        {{- if .Values.admin.enabled }}
        - {name: admin, containerPort: {{ .Values.admin.port }}}
        {{- end }}
      # Migrations run before the node listens.
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      securityContext: {{- include "kapsel.securityContext" . | nindent 8 }}
      resources: {{- toYaml $group.resources | nindent 8 }}
      volumeMounts:
        - {name: state, mountPath: /var/lib/kapsel}
        {{- if $group.seal }}
        {{- if .Values.logKey.pinSecret }}
        - {name: pin, mountPath: /etc/kapsel, readOnly: true}
        {{- end }}
        {{- with .Values.logKey.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
  volumes:
    - name: keys
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ .Values.keyset.existingSecret | quote }}
              items: [{key: secrets.keyset, path: secrets.keyset}]
          {{- if and $group.seal .Values.logKey.existingSecret }}
          - secret:
              name: {{ .Values.logKey.existingSecret | quote }}
          {{- end }}
    {{- if $group.seal }}
    {{- with .Values.logKey.pinSecret }}
    - name: pin
      secret:
        secretName: {{ . | quote }}
        defaultMode: 0440
        items: [{key: pin, path: pin}]
    {{- end }}
    {{- with .Values.logKey.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- else }}
    # Only the keyset is in it: in memory, so that it never comes onto a machine's disk.
    - name: state
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- end }}
  {{- with $group.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $group.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $group.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "kapsel.selector" . | nindent 10 }}
          {{- include "kapsel.group" $group | nindent 10 }}
{{- end }}
{{- end }}
{{- define "kapsel.group" -}}
app.kubernetes.io/component: {{ .component }}
{{- end }}
