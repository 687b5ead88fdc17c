{{/* A RayCluster's spec. */}}
{{- define "orpo-ray.cluster" -}}
{{- $scaled := include "orpo-ray.scaled" . -}}
{{- $served := has .Values.kind (list "teacher" "service") -}}
{{- $teacher := eq .Values.kind "teacher" -}}
rayVersion: "2.60.0"
authOptions: {mode: token}
{{- if $scaled }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  upscalingMode: Default
  idleTimeoutSeconds: {{ .Values.autoscaling.idleTimeoutSeconds }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  securityContext: {{- include "orpo-ray.locked" . | nindent 4 }}
  resources:
    requests: {cpu: 500m, memory: 1Gi}
    limits: {cpu: 500m, memory: 1Gi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: home, mountPath: /home/ray}
{{- end }}
headGroupSpec:
  rayStartParams:
    num-cpus: "0"
    dashboard-host: 0.0.0.0
    object-store-memory: {{ include "orpo-ray.objectStore" .Values.head.shm }}
  template:
    metadata:
      labels: {{- include "orpo-ray.own" . | nindent 8 }}
    spec:
      {{- include "orpo-ray.podSecurity" . | nindent 6 }}
      terminationGracePeriodSeconds: 60
      {{- include "orpo-ray.placement" .Values.head | nindent 6 }}
      {{- with .Values.head.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: ray-head
          {{- include "orpo-ray.container" . | nindent 10 }}
          ports:
            - {name: gcs-server, containerPort: 6379}
            - {name: dashboard, containerPort: 8265}
            - {name: client, containerPort: 10001}
            - {name: metrics, containerPort: 8080}
            {{- if $served }}
            - {name: serve, containerPort: 8000}
            {{- end }}
          resources: {{- include "orpo-ray.resources" (list $ .Values.head.cpu .Values.head.memory 0) | nindent 12 }}
      volumes: {{- include "orpo-ray.volumes" (list $ .Values.head.shm) | nindent 8 }}
workerGroupSpecs:
{{- range $name, $group := .Values.groups }}
{{- if and $group (or (not $teacher) (eq $name "teacher")) }}
  - groupName: {{ $name }}
    {{- $least := ternary $group.min $group.max (not (not $scaled)) }}
    {{- if $teacher }}{{ $least = max 1 $least }}{{ end }}
    replicas: {{ $least }}
    minReplicas: {{ $least }}
    maxReplicas: {{ $group.max }}
    labels: {{- merge (dict "orpo-ray.io/role" $group.role) ($group.labels | default dict) | toYaml | nindent 6 }}
    rayStartParams:
      object-store-memory: {{ include "orpo-ray.objectStore" $group.shm }}
      {{- if $group.driver }}
      resources: {{ "'{\"driver\": 1}'" | quote }}
      {{- end }}
    template:
      metadata:
        labels: {{- include "orpo-ray.own" $ | nindent 10 }}
      spec:
        {{- include "orpo-ray.podSecurity" $ | nindent 8 }}
        terminationGracePeriodSeconds: 60
        automountServiceAccountToken: false
        {{- include "orpo-ray.placement" $group | nindent 8 }}
        {{- $tolerations := $group.tolerations | default list }}
        {{- if $group.gpus }}
        {{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
        {{- end }}
        tolerations: {{- toYaml $tolerations | nindent 10 }}
        containers:
          - name: ray-worker
            {{- include "orpo-ray.container" $ | nindent 12 }}
            ports:
              - {name: metrics, containerPort: 8080}
              {{- if $served }}
              - {name: serve, containerPort: 8000}
              {{- end }}
            lifecycle:
              preStop: {exec: {command: [ray, stop]}}
            resources:
              {{- include "orpo-ray.resources" (list $ $group.cpu $group.memory $group.gpus) | nindent 14 }}
        volumes: {{- include "orpo-ray.volumes" (list $ $group.shm) | nindent 10 }}
{{- end }}
{{- end }}
{{- end -}}
