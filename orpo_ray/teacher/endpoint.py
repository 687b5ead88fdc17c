"""The teacher for `serve deploy` and KubeRay's RayService: Serve builds it from the run's own configuration."""

from typing import TYPE_CHECKING

from orpo_ray.config import load_config
from orpo_ray.teacher.app import teacher_app
from orpo_ray.teacher.key import served_key

if TYPE_CHECKING:
    from ray.serve.deployment import Application


def app(args: dict[str, str]) -> "Application":
    """The application of `args["config"]`, the path of a run's YAML configuration.

    In Serve's own configuration: `import_path: orpo_ray.teacher.endpoint:app` and `args: {config: PATH}`.
    """
    config = load_config(args["config"])
    return teacher_app(config, served_key(config, own_clients=False))
