{{/* The run's configuration, as YAML: the file that was given, else the demo's. A teacher that stands alone asks for the
     key in apiKeyEnv; without one the network policy is what keeps others out, and a teacher wants that said. */}}
{{- define "orpo-ray.run" -}}
{{- if .Values.runFile -}}
{{- .Values.runFile -}}
{{- else if eq .Values.kind "teacher" -}}
{{- $run := deepCopy .Values.run -}}
{{- $asks := ternary (dict "api_key_env" .Values.apiKeyEnv) (dict "insecure" true) (ne .Values.apiKeyEnv "") -}}
{{- $_ := set $run.teacher "serve" (merge $asks (dig "serve" dict $run.teacher)) -}}
{{- toYaml $run -}}
{{- else -}}
{{- toYaml .Values.run -}}
{{- end -}}
{{- end -}}

{{/* The pods' app.kubernetes.io/instance, and the name of everything: the run's. */}}
{{- define "orpo-ray.name" -}}
{{- $name := .Values.name | default (include "orpo-ray.run" . | fromYaml).name | default "run" -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,45}[a-z0-9])?$" $name) }}
{{- fail "name, or the run's own: take lower-case letters, digits and dashes, at most 47, beginning with a letter" }}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "orpo-ray.own" -}}
app.kubernetes.io/name: orpo-ray
app.kubernetes.io/instance: {{ include "orpo-ray.name" . }}
{{- end -}}

{{- define "orpo-ray.labels" -}}
{{ include "orpo-ray.own" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "orpo-ray.image" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* Kubernetes' Pod Security Standard `restricted`, and a read-only root. */}}
{{- define "orpo-ray.locked" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}

{{- define "orpo-ray.podSecurity" -}}
enableServiceLinks: false
securityContext:
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "orpo-ray.scaled" -}}
{{- if and .Values.autoscaling.enabled (not .Values.queue) }}true{{ end -}}
{{- end -}}

{{/* Half of /dev/shm, which is in whole Gi, for Ray's object store, in bytes. */}}
{{- define "orpo-ray.objectStore" -}}
{{ mul (int64 .) 536870912 | quote }}
{{- end -}}

{{- define "orpo-ray.container" -}}
{{ include "orpo-ray.image" . }}
securityContext: {{- include "orpo-ray.locked" . | nindent 2 }}
env:
  - {name: HF_HOME, value: /models/huggingface}
  - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: {{ .Values.secretName }}, key: hf-token, optional: true}}}
  {{- if include "orpo-ray.scaled" . }}
  - {name: ORPO_RAY_AUTOSCALED, value: "1"}
  {{- end }}
  {{- with .Values.apiKeyEnv }}
  - {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.Values.secretName }}, key: {{ . }}, optional: true}}}
  {{- end }}
  {{- range .Values.secretEnv }}
  - {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.Values.secretName }}, key: {{ . }}, optional: true}}}
  {{- end }}
  {{- if eq .Values.kind "service" }}
  - {name: ORPO_RAY_SERVICE_TOKEN, valueFrom: {secretKeyRef: {name: {{ .Values.secretName }}, key: ORPO_RAY_SERVICE_TOKEN, optional: true}}}
  {{- end }}
readinessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 10
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 10
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 24
volumeMounts:
  {{- if not (has .Values.kind (list "cluster" "service")) }}
  - {name: configuration, mountPath: /etc/orpo-ray, readOnly: true}
  {{- end }}
  - {name: storage, mountPath: {{ .Values.storage.mountPath }}}
  - {name: models, mountPath: /models}
  - {name: shared-mem, mountPath: /dev/shm}
  - {name: tmp, mountPath: /tmp}
  - {name: home, mountPath: /home/ray}
{{- end -}}

{{/* Takes a list: the chart's context, and Gi of /dev/shm. */}}
{{- define "orpo-ray.volumes" -}}
{{- $ := index . 0 -}}
{{- if not (has $.Values.kind (list "cluster" "service")) }}
- {name: configuration, configMap: {name: {{ include "orpo-ray.name" $ }}}}
{{- end }}
- {name: storage, persistentVolumeClaim: {claimName: {{ $.Values.storage.existingClaim | default "orpo-ray-storage" }}}}
- {name: models, persistentVolumeClaim: {claimName: {{ $.Values.models.existingClaim | default "orpo-ray-models" }}}}
- {name: shared-mem, emptyDir: {medium: Memory, sizeLimit: {{ index . 1 }}Gi}}
- {name: tmp, emptyDir: {sizeLimit: 20Gi}}
- {name: home, emptyDir: {sizeLimit: 10Gi}}
{{- end -}}

{{/* Takes a list: the chart's context, cpu, memory and GPUs. */}}
{{- define "orpo-ray.resources" -}}
{{- range list "requests" "limits" }}
{{ . }}:
  cpu: {{ index $ 1 | quote }}
  memory: {{ index $ 2 }}
  {{- if index $ 3 }}
  nvidia.com/gpu: {{ index $ 3 | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Takes a mapping with nodeSelector, tolerations and affinity. */}}
{{- define "orpo-ray.placement" -}}
{{- range $key := list "nodeSelector" "affinity" }}
{{- with index $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
