"""No manifest breaks a rule of the operator's; and each rule finds what breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.deploy import kuberay_rules as rules
from tests.unit.deploy.manifests import SOURCES, load, ray_resource, rendered

Json = dict[str, Any]


@pytest.mark.parametrize("source", SOURCES, ids="/".join)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_operator_would_take_it(rule: rules.Rule, source: tuple[str, str]) -> None:
    assert list(rule(ray_resource(load(source)))) == []


def head(resource: Json) -> Json:
    return rules.groups(resource)[0][1]


def worker(resource: Json) -> Json:
    return rules.groups(resource)[1][1]


def unscaled(resource: Json) -> None:
    del rules.cluster(resource)["enableInTreeAutoscaling"]


BROKEN: list[tuple[rules.Rule, str, Callable[[Json], Any]]] = [
    (rules.names_fit, "job", lambda r: r["metadata"].update(name="Run.1")),
    (rules.names_fit, "job", lambda r: r["metadata"].update(name="a" * 48)),
    (rules.every_group_has_a_container, "job", lambda r: worker(r)["template"]["spec"].update(containers=[])),
    (rules.resources_are_given_once, "job", lambda r: head(r).update(resources={"CPU": "0"})),
    (rules.labels_are_labels, "job", lambda r: worker(r)["rayStartParams"].update(labels="a=b")),
    (rules.labels_are_labels, "job", lambda r: worker(r)["labels"].update({"a": "in(b, c)"})),
    (rules.replicas_are_bounded, "api", lambda r: worker(r).pop("maxReplicas")),
    (rules.replicas_are_bounded, "job", lambda r: worker(r).update(minReplicas=2)),
    (rules.idle_time_is_the_second_autoscalers, "api", lambda r: worker(r).update(idleTimeoutSeconds=60)),
    (rules.priority_is_the_second_autoscalers, "api", lambda r: worker(r).update(priority=1)),
    (
        rules.redis_is_named_by_its_own_options,
        "job",
        lambda r: rules.ray_container(head(r))["env"].append({"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}),
    ),
    (rules.groups_are_not_suspended, "job", lambda r: worker(r).update(suspend=True)),
    (
        rules.the_autoscalers_version_is_said_once,
        "job",
        lambda r: rules.ray_container(head(r))["env"].append({"name": "RAY_enable_autoscaler_v2", "value": "1"}),
    ),
    (
        rules.scaled_pods_are_never_restarted,
        "job",
        lambda r: head(r)["template"]["spec"].update(restartPolicy="Always"),
    ),
    (
        rules.the_autoscalers_command_is_kuberays,
        "job",
        lambda r: rules.cluster(r)["autoscalerOptions"].update(env=[{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD"}]),
    ),
    (rules.tokens_need_a_recent_ray, "job", lambda r: rules.cluster(r).pop("rayVersion")),
    (rules.tokens_need_a_recent_ray, "job", lambda r: rules.cluster(r).update(rayVersion="2.51.1")),
    (rules.tokens_need_a_recent_ray, "job", lambda r: rules.cluster(r)["authOptions"].update(enableK8sTokenAuth=True)),
    (rules.nothing_waits_behind_a_feature_gate, "job", lambda r: rules.cluster(r).update(networkPolicy={})),
    (
        rules.only_a_cluster_of_its_own_is_upgraded,
        "job",
        lambda r: rules.cluster(r).update(upgradeStrategy={"type": "Recreate"}),
    ),
    (rules.a_job_that_waits_gives_its_cluster_back, "job", lambda r: r["spec"].pop("shutdownAfterJobFinishes")),
    (
        rules.deletion_rules_stand_alone,
        "job",
        lambda r: r["spec"].update(deletionStrategy={"deletionRules": [{"policy": "DeleteSelf"}]}),
    ),
    (rules.a_job_has_one_cluster, "job", lambda r: r["spec"].update(clusterSelector={"ray.io/cluster": "c"})),
    (rules.interactive_jobs_are_tried_once, "job", lambda r: r["spec"].update(submissionMode="InteractiveMode")),
    (rules.sidecars_have_no_submitter, "job", lambda r: r["spec"].update(submissionMode="SidecarMode")),
    (rules.the_runtime_environment_is_yaml, "job", lambda r: r["spec"].update(runtimeEnvYAML="a: [")),
    (rules.limits_are_positive, "job", lambda r: r["spec"].update(preRunningDeadlineSeconds=0)),
    (rules.what_the_driver_asks_for_is_json, "job", lambda r: r["spec"].update(entrypointResources="driver=1")),
    (
        rules.a_services_head_is_named_by_kuberay,
        "teacher",
        lambda r: head(r).update(headService={"metadata": {"name": "mine"}}),
    ),
    (
        rules.services_are_upgraded_as_kuberay_can,
        "teacher",
        lambda r: r["spec"].update(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"}),
    ),
    (
        rules.a_services_start_has_a_limit_that_can_be_read,
        "teacher",
        lambda r: r["metadata"].update(annotations={"ray.io/initializing-timeout": "soon"}),
    ),
]


@pytest.mark.parametrize(("rule", "name", "break_it"), BROKEN, ids=[rule.__name__ for rule, _, _ in BROKEN])
def test_a_rule_finds_what_breaks_it(rule: rules.Rule, name: str, break_it: Callable[[Json], Any]) -> None:
    resource = copy.deepcopy(ray_resource(rendered(name)))
    break_it(resource)
    assert list(rule(resource)) != []


def test_every_rule_has_been_seen_to_find_something() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(rules.RULES)
