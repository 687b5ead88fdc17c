"""Pods as a careful cluster wants them: no root, a read-only root, nothing left to the defaults of others."""

from dataclasses import dataclass, field
from typing import Any

from orpo_ray.deploy.pools import Pool
from orpo_ray.deploy.shape import GPU
from orpo_ray.phases.needs import AUTOSCALED, GIB

Json = dict[str, Any]

CONFIGURATION = "/etc/orpo-ray/run.yaml"
MODELS = "/models"
HOME = "/home/ray"
# Keys of the Secret that a person may make; none of them has to be there.
SECRET = "orpo-ray"
HF_TOKEN_KEY = "hf-token"
SERVICE_TOKEN = "ORPO_RAY_SERVICE_TOKEN"
"""Variable, and the Secret's key, of the token that the control plane asks for."""
MIRROR_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")
"""Variables that a mirror in S3 reads, and the Secret's keys; pods with a role need none."""
METRICS, DASHBOARD, GCS, CLIENT, SERVE, AGENT = 8080, 8265, 6379, 10001, 8000, 52365
APP = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"


@dataclass(frozen=True)
class PodOptions:
    """What all pods of a cluster share.

    Attributes:
        name: of the run; the pods' `app.kubernetes.io/instance`.
        storage: where the run's storage is mounted.
        key_envs: environment variables of keys and tokens, each from the Secret's key of its name.
        configured: whether the run's configuration is mounted.
        served: whether the pods take requests of Ray Serve from outside the cluster.
    """

    name: str
    image: str
    storage: str
    key_envs: tuple[str, ...] = ()
    configured: bool = True
    autoscaled: bool = True
    served: bool = False
    labels: Json = field(default_factory=dict)

    @property
    def pod_labels(self) -> Json:
        return {APP: "orpo-ray", INSTANCE: self.name} | self.labels


def security() -> Json:
    """A container's own security context (Kubernetes' Pod Security Standard `restricted`)."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def pod_security() -> Json:
    return {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def head_group(options: PodOptions) -> Json:
    """The head: it holds the cluster's state and does no work."""
    ports = [("gcs-server", GCS), ("dashboard", DASHBOARD), ("client", CLIENT), ("metrics", METRICS)]
    if options.served:
        ports.append(("serve", SERVE))
    container = _ray_container(options, "ray-head", cpus=2, memory=8 * GIB, gpus=0)
    container["ports"] = [_port(name, number) for name, number in ports]
    return {
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", "object-store-memory": str(GIB // 2)},
        "template": _template(options, container, shm=GIB, workers=False),
    }


def worker_group(options: PodOptions, pool: Pool) -> Json:
    """One worker group."""
    container = _ray_container(options, "ray-worker", cpus=pool.cpus, memory=pool.memory, gpus=pool.gpus)
    ports = [("metrics", METRICS)] + ([("serve", SERVE)] if options.served else [])
    container["ports"] = [_port(name, number) for name, number in ports]
    # A pod that is taken away hands its node back to Ray at once, rather than after missed heartbeats.
    container["lifecycle"] = {"preStop": {"exec": {"command": ["ray", "stop"]}}}
    template = _template(options, container, shm=pool.shm, workers=True)
    template["spec"]["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if pool.gpus else []
    group: Json = {
        "groupName": pool.name,
        "replicas": pool.fewest,
        "minReplicas": pool.fewest,
        "maxReplicas": pool.most,
        "labels": pool.labels,
        "rayStartParams": {"object-store-memory": str(pool.shm // 2)},
        "template": template,
    }
    if pool.resources:
        resources = ", ".join(f'"{name}": {amount}' for name, amount in pool.resources.items())
        group["rayStartParams"]["resources"] = f"'{{{resources}}}'"
    return group


def submitter(options: PodOptions) -> Json:
    """The pod that hands the job in and follows its log."""
    container = {
        "name": "ray-job-submitter",
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": security(),
        "resources": _resources(1, GIB, 0, requested_cpus="500m"),
        "volumeMounts": [_mount("tmp", "/tmp"), _mount("home", HOME)],
    }
    return {
        "metadata": {"labels": options.pod_labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [_empty("tmp", GIB), _empty("home", GIB)],
        },
    }


def autoscaler() -> Json:
    """Options of KubeRay's autoscaler, version 2; it works in a container of its own beside the head."""
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": 300,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": security(),
        "resources": _resources("500m", GIB, 0),
        "volumeMounts": [_mount("tmp", "/tmp"), _mount("home", HOME)],
    }


def _ray_container(options: PodOptions, name: str, *, cpus: int, memory: int, gpus: int) -> Json:
    mounts = [
        _mount("storage", options.storage),
        _mount("models", MODELS),
        _mount("shared-mem", "/dev/shm"),
        _mount("tmp", "/tmp"),
        _mount("home", HOME),
    ]
    if options.configured:
        mounts.insert(0, _mount("configuration", CONFIGURATION.rpartition("/")[0]) | {"readOnly": True})
    return {
        "name": name,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": security(),
        "env": _environment(options),
        "resources": _resources(cpus, memory, gpus),
        "readinessProbe": _probe(failures=10, delay=10),
        "livenessProbe": _probe(failures=24, delay=30),
        "volumeMounts": mounts,
    }


def _environment(options: PodOptions) -> list[Json]:
    variables: list[Json] = [
        {"name": "HF_HOME", "value": f"{MODELS}/huggingface"},
        {"name": "HF_TOKEN", "valueFrom": _secret(HF_TOKEN_KEY)},
    ]
    if options.autoscaled:
        variables.append({"name": AUTOSCALED, "value": "1"})
    return variables + [{"name": key, "valueFrom": _secret(key)} for key in options.key_envs]


def _secret(key: str) -> Json:
    return {"secretKeyRef": {"name": SECRET, "key": key, "optional": True}}


def _template(options: PodOptions, container: Json, *, shm: int, workers: bool) -> Json:
    volumes = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": "orpo-ray-storage"}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "orpo-ray-models"}},
        _empty("shared-mem", shm) | {"emptyDir": {"medium": "Memory", "sizeLimit": _gib(shm)}},
        _empty("tmp", 20 * GIB),
        _empty("home", 10 * GIB),
    ]
    if options.configured:
        volumes.insert(0, {"name": "configuration", "configMap": {"name": options.name}})
    spec: Json = {
        "securityContext": pod_security(),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": volumes,
    }
    if workers:
        # Only the head's autoscaler talks to Kubernetes.
        spec["automountServiceAccountToken"] = False
    return {"metadata": {"labels": options.pod_labels}, "spec": spec}


def _probe(*, failures: int, delay: int) -> Json:
    return {
        "httpGet": {"path": "/api/healthz", "port": AGENT},
        "initialDelaySeconds": delay,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _resources(cpus: int | str, memory: int, gpus: int, requested_cpus: str | None = None) -> Json:
    limits: Json = {"cpu": str(cpus), "memory": _gib(memory)}
    if gpus:
        limits[GPU] = str(gpus)
    return {"requests": limits | ({"cpu": requested_cpus} if requested_cpus else {}), "limits": dict(limits)}


def _port(name: str, number: int) -> Json:
    return {"name": name, "containerPort": number}


def _mount(name: str, path: str) -> Json:
    return {"name": name, "mountPath": path}


def _empty(name: str, size: int) -> Json:
    return {"name": name, "emptyDir": {"sizeLimit": _gib(size)}}


def _gib(size: int) -> str:
    return f"{size // GIB}Gi"
