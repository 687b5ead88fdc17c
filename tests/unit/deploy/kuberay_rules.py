"""What KubeRay 1.7's operator refuses, rule by rule (its utils/validation.go), besides what its schemas say.

A rule takes a custom resource and yields what is wrong with it. Feature gates are taken as they are by default.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from orpo_ray.deploy.shape import cluster_spec

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
_DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL}"


def cluster(resource: Json) -> Json:
    spec = cluster_spec(resource)
    assert spec is not None
    return spec


def groups(resource: Json) -> list[tuple[str, Json]]:
    """The head and every worker group, by name."""
    spec = cluster(resource)
    return [("head", spec["headGroupSpec"]), *((group["groupName"], group) for group in spec["workerGroupSpecs"])]


def ray_container(group: Json) -> Json:
    """In KubeRay the first container of a pod is Ray's."""
    container: Json = group["template"]["spec"]["containers"][0]
    return container


def pods(resource: Json) -> list[Json]:
    """Templates of all pods, the submitter's among them."""
    templates = [group["template"] for _, group in groups(resource)]
    if resource["kind"] == "RayJob":
        templates.append(resource["spec"]["submitterPodTemplate"])
    return templates


def variables(container: Json) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def autoscaled(resource: Json) -> bool:
    return bool(cluster(resource).get("enableInTreeAutoscaling"))


def second_autoscaler(resource: Json) -> bool:
    return autoscaled(resource) and cluster(resource).get("autoscalerOptions", {}).get("version") == "v2"


def names_fit(resource: Json) -> Iterator[str]:
    name, kind = resource["metadata"]["name"], resource["kind"]
    if not re.fullmatch(_DNS_1035, name):
        yield f"{name} is no DNS-1035 label"
    if len(name) > LONGEST_NAME[kind]:
        yield f"{name} is longer than {LONGEST_NAME[kind]}"


def every_group_has_a_container(resource: Json) -> Iterator[str]:
    for name, group in groups(resource):
        if not group["template"]["spec"].get("containers"):
            yield f"{name} has none"


def resources_are_given_once(resource: Json) -> Iterator[str]:
    for name, group in groups(resource):
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & group["rayStartParams"].keys():
            yield f"{name} has resources of its own and in rayStartParams"


def labels_are_labels(resource: Json) -> Iterator[str]:
    for name, group in groups(resource):
        if "labels" in group["rayStartParams"]:
            yield f"{name} has labels in rayStartParams"
        for key, value in group.get("labels", {}).items():
            if not re.fullmatch(_LABEL_KEY, key) or not re.fullmatch(rf"({_LABEL})?", value):
                yield f"{name}: {key}={value}"


def replicas_are_bounded(resource: Json) -> Iterator[str]:
    for name, group in groups(resource)[1:]:
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if not autoscaled(resource) and (low is None or high is None):
            yield f"{name} lacks a bound, and nothing scales it"
        if (low or 0) < 0 or (high or 0) < 0 or (low is not None and high is not None and low > high):
            yield f"{name}: {low} to {high}"


def idle_time_is_the_second_autoscalers(resource: Json) -> Iterator[str]:
    common = cluster(resource).get("autoscalerOptions", {}).get("idleTimeoutSeconds", 0)
    if common < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    for name, group in groups(resource)[1:]:
        idle = group.get("idleTimeoutSeconds")
        if idle is not None and (idle < 0 or not second_autoscaler(resource)):
            yield f"{name}: {idle}"


def priority_is_the_second_autoscalers(resource: Json) -> Iterator[str]:
    for name, group in groups(resource)[1:]:
        recent = _at_least(cluster(resource).get("rayVersion", ""), "2.56.0")
        if group.get("priority") and not (recent and second_autoscaler(resource)):
            yield name


def redis_is_named_by_its_own_options(resource: Json) -> Iterator[str]:
    spec, head = cluster(resource), groups(resource)[0][1]
    tolerant = spec.get("gcsFaultToleranceOptions") is not None
    annotated = bool(resource["metadata"].get("annotations", {}).get("ray.io/ft-enabled"))
    known = variables(ray_container(head))
    if tolerant and annotated:
        yield "fault tolerance is switched on twice"
    if not (tolerant or annotated) and "RAY_REDIS_ADDRESS" in known:
        yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    if "redis-username" in head["rayStartParams"] or "REDIS_USERNAME" in known:
        yield "a user of Redis outside gcsFaultToleranceOptions"
    if tolerant and (
        "redis-password" in head["rayStartParams"] or {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"} & known.keys()
    ):
        yield "Redis beside gcsFaultToleranceOptions"


def groups_are_not_suspended(resource: Json) -> Iterator[str]:
    yield from (name for name, group in groups(resource)[1:] if group.get("suspend"))


def the_autoscalers_version_is_said_once(resource: Json) -> Iterator[str]:
    version = variables(ray_container(groups(resource)[0][1])).get("RAY_enable_autoscaler_v2")
    if version in ("1", "true") and not autoscaled(resource):
        yield "RAY_enable_autoscaler_v2 without an autoscaler"
    if version is not None and cluster(resource).get("autoscalerOptions", {}).get("version"):
        yield "RAY_enable_autoscaler_v2 beside autoscalerOptions.version"


def scaled_pods_are_never_restarted(resource: Json) -> Iterator[str]:
    for name, group in groups(resource):
        if second_autoscaler(resource) and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield name


def the_autoscalers_command_is_kuberays(resource: Json) -> Iterator[str]:
    if "KUBERAY_GEN_AUTOSCALER_START_CMD" in variables(cluster(resource).get("autoscalerOptions", {})):
        yield "KUBERAY_GEN_AUTOSCALER_START_CMD"


def tokens_need_a_recent_ray(resource: Json) -> Iterator[str]:
    spec = cluster(resource)
    options, version = spec.get("authOptions", {}), spec.get("rayVersion", "")
    token, kubernetes = options.get("mode") == "token", options.get("enableK8sTokenAuth", False)
    if token and not _at_least(version, "2.52.0"):
        yield f"a token with Ray {version or 'of no version'}"
    if kubernetes and not (token and _at_least(version, "2.55.0")):
        yield "Kubernetes' tokens"
    if kubernetes and options.get("secretName"):
        yield "Kubernetes' tokens and a Secret"
    if kubernetes and resource["kind"] != "RayCluster":
        yield f"Kubernetes' tokens for a {resource['kind']}"


def nothing_waits_behind_a_feature_gate(resource: Json) -> Iterator[str]:
    gated = ("networkPolicy", "tlsOptions", "historyServerOptions")
    yield from (name for name in gated if cluster(resource).get(name) is not None)
    if cluster(resource).get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
        yield "gcsFaultToleranceOptions.backend"


def only_a_cluster_of_its_own_is_upgraded(resource: Json) -> Iterator[str]:
    strategy = cluster(resource).get("upgradeStrategy", {}).get("type")
    if strategy is not None and (resource["kind"] != "RayCluster" or strategy not in ("Recreate", "None")):
        yield strategy


def a_job_that_waits_gives_its_cluster_back(resource: Json) -> Iterator[str]:
    spec = _job(resource)
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend without shutdownAfterJobFinishes"
    ttl = spec.get("ttlSecondsAfterFinished", 0)
    if ttl < 0 or (ttl and not spec.get("shutdownAfterJobFinishes")):
        yield f"ttlSecondsAfterFinished {ttl}"


def deletion_rules_stand_alone(resource: Json) -> Iterator[str]:
    spec = _job(resource)
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules, legacy = strategy.get("deletionRules"), "onSuccess" in strategy or "onFailure" in strategy
    if rules and (legacy or spec.get("shutdownAfterJobFinishes")):
        yield "deletionRules beside another way"
    if not rules and not {"onSuccess", "onFailure"} <= strategy.keys():
        yield "neither rules nor both of onSuccess and onFailure"


def a_job_has_one_cluster(resource: Json) -> Iterator[str]:
    spec = _job(resource)
    if not spec:
        return
    selector = spec.get("clusterSelector")
    if selector is None and "rayClusterSpec" not in spec:
        yield "no cluster"
    if selector is not None:
        if not selector.get("ray.io/cluster"):
            yield "the cluster has no name"
        if spec.get("submissionMode") == "SidecarMode" or spec.get("suspend") or spec.get("backoffLimit"):
            yield "a cluster of others takes no sidecar, no suspension and no new attempt"


def interactive_jobs_are_tried_once(resource: Json) -> Iterator[str]:
    if _job(resource).get("submissionMode") == "InteractiveMode" and _job(resource).get("backoffLimit"):
        yield "InteractiveMode with backoffLimit"


def sidecars_have_no_submitter(resource: Json) -> Iterator[str]:
    spec = _job(resource)
    if spec.get("submissionMode") != "SidecarMode":
        return
    yield from (name for name in ("submitterPodTemplate", "submitterConfig") if name in spec)
    if spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].get("restartPolicy", "Never") != "Never":
        yield "restartPolicy of the head"


def the_runtime_environment_is_yaml(resource: Json) -> Iterator[str]:
    try:
        yaml.safe_load(_job(resource).get("runtimeEnvYAML", ""))
    except yaml.YAMLError as error:
        yield str(error)


def limits_are_positive(resource: Json) -> Iterator[str]:
    spec = _job(resource)
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(name, 1) <= 0:
            yield name
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit"


def what_the_driver_asks_for_is_json(resource: Json) -> Iterator[str]:
    try:
        json.loads(_job(resource).get("entrypointResources", "{}"))
    except json.JSONDecodeError as error:
        yield str(error)


def a_services_head_is_named_by_kuberay(resource: Json) -> Iterator[str]:
    if resource["kind"] == "RayService" and cluster(resource)["headGroupSpec"].get("headService", {}).get("metadata"):
        yield "headService.metadata.name"


def services_are_upgraded_as_kuberay_can(resource: Json) -> Iterator[str]:
    if resource["kind"] != "RayService":
        return
    spec = resource["spec"]
    strategy = spec.get("upgradeStrategy", {})
    kind = strategy.get("type", "NewCluster")
    if kind not in ("None", "NewCluster", "NewClusterWithIncrementalUpgrade"):
        yield kind
    if kind == "NewClusterWithIncrementalUpgrade":
        options = strategy.get("clusterUpgradeOptions", {})
        if not (autoscaled(resource) and options.get("gatewayClassName") and options.get("intervalSeconds", 0) > 0):
            yield "an incremental upgrade without autoscaler, gateway or interval"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds"


def a_services_start_has_a_limit_that_can_be_read(resource: Json) -> Iterator[str]:
    limit = resource["metadata"].get("annotations", {}).get("ray.io/initializing-timeout")
    if resource["kind"] == "RayService" and limit and not re.fullmatch(r"[1-9]\d*|([1-9]\d*[hms])+", limit):
        yield limit


RULES: tuple[Rule, ...] = (
    names_fit,
    every_group_has_a_container,
    resources_are_given_once,
    labels_are_labels,
    replicas_are_bounded,
    idle_time_is_the_second_autoscalers,
    priority_is_the_second_autoscalers,
    redis_is_named_by_its_own_options,
    groups_are_not_suspended,
    the_autoscalers_version_is_said_once,
    scaled_pods_are_never_restarted,
    the_autoscalers_command_is_kuberays,
    tokens_need_a_recent_ray,
    nothing_waits_behind_a_feature_gate,
    only_a_cluster_of_its_own_is_upgraded,
    a_job_that_waits_gives_its_cluster_back,
    deletion_rules_stand_alone,
    a_job_has_one_cluster,
    interactive_jobs_are_tried_once,
    sidecars_have_no_submitter,
    the_runtime_environment_is_yaml,
    limits_are_positive,
    what_the_driver_asks_for_is_json,
    a_services_head_is_named_by_kuberay,
    services_are_upgraded_as_kuberay_can,
    a_services_start_has_a_limit_that_can_be_read,
)


def _job(resource: Json) -> Json:
    spec: Json = resource["spec"] if resource["kind"] == "RayJob" else {}
    return spec


def _at_least(version: str, least: str) -> bool:
    try:
        return Version(version) >= Version(least)
    except InvalidVersion:
        return False
