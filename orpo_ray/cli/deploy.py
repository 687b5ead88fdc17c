"""`orpo-ray deploy render`."""

from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.deploy.kuberay import RenderOptions, dump_manifests, render


def render_manifests(config: RunConfig, options: RenderOptions, file: Path) -> None:
    """Print the manifests, with a line on where they come from.

    Raises:
        InputError: as `render`.
    """
    text = dump_manifests(render(config, options))
    print(f"# {options.kind} of {file.name}, by `orpo-ray deploy render`: KubeRay 1.7, ray.io/v1. See docs/cluster.md.")
    print(text, end="")
