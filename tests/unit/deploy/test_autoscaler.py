"""What Ray's own autoscaler makes of the manifests: its reading of the groups, and the pods that it would ask KubeRay for."""

import copy
from collections import Counter
from typing import Any

import pytest

from orpo_ray.phases.fit import demands_of
from orpo_ray.phases.needs import groups_by_phase
from tests.unit.deploy.kuberay_rules import autoscaled, cluster, groups, ray_container
from tests.unit.deploy.manifests import SOURCES, load, ray_resource, rendered
from tests.unit.deploy.test_manifests import carried

Json = dict[str, Any]
GIB = 2**30


def read_by_ray(resource: Json) -> Json:
    """The autoscaling configuration that Ray derives from the RayCluster that KubeRay makes of `resource`."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    made = {"metadata": {"name": "c", "namespace": "n"}, "spec": copy.deepcopy(cluster(resource))}
    config: Json = _derive_autoscaling_config_from_ray_cr(made)
    return config


@pytest.mark.parametrize("source", SOURCES, ids="/".join)
def test_ray_reads_the_groups_as_they_are_meant(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    if not autoscaled(resource):
        return
    kinds = read_by_ray(resource)["available_node_types"]
    for name, group in groups(resource):
        kind = kinds["headgroup" if name == "head" else name]
        limits = ray_container(group)["resources"]["limits"]
        assert kind["resources"]["CPU"] == (0 if name == "head" else int(limits["cpu"]))
        assert kind["resources"].get("GPU", 0) == int(limits.get("nvidia.com/gpu", 0))
        assert kind["resources"]["memory"] == int(limits["memory"].removesuffix("Gi")) * GIB
        assert kind["resources"].get("driver") == (1 if name == "driver" else None)
        assert kind["labels"] == group.get("labels", {})
        if name != "head":
            assert (kind["min_workers"], kind["max_workers"]) == (group["minReplicas"], group["maxReplicas"])


@pytest.mark.parametrize(
    ("name", "phase", "expected"),
    [
        ("job", "TEACH", {"teacher": 1}),
        ("job", "SEED", {"samplers": 3}),
        ("job", "DISTILL", {"samplers": 3, "trainers": 1}),
        # Two replicas to begin with.
        ("gpu", "TEACH", {"teacher": 2}),
        ("gpu", "DISTILL", {"samplers": 4, "trainers": 1}),
        ("colocated", "DISTILL", {"workers": 1}),
    ],
)
def test_each_phase_brings_up_the_pods_made_for_it(name: str, phase: str, expected: dict[str, int]) -> None:
    """From nothing but head and driver, by labels alone: the scheduler of Ray's autoscaler, version 2."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    documents = rendered(name)
    config = carried(documents)
    assert config is not None
    asked, gangs = [], []
    for group in groups_by_phase(config)[phase]:
        for demand in demands_of(config, group):
            selector = [(key, LabelSelectorOperator.LABEL_OPERATOR_IN, [value]) for key, value in demand.labels.items()]
            if not selector:
                continue  # goes to the driver's pod, which is there
            requests = [
                ResourceRequestUtil.make(
                    {"CPU": bundle.cpus} | ({"GPU": bundle.gpus} if bundle.gpus else {}), label_selectors=[selector]
                )
                for bundle in demand.bundles
            ]
            if len(requests) > 1:
                gangs.append(GangResourceRequest(requests=requests))
            else:
                asked += requests
    told = AutoscalingConfig(read_by_ray(ray_resource(documents)))
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=told.get_node_type_configs(),
            max_num_nodes=told.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(asked),
            gang_resource_requests=gangs,
        )
    )
    launched: Counter[str] = Counter()
    for launch in reply.to_launch:
        launched[launch.instance_type] += launch.count
    assert not reply.infeasible_resource_requests
    assert not reply.infeasible_gang_resource_requests
    # The driver's pod is kept whatever is asked.
    assert {kind: count for kind, count in launched.items() if kind not in ("driver", "headgroup")} == expected


def test_a_label_that_no_group_has_brings_up_nothing() -> None:
    """Such a demand waits for ever; `orpo-ray plan` and `deploy render` say so beforehand."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    selector = [("orpo-ray.io/role", LabelSelectorOperator.LABEL_OPERATOR_IN, ["nobody"])]
    told = AutoscalingConfig(read_by_ray(ray_resource(rendered("job"))))
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=told.get_node_type_configs(),
            max_num_nodes=told.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make({"CPU": 1}, label_selectors=[selector])]
            ),
        )
    )
    assert len(reply.infeasible_resource_requests) == 1
