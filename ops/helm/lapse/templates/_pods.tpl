{{/*
What is the same in every pod, and in every container; `include "lapse.pod" (list . true)`. The
second says whether the policy of retention is there: it is not yet when the Job migrates.
*/}}
{{- define "lapse.pod" -}}
{{- $ := index . 0 -}}
{{- $has_policy := and (index . 1) $.Values.retentionPolicy -}}
automountServiceAccountToken: false
enableServiceLinks: false # they would set variables named like settings
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with $.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.sidecars }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {}
  - name: work
    emptyDir: {}
  {{- if $has_policy }}
  - name: retention
    configMap: {name: {{ include "lapse.name" $ }}-retention}
  {{- end }}
{{- end }}

{{- define "lapse.container" -}}
{{- $ := index . 0 -}}
{{- $has_policy := and (index . 1) $.Values.retentionPolicy -}}
image: {{ include "lapse.image" $ | quote }}
imagePullPolicy: {{ $.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: work, mountPath: /var/lib/lapse}
  {{- if $has_policy }}
  - {name: retention, mountPath: /etc/lapse, readOnly: true}
  {{- end }}
{{- end }}

{{/*
What Kubernetes asks a server and the sweeper.
*/}}
{{- define "lapse.probes" -}}
# Importing ADK takes some seconds, more on a busy node.
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 2
  failureThreshold: 60
# Whether the process works: a restart mends no database.
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
# Whether the store can be written and, if it sweeps, the sweeper works.
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/*
Where sessions live, from a Secret that must have it: the image's own is a file in the pod.
*/}}
{{- define "lapse.store" -}}
- name: LAPSE_STORE_URL
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: LAPSE_STORE_URL}
{{- end }}

{{/*
The settings, as variables; those of the Secret come by envFrom, which these win over.
*/}}
{{- define "lapse.settings" -}}
{{- $settings := dict }}
{{- $_ := set $settings "LAPSE_RUN_GRACE_SECONDS" (toString (int .Values.servers.runGraceSeconds)) }}
{{- $_ := set $settings "LAPSE_SWEEPER" (ternary "off" "on" .Values.sweeper.enabled) }}
{{- /* The image's folder of artifacts is each pod's own here: without a URI they are in memory. */}}
{{- $_ := set $settings "LAPSE_ARTIFACT_SERVICE_URI" "" }}
{{- $_ := set $settings "LAPSE_USE_LOCAL_STORAGE" "false" }}
{{- if .Values.retentionPolicy }}
{{- $_ := set $settings "LAPSE_RETENTION_FILE" "/etc/lapse/retention.toml" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- $_ := set $settings $name $value }}
{{- end }}
{{- range $name, $value := $settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/*
With these, pods are replaced when what they read is changed. Without a cluster no Secret can be
looked up, and its digest is that of nothing.
*/}}
{{- define "lapse.checksums" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace .Values.existingSecret | default dict -}}
checksum/retention: {{ .Values.retentionPolicy | sha256sum }}
checksum/secret: {{ $secret.data | default dict | toJson | sha256sum }}
{{- end }}
