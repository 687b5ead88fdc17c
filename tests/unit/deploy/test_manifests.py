"""The manifests are what KubeRay's schemas take, say the same whichever way they are made, and fit image and code."""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from create_venv import pins
from jsonschema import Draft202012Validator

from orpo_ray.cli.app import app
from orpo_ray.client import Placement
from orpo_ray.config import RunConfig, load_config, parse_config
from orpo_ray.deploy.kuberay import IN_IMAGE, RAY_VERSION, RenderOptions, render
from orpo_ray.deploy.plan import make_plan
from orpo_ray.deploy.pods import AGENT, CONFIGURATION, DASHBOARD, GCS, METRICS, MIRROR_KEYS, SERVE
from orpo_ray.deploy.shape import read_shape
from orpo_ray.service.serving import TOKEN_VARIABLE
from orpo_ray.teacher.key import served_key
from tests.unit.deploy.kuberay_rules import autoscaled, cluster, groups, pods, ray_container, variables
from tests.unit.deploy.manifests import (
    CHART,
    GPU_PARAMETERS,
    KINDS,
    KUSTOMIZE,
    OVERLAYS,
    ROOT,
    SHARED,
    SOURCES,
    VALUES,
    by_name,
    files,
    helm,
    kustomized,
    load,
    ray_resource,
    rendered,
    templated,
)

Json = dict[str, Any]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
each_source = pytest.mark.parametrize("source", SOURCES, ids="/".join)


# --- What KubeRay takes ----------------------------------------------------------------------------------------------


def schema(kind: str) -> Draft202012Validator:
    file = SHARED / "kuberay-schemas" / f"{kind.lower()}_v1.json"
    if not file.is_file():
        pytest.skip(f"KubeRay's schemas are not at {file.parent} (ORPO_RAY_SHARED_DIR)")
    return Draft202012Validator(json.loads(file.read_text()))


@each_source
def test_the_schema_takes_it(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    validator = schema(resource["kind"])
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource)] == []


def test_the_schema_refuses_a_misspelt_option() -> None:
    resource = copy.deepcopy(ray_resource(rendered("job")))
    resource["spec"]["backOffLimit"] = 2
    assert not schema("RayJob").is_valid(resource)


# --- One run, whichever way it is written -----------------------------------------------------------------------------


def specs(documents: list[Json]) -> dict[tuple[str, str], Any]:
    """What each document asks for, without labels of the tool that wrote it; groups by name."""
    return {key: ordered(document.get("spec")) for key, document in by_name(documents).items() if key[0] != "Namespace"}


def ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: sorted(map(ordered, inner), key=lambda group: str(group["groupName"]))
            if key == "workerGroupSpecs"
            else yaml.safe_load(inner)
            if key == "serveConfigV2"
            else ordered(inner)
            for key, inner in value.items()
        }
    return [ordered(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("folder", "kind"), KINDS.items())
def test_the_files_are_what_render_writes(folder: str, kind: str) -> None:
    written = {key: spec for key, spec in specs(rendered(kind)).items() if key[0] != "ConfigMap"}
    assert specs(files(folder)) == written


@pytest.mark.parametrize(
    ("overlay", "name"),
    [
        ("overlays/cpu", "job"),
        ("overlays/gpu", "gpu"),
        ("cluster", "cluster"),
        ("teacher", "teacher"),
        ("service", "service"),
    ],
)
def test_what_kustomize_makes_is_what_render_writes(overlay: str, name: str) -> None:
    assert specs(kustomized(overlay)) == specs(rendered(name))


def test_kueues_overlay_adds_its_queue_alone() -> None:
    made = specs(kustomized("overlays/kueue"))
    assert made.pop(("LocalQueue", "orpo-ray")) == {"clusterQueue": "default"}
    assert made == specs(rendered("kueue"))


@pytest.mark.parametrize("name", ["job", "cluster", "teacher", "service", "kueue", "monitored", "mirror"])
def test_what_helm_makes_is_what_render_writes(name: str) -> None:
    assert specs(templated(name)) == specs(rendered(name))


def test_the_monitoring_component_is_what_render_writes() -> None:
    component = {}
    for document in yaml.safe_load_all((KUSTOMIZE / "components" / "monitoring" / "pod-monitor.yaml").read_text()):
        component[document["kind"], document["metadata"]["name"]] = document["spec"]
    written = specs(rendered("monitored"))
    assert component == {key: written[key] for key in component}


def test_every_way_carries_the_same_configuration() -> None:
    base = load_config(KUSTOMIZE / "base" / "run.yaml")
    for documents in (rendered("job"), kustomized("overlays/cpu"), templated("job")):
        assert carried(documents) == base
    gpu = load_config(KUSTOMIZE / "components" / "gpu" / "run.yaml")
    assert carried(rendered("gpu")) == carried(kustomized("overlays/gpu")) == gpu


def carried(documents: list[Json]) -> RunConfig | None:
    """The run's configuration that the pods mount."""
    found = [document for document in documents if document["kind"] == "ConfigMap"]
    return parse_config(yaml.safe_load(found[0]["data"][Path(CONFIGURATION).name])) if found else None


# --- What the chart says to mistakes ----------------------------------------------------------------------------------


def test_helm_finds_nothing_to_say_about_the_chart() -> None:
    lint = helm("lint", {})
    assert lint["errors"] == []
    assert [message["error"] for message in lint["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"run": {"name": "Run 1"}}, "take lower-case letters, digits and dashes"),
        ({"runFile": "name: 1st"}, "take lower-case letters, digits and dashes"),
        ({"kind": "jobs"}, "value must be one of 'job', 'cluster', 'teacher', 'service'"),
        ({"groups": {"trainers": {"gpu": 1}}}, "additional properties 'gpu' not allowed"),
        ({"imgae": {}}, "additional properties 'imgae' not allowed"),
    ],
)
def test_the_chart_refuses_values_that_it_would_not_use(values: Json, part: str) -> None:
    assert part in helm("refused", values)


# --- What holds a run -------------------------------------------------------------------------------------------------


@each_source
def test_the_groups_hold_the_run_that_they_carry(source: tuple[str, str], tmp_path: Path) -> None:
    """The driver and every phase find a place by labels, CPUs, GPUs and memory, on the pods at their most."""
    documents = load(source)
    config, resource = carried(documents), ray_resource(documents)
    if config is None or resource["kind"] != "RayJob":
        return  # carries no run of its own
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(resource))
    plan = make_plan(config, read_shape(file), own_cluster=False, parameters=GPU_PARAMETERS // 1000)
    assert plan.problems == {}


def test_a_group_too_few_is_found(tmp_path: Path) -> None:
    resource = copy.deepcopy(ray_resource(rendered("job")))
    for name, group in groups(resource):
        if name == "samplers":
            group["maxReplicas"] = 2
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(resource))
    config = carried(rendered("job"))
    assert config is not None
    assert make_plan(config, read_shape(file), own_cluster=False).problems.keys() == {"SEED", "DISTILL"}


@each_source
def test_the_driver_lands_on_the_one_group_that_has_its_resource(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    having = []
    for name, group in groups(resource):
        text = group["rayStartParams"].get("resources")
        if text is not None:
            # The shell that starts Ray takes the quotes off.
            having.append((name, json.loads(shlex.split(text)[0])))
    if resource["kind"] == "RayService" and "orpo_ray.teacher" in resource["spec"]["serveConfigV2"]:
        assert having == []
        return
    assert having == [("driver", {"driver": 1})]
    if resource["kind"] == "RayJob":
        assert json.loads(resource["spec"]["entrypointResources"]) == {"driver": 1}


@each_source
def test_what_scales_tells_the_driver_so(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    for _, group in groups(resource):
        assert (variables(ray_container(group)).get("ORPO_RAY_AUTOSCALED") == "1") is autoscaled(resource)
    if not autoscaled(resource):
        assert all(
            group["replicas"] == group["minReplicas"] == group["maxReplicas"] for _, group in groups(resource)[1:]
        )


# --- What is named exists ---------------------------------------------------------------------------------------------


@each_source
def test_the_versions_are_the_locks(source: tuple[str, str]) -> None:
    version = cluster(ray_resource(load(source)))["rayVersion"]
    assert version == RAY_VERSION
    for accelerator in ("cpu", "cuda"):
        assert f"ray=={version}" in pins((ROOT / "requirements" / f"{accelerator}.lock").read_text())


@each_source
def test_the_image_is_one_that_is_built_here(source: tuple[str, str]) -> None:
    resource = ray_resource(load(source))
    images = {
        container["image"] for _, group in groups(resource) for container in group["template"]["spec"]["containers"]
    }
    if resource["kind"] == "RayJob":
        images |= {container["image"] for container in resource["spec"]["submitterPodTemplate"]["spec"]["containers"]}
    (image,) = images
    assert f"-t {image} " in (ROOT / "docker" / "README.md").read_text()
    # The CUDA image where a pod has GPUs; the chart leaves the choice to who sets its values.
    if source[0] != "helm":
        assert (image == "orpo-ray:cuda") is ("nvidia.com/gpu" in str(resource))


@each_source
def test_commands_are_ours_on_files_that_are_mounted(source: tuple[str, str]) -> None:
    documents = load(source)
    resource = ray_resource(documents)
    if resource["kind"] == "RayJob":
        program, command, file, *options = shlex.split(resource["spec"]["entrypoint"])
        assert program == "orpo-ray"
        assert set(options[::2]) <= {"--set"}
        assert command in typer.main.get_command(app).commands
    elif resource["kind"] == "RayService":
        (application,) = yaml.safe_load(resource["spec"]["serveConfigV2"])["applications"]
        module, name = application["import_path"].split(":")
        text = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text()
        assert re.search(rf"^def {name}\(args: dict\[str, (str|Any)\]\)", text, re.MULTILINE)
        if application["name"] == "service":
            check_service(application["args"], resource)
            return
        file = application["args"]["config"]
    else:
        return
    for _, group in groups(resource):
        mounts = {mount["mountPath"]: mount["name"] for mount in ray_container(group)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        configuration = volumes[mounts[str(Path(file).parent)]]["configMap"]["name"]
        if source[0] != "files":  # whose ConfigMap kustomize generates
            assert Path(file).name in by_name(documents)["ConfigMap", configuration]["data"]


def check_service(args: Json, resource: Json) -> None:
    """Its storage is mounted where it works, which stands always; drivers land there, and its token is told."""
    workers = {name: group for name, group in groups(resource) if "labels" in group}
    (place,) = [group for group in workers.values() if group["labels"].items() >= args["labels"].items()]
    container = ray_container(place)
    assert place["minReplicas"] >= 1
    assert any(Path(args["storage"]).is_relative_to(mount["mountPath"]) for mount in container["volumeMounts"])
    assert TOKEN_VARIABLE in [variable["name"] for variable in container["env"]]
    assert set(args) <= {"storage", "labels", "drivers"}
    for name in Placement(**args["drivers"]).resources:
        assert f'"{name}"' in place["rayStartParams"]["resources"]


@each_source
def test_every_pod_mounts_what_it_names_and_nothing_twice(source: tuple[str, str]) -> None:
    documents = load(source)
    resource = ray_resource(documents)
    claims = {name for kind, name in by_name(documents) if kind == "PersistentVolumeClaim"}
    for pod in pods(resource):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert len(volumes) == len(pod["spec"]["volumes"])
        for container in pod["spec"]["containers"]:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims or claim == "mine"
    for document in documents:
        if document["kind"] == "PersistentVolumeClaim":
            assert document["spec"]["accessModes"] == ["ReadWriteMany"]


@each_source
def test_the_run_writes_and_reads_where_the_pods_have_it(source: tuple[str, str]) -> None:
    documents = load(source)
    config = carried(documents)
    if config is None:
        return  # carries no run of its own
    mounts = {
        Path(mount["mountPath"]) for mount in ray_container(groups(ray_resource(documents))[0][1])["volumeMounts"]
    }
    assert any(Path(config.storage.path).is_relative_to(mount) for mount in mounts)
    assert f"\nWORKDIR {IN_IMAGE}\n" in DOCKERFILE
    for model in (config.student.model, config.teacher.model):
        if model is not None and Path(model).is_absolute():
            assert (ROOT / Path(model).relative_to(IN_IMAGE) / "config.json").is_file()


@each_source
def test_environment_variables_are_read_by_someone(source: tuple[str, str]) -> None:
    code = "".join(path.read_text() for path in (ROOT / "orpo_ray").rglob("*.py"))
    config = carried(load(source))
    key = config.teacher.api_key_env if config else None
    for _, group in groups(ray_resource(load(source))):
        for name in variables(ray_container(group)):
            # huggingface-hub reads the first two; the chart's user names the last.
            assert name in ("HF_HOME", "HF_TOKEN", key, "TEACHER_KEY") or f'"{name}"' in code


def test_the_api_key_is_taken_from_the_secret_under_its_own_name() -> None:
    for _, group in groups(ray_resource(rendered("api"))):
        (variable,) = [item for item in ray_container(group)["env"] if item["name"] == "TEACHER_KEY"]
        assert variable["valueFrom"]["secretKeyRef"] == {"name": "orpo-ray", "key": "TEACHER_KEY", "optional": True}


@each_source
def test_a_teacher_that_stands_alone_may_be_reached(source: tuple[str, str]) -> None:
    """It would not start without a key, unless it is said that the network policy is enough."""
    found = load(source)
    config = carried(found)
    if ray_resource(found)["kind"] == "RayService" and config is not None:
        assert served_key(config, own_clients=False) is None


@pytest.mark.parametrize(("name", "key"), [("", None), ("TEACHER_KEY", "k")])
def test_the_charts_own_teacher_asks_for_the_key_where_there_is_one(
    name: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k")
    made = helm("render", {"kind": "teacher", "apiKeyEnv": name})
    config = carried([yaml.safe_load(text) for file, text in made.items() if file.endswith("configuration.yaml")])
    assert config is not None
    assert config.teacher.serve.host == "0.0.0.0"
    assert served_key(config, own_clients=False) == key


@each_source
def test_labels_that_the_run_asks_for_are_labels_of_groups(source: tuple[str, str]) -> None:
    documents = load(source)
    config, resource = carried(documents), ray_resource(documents)
    if config is None:
        return  # carries no run of its own
    offered = [group["labels"] for _, group in groups(resource)[1:]]
    roles = ["teacher"] if resource["kind"] == "RayService" else ["teacher", "sampler", "evaluator", "trainer"]
    for role in roles:
        if role == "teacher" and config.teacher.backend != "serve":
            continue
        asked = config.resources.node_labels(role)  # type: ignore[arg-type]
        assert asked
        assert any(asked.items() <= labels.items() for labels in offered), role


@each_source
def test_ports_are_those_that_ray_and_kuberay_listen_on(source: tuple[str, str]) -> None:
    from ray._private import ray_constants

    assert ray_constants.DEFAULT_PORT == GCS
    assert ray_constants.DEFAULT_DASHBOARD_PORT == DASHBOARD
    assert ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT == AGENT
    resource = ray_resource(load(source))
    for name, group in groups(resource):
        ports = {port["name"]: port["containerPort"] for port in ray_container(group)["ports"]}
        wanted = {"metrics": METRICS} | ({"serve": SERVE} if resource["kind"] == "RayService" else {})
        if name == "head":
            wanted |= {"gcs-server": GCS, "dashboard": DASHBOARD, "client": 10001}
        assert ports == wanted
        for probe in ("readinessProbe", "livenessProbe"):
            asked = ray_container(group)[probe]["httpGet"]
            assert (asked["path"], asked["port"]) == ("/api/healthz", AGENT)


def test_the_probes_path_is_open_to_who_has_no_token() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    assert "/api/healthz" in PUBLIC_EXACT_PATHS


# --- Kustomizations and their pieces ----------------------------------------------------------------------------------


def test_every_overlay_and_component_is_tried() -> None:
    assert {path.parent.name for path in (KUSTOMIZE / "overlays").glob("*/kustomization.yaml")} == set(OVERLAYS)
    used = set()
    for overlay in OVERLAYS:
        text = (KUSTOMIZE / "overlays" / overlay / "kustomization.yaml").read_text()
        used |= set(re.findall(r"components/(\w+)", text))
    assert {path.name for path in (KUSTOMIZE / "components").iterdir()} == used | {"monitoring"}


def test_spot_takes_what_can_be_done_again_and_no_more() -> None:
    affinity = {
        name: group["template"]["spec"].get("affinity", {}).get("nodeAffinity", {})
        for name, group in groups(ray_resource(kustomized("overlays/spot")))
    }
    for name in ("teacher", "samplers"):
        assert affinity[name].keys() == {"preferredDuringSchedulingIgnoredDuringExecution"}
    for name in ("head", "driver", "trainers"):
        ((term,),) = [
            rule["nodeSelectorTerms"] for rule in [affinity[name]["requiredDuringSchedulingIgnoredDuringExecution"]]
        ]
        assert {expression["operator"] for expression in term["matchExpressions"]} == {"NotIn"}
        assert len(term["matchExpressions"]) == 4


def test_the_s3_overlay_mirrors_the_run_and_gives_the_keys_to_the_driver_alone() -> None:
    resource = ray_resource(kustomized("overlays/s3"))
    words = shlex.split(resource["spec"]["entrypoint"])
    config = load_config(KUSTOMIZE / "base" / "run.yaml", [words[words.index("--set") + 1]])
    assert config.storage.mirror == "s3://my-bucket/orpo-ray"
    given = {name: set(variables(ray_container(group))) & set(MIRROR_KEYS) for name, group in groups(resource)}
    assert given.pop("driver") == set(MIRROR_KEYS)
    assert set().union(*given.values()) == set()


def test_a_bucket_is_mounted_by_a_class_that_renames_and_appends() -> None:
    documents = by_name(kustomized("overlays/juicefs"))
    claims = [document for (kind, _), document in documents.items() if kind == "PersistentVolumeClaim"]
    assert {claim["spec"]["storageClassName"] for claim in claims} == {"orpo-ray-juicefs"}
    assert documents["StorageClass", "orpo-ray-juicefs"]["provisioner"] == "csi.juicefs.com"


def test_a_file_takes_the_place_of_the_demo_and_names_everything() -> None:
    config = carried(templated("file"))
    assert config is not None
    assert config.limits.failures == 7
    assert config == load_config(KUSTOMIZE / "base" / "run.yaml", ["limits.failures=7"])
    assert ray_resource(templated("teacher"))["metadata"]["name"] == "orpo-ray-teacher"


def test_gpus_and_further_keys_of_a_group_reach_its_pods() -> None:
    (trainers,) = [group for name, group in groups(ray_resource(templated("gpus"))) if name == "trainers"]
    assert ray_container(trainers)["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert [toleration["key"] for toleration in trainers["template"]["spec"]["tolerations"]] == [
        "spot",
        "nvidia.com/gpu",
    ]
    assert VALUES["gpus"]["apiKeyEnv"] in variables(ray_container(trainers))


def test_a_teacher_that_is_no_ours_has_no_pods() -> None:
    assert "teacher" not in [name for name, _ in groups(ray_resource(rendered("api")))]


def test_render_refuses_what_it_cannot_place() -> None:
    from orpo_ray.errors import InputError

    wide = load_config(
        KUSTOMIZE / "base" / "run.yaml",
        [
            "resources.trainer_strategy=STRICT_PACK",
            "resources.trainer_gpus=1",
            "resources.block_rows=8",
            "train.workers=4",
            "train.micro_batch=8",
        ],
    )
    assert render(wide, RenderOptions())
    with pytest.raises(InputError, match="STRICT_PACK wants"):
        render(wide, RenderOptions(gpus_a_pod=2))


def test_the_chart_says_the_version_of_the_package() -> None:
    from orpo_ray import __version__

    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
