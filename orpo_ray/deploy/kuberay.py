"""KubeRay's manifests: a RayJob for a run, a RayCluster to submit to, a RayService of the teacher alone or of the control plane."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

import orpo_ray
from orpo_ray.config import RunConfig
from orpo_ray.deploy.plan import amounts_of, make_plan
from orpo_ray.deploy.pods import (
    APP,
    CONFIGURATION,
    DASHBOARD,
    INSTANCE,
    METRICS,
    MIRROR_KEYS,
    MODELS,
    SERVE,
    SERVICE_TOKEN,
    PodOptions,
    autoscaler,
    head_group,
    submitter,
    worker_group,
)
from orpo_ray.deploy.pools import DRIVER_RESOURCE, Pool, pools_of, shape_of, teacher_pool, with_role_labels
from orpo_ray.errors import InputError
from orpo_ray.phases.needs import GIB, count_parameters

Kind = Literal["job", "cluster", "teacher", "service"]
_SERVED: tuple[Kind, ...] = ("teacher", "service")
RAY_VERSION = "2.60.0"
# Where the image holds the package (docker/Dockerfile).
IN_IMAGE = Path("/opt/orpo-ray")
_STORAGE = "/storage"
# Where the control plane works, and the drivers of its runs.
_DRIVERS = {"orpo-ray.io/role": "driver"}
# KubeRay's own limit: a RayJob's name with six characters behind it names its RayCluster.
_LONGEST_NAME = 47


@dataclass(frozen=True)
class RenderOptions:
    """What the configuration does not say about the cluster.

    Attributes:
        image: of head and workers; `orpo-ray:cpu` or `orpo-ray:cuda` where None.
        queue: a LocalQueue of Kueue, which admits the job as a whole, so that nothing is scaled.
        monitored: with a PodMonitor for the Prometheus operator in the namespace `monitoring`.
        autoscaled: pods of teacher, samplers and trainers come when they are asked for, and go.
        parameters: of the student, where its files are not here.
        gpus_a_pod: GPUs of the cluster's nodes.
    """

    kind: Kind = "job"
    image: str | None = None
    namespace: str | None = None
    queue: str | None = None
    autoscaled: bool = True
    monitored: bool = False
    parameters: int = 0
    gpus_a_pod: int = 8


def render(config: RunConfig, options: RenderOptions) -> list[dict[str, Any]]:
    """The documents to apply, the custom resource last.

    Raises:
        InputError: the configuration names files of this machine, or what it asks fits into no pods.
    """
    if options.kind == "teacher" and config.teacher.backend != "serve":
        raise InputError(f"teacher.backend: {config.teacher.backend}; only a teacher of ours (serve) can be served")
    name = resource_name(config.name)
    parameters = options.parameters or count_parameters(config.student.model) or _packaged(config.student.model)
    config, mount = in_pods(with_role_labels(config))
    autoscaled = options.autoscaled and options.queue is None
    pools = pools_of(config, parameters, options.gpus_a_pod)
    _check(config, pools, parameters)
    if options.kind == "teacher":
        config = _reached_in_the_cluster(config)
        pool = teacher_pool(config, options.gpus_a_pod)
        pools = [_at_least(pool, config.teacher.serve.min_replicas * pool.most // config.teacher.serve.max_replicas)]
    if not autoscaled:
        pools = [pool.fixed() for pool in pools]
    gpus = any(pool.gpus for pool in pools)
    pods = PodOptions(
        name=name,
        image=options.image or f"orpo-ray:{'cuda' if gpus else 'cpu'}",
        storage=mount,
        key_envs=_key_envs(config, options.kind),
        configured=options.kind not in ("cluster", "service"),
        autoscaled=autoscaled,
        served=options.kind in _SERVED,
    )
    documents = [
        *([_config_map(name, config)] if pods.configured else []),
        *_claims(config, parameters),
        network_policy(name, clients_of=options.kind if options.kind in _SERVED else None),
        *disruption_budgets(name, pools),
        *(monitoring(name) if options.monitored else []),
        _resource(pods, pools, options),
    ]
    for document in documents:
        document["metadata"]["labels"] = pods.pod_labels | document["metadata"].get("labels", {})
        if options.namespace:
            document["metadata"]["namespace"] = options.namespace
    return documents


def dump_manifests(documents: list[dict[str, Any]]) -> str:
    """The documents as one YAML file; a text of several lines is kept as such."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def resource_name(run: str) -> str:
    """A run's name as Kubernetes takes it (DNS-1035), the same for the same run.

    Raises:
        InputError: it is too long, so that two runs could meet.
    """
    name = re.sub(r"[^a-z0-9-]+", "-", run.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"run-{name}"
    if len(name) > _LONGEST_NAME:
        raise InputError(f"name: {run} is longer than the {_LONGEST_NAME} characters that a RayJob's name may have")
    return name


def in_pods(config: RunConfig) -> tuple[RunConfig, str]:
    """The configuration as the pods see it, and where they mount the storage.

    Raises:
        InputError: an option names a file or directory of this machine that no pod has.
    """
    path = Path(config.storage.path)
    mount = str(path) if path.is_absolute() and not path.is_relative_to(_STORAGE) else _STORAGE
    problems: list[str] = []

    def seen(option: str, given: str | None) -> str | None:
        if given is None:
            return None
        package = Path(orpo_ray.__file__).resolve().parent
        local = Path(given)
        if local.exists() and local.resolve().is_relative_to(package):
            return str(IN_IMAGE / local.resolve().relative_to(package.parent))
        mounted = any(local.is_relative_to(place) for place in (mount, MODELS, IN_IMAGE))
        if local.exists() and not mounted:
            problems.append(
                f"{option}: {given} lies on this machine; copy it to the storage and give its path below {mount}, "
                f"or put it into the image"
            )
        return given

    task, teacher = config.task, config.teacher
    changed = config.model_copy(
        update={
            "storage": config.storage.model_copy(
                update={"path": str(path) if path.is_absolute() else str(Path(_STORAGE) / path)}
            ),
            "student": config.student.model_copy(update={"model": seen("student.model", config.student.model)}),
            "teacher": teacher.model_copy(
                update={
                    "model": seen("teacher.model", teacher.model) if teacher.backend == "serve" else teacher.model,
                    "path": seen("teacher.path", teacher.path),
                    # The head, where Serve listens, does no work: its clients are on other pods.
                    "serve": teacher.serve.model_copy(update={"host": "0.0.0.0"}),
                }
            ),
            "task": task.model_copy(
                update={
                    name: seen(f"task.{name}", getattr(task, name)) for name in ("path", "validation_path", "test_path")
                }
            ),
        }
    )
    if problems:
        raise InputError("\n".join(problems))
    return changed, mount


def _packaged(model: str) -> int:
    """Parameters of a model that the image holds, from the files of this package."""
    if not Path(model).is_relative_to(IN_IMAGE):
        return 0
    return count_parameters(str(Path(orpo_ray.__file__).parents[1] / Path(model).relative_to(IN_IMAGE)))


def network_policy(name: str, *, clients_of: Kind | None = None) -> dict[str, Any]:
    """Who may reach the pods, and whom they may reach: an open Ray port is remote code execution (CVE-2023-48022).

    Args:
        clients_of: what is served, to runs of ours in the namespace and to pods with the label
            `orpo-ray.io/<clients_of>-client`; None for nothing.
    """
    own = {"podSelector": {"matchLabels": PodOptions(name, "", "").pod_labels}}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    ingress: list[dict[str, Any]] = [
        {"from": [own]},
        {"from": [operator], "ports": [_tcp(DASHBOARD), *([_tcp(SERVE)] if clients_of else [])]},
    ]
    if clients_of:
        labels = {APP: "orpo-ray"}, {f"orpo-ray.io/{clients_of}-client": "true"}
        clients = [{"podSelector": {"matchLabels": label}} for label in labels]
        ingress.append({"from": clients, "ports": [_tcp(SERVE)]})
    outside = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": own["podSelector"],
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [
                {"to": [own]},
                # A teacher that is served beside, as `--kind teacher` makes it.
                {"to": [{"podSelector": {"matchLabels": {APP: "orpo-ray"}}}], "ports": [_tcp(SERVE)]},
                {"ports": [_tcp(53), {"protocol": "UDP", "port": 53}]},
                # Hubs and APIs over TLS, and Kubernetes' own, which the autoscaler asks; never a cloud's metadata.
                {"to": [outside], "ports": [_tcp(443), _tcp(6443)]},
            ],
        },
    }


def disruption_budgets(name: str, pools: list[Pool]) -> list[dict[str, Any]]:
    """Pods without which a run falls back to its last checkpoint are not drained while it works.

    Kubernetes knows no owner of a RayCluster's pods to count by, so only `minAvailable` as a whole number holds.
    """
    kept = [("head", 1, {"ray.io/node-type": "head"})]
    kept += [
        (pool.name, pool.most, {"ray.io/group": pool.name})
        for pool in pools
        if pool.name in ("driver", "trainers", "workers")
    ]
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": f"{name}-{part}"},
            "spec": {"minAvailable": pods, "selector": {"matchLabels": {INSTANCE: name} | labels}},
        }
        for part, pods, labels in kept
    ]


def monitoring(name: str) -> list[dict[str, Any]]:
    """For the Prometheus operator: metrics of every Ray node, and the way to them through the network policy."""
    own = {"matchLabels": {INSTANCE: name, "ray.io/is-ray-node": "yes"}}
    relabel = [{"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}]
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": {"name": name},
            "spec": {
                "jobLabel": INSTANCE,
                "selector": own,
                "podMetricsEndpoints": [{"port": "metrics", "relabelings": relabel}],
            },
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{name}-metrics"},
            "spec": {
                "podSelector": own,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [prometheus], "ports": [_tcp(METRICS)]}],
            },
        },
    ]


def _resource(pods: PodOptions, pools: list[Pool], options: RenderOptions) -> dict[str, Any]:
    cluster: dict[str, Any] = {"rayVersion": RAY_VERSION, "authOptions": {"mode": "token"}}
    if pods.autoscaled:
        cluster |= {"enableInTreeAutoscaling": True, "autoscalerOptions": autoscaler()}
    cluster["headGroupSpec"] = head_group(pods)
    cluster["workerGroupSpecs"] = [worker_group(pods, pool) for pool in pools]
    metadata: dict[str, Any] = {"name": pods.name}
    if options.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": options.queue}
    if options.kind == "cluster":
        return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": cluster}
    if options.kind in _SERVED:
        spec = {
            "serviceUnhealthySecondThreshold": 900,
            "deploymentUnhealthySecondThreshold": 900,
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": yaml.safe_dump(serve_config(options.kind, pods.storage), sort_keys=False),
            "rayClusterConfig": cluster,
        }
        return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": spec}
    job = {
        "entrypoint": f"orpo-ray run {CONFIGURATION}",
        "entrypointNumCpus": 1,
        "entrypointResources": json.dumps({DRIVER_RESOURCE: 1}),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": submitter(pods),
        "preRunningDeadlineSeconds": 1800,
        "backoffLimit": 2,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "rayClusterSpec": cluster,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": job}


def serve_config(kind: Kind = "teacher", storage: str = _STORAGE) -> dict[str, Any]:
    """Ray Serve's configuration of the teacher alone, or of the control plane."""
    if kind == "teacher":
        args: dict[str, Any] = {"config": CONFIGURATION}
        path = "orpo_ray.teacher.endpoint:app"
    else:
        path = "orpo_ray.service.serving:application"
        drivers = {"cpus": 1, "resources": {DRIVER_RESOURCE: 1}}
        args = {"storage": f"{storage}/runs", "labels": dict(_DRIVERS), "drivers": drivers}
    application = {"name": kind, "import_path": path, "route_prefix": "/", "args": args}
    return {"applications": [application]}


def _key_envs(config: RunConfig, kind: Kind) -> tuple[str, ...]:
    """Environment variables of keys that the pods need."""
    if kind == "teacher":
        keys = [config.teacher.serve.api_key_env]
    else:
        keys = [config.teacher.api_key_env, SERVICE_TOKEN if kind == "service" else None]
        keys += MIRROR_KEYS if (config.storage.mirror or "").startswith("s3:") else ()
    return tuple(key for key in keys if key)


def _config_map(name: str, config: RunConfig) -> dict[str, Any]:
    text = yaml.safe_dump(
        config.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=False, allow_unicode=True
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {Path(CONFIGURATION).name: text},
    }


def _claims(config: RunConfig, parameters: int) -> list[dict[str, Any]]:
    amounts = amounts_of(config, parameters)
    known = amounts.disk_bytes if amounts is not None else None
    # Room for twice what is expected, in steps of 10 GiB.
    storage = 200 if known is None else max(20, 10 * math.ceil(2 * known / GIB / 10))
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            # Every node reads published weights and writes checkpoints.
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": f"{size}Gi"}}},
        }
        for name, size in (("orpo-ray-storage", storage), ("orpo-ray-models", 100))
    ]


def _check(config: RunConfig, pools: list[Pool], parameters: int) -> None:
    plan = make_plan(config, shape_of(pools), own_cluster=False, parameters=parameters)
    if plan.problems:
        lines = [f"  - {phase}: {problem}" for phase, found in plan.problems.items() for problem in found]
        raise InputError("what `resources` asks for fits into no pods\n" + "\n".join(lines))


def _reached_in_the_cluster(config: RunConfig) -> RunConfig:
    """A teacher without a key of its own is what the network policy lets others reach."""
    serve = config.teacher.serve
    serve = serve.model_copy(update={"insecure": serve.api_key_env is None})
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"serve": serve})})


def _at_least(pool: Pool, fewest: int) -> Pool:
    return Pool(**{**pool.__dict__, "fewest": fewest})


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing as an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
