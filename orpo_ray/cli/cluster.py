"""The commands that speak to a cluster, or write what makes one."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orpo_ray.cli.arguments import Address, File, Fresh, Set, Submitted

cluster_app = typer.Typer()
deploy_app = typer.Typer(help="A cluster for a run.", no_args_is_help=True, rich_markup_mode=None)
cluster_app.add_typer(deploy_app, name="deploy")


@cluster_app.command()
def submit(
    file: File,
    set_: Set = None,
    fresh: Fresh = False,
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Print what it prints until it is over; its exit code is then this one's.")
    ] = False,
    working_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Send this directory along, for a task of your own.", show_default=False),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Set a variable there; never a secret.", show_default=False),
    ] = None,
    driver_cpus: Annotated[float, typer.Option(metavar="N", min=0, help="Logical CPUs that the driver takes.")] = 0,
    driver_resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N", help="A custom resource that the driver takes, as driver=1.", show_default=False
        ),
    ] = None,
    driver_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="A label that the driver's node must have.", show_default=False),
    ] = None,
) -> None:
    """Submit a run to a Ray cluster.

    Submitted again, it goes on from wherever the last one stopped. The driver works on the head, unless it asks for
    CPUs, resources or labels.
    """
    from orpo_ray.cli.jobs import placement, submit_run, variables
    from orpo_ray.config import load_config

    where = placement(driver_cpus, driver_resource or (), driver_label or ())
    config = load_config(file, set_ or ())
    submit_run(config, address, fresh=fresh, wait=wait, driver=where, working_dir=working_dir, env=variables(env or ()))


@cluster_app.command()
def status(
    run: Submitted,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say where a submitted run stands."""
    from orpo_ray.cli.jobs import show_status

    show_status(run, address, as_json=as_json)


@cluster_app.command()
def logs(
    run: Submitted,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is over.")] = False,
) -> None:
    """Print what a submitted run has printed."""
    from orpo_ray.cli.jobs import print_logs

    print_logs(run, address, follow=follow)


@cluster_app.command()
def stop(run: Submitted, address: Address = None) -> None:
    """Stop a submitted run.

    What is finished is kept.
    """
    from orpo_ray.cli.jobs import stop_run

    stop_run(run, address)


@cluster_app.command("list")
def list_(
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON, one a line.")] = False,
) -> None:
    """List the runs that a cluster remembers."""
    from orpo_ray.cli.jobs import list_runs

    list_runs(address, as_json=as_json)


@cluster_app.command(hidden=True)
def read(
    run: str,
    what: str,
    storage: Annotated[Path, typer.Option(metavar="DIR")],
    limit: Annotated[int | None, typer.Option(min=0)] = None,
) -> None:
    """Print lines of a run's files, for a client that does not see them."""
    from orpo_ray.cli.jobs import print_lines

    print_lines(run, what, storage, limit)


class Target(StrEnum):
    """What manifests are for."""

    KUBERAY = "kuberay"


class Kind(StrEnum):
    """Which of KubeRay's resources is written."""

    JOB = "job"
    CLUSTER = "cluster"
    TEACHER = "teacher"
    SERVICE = "service"


@deploy_app.callback()
def _deploy() -> None:
    pass


@deploy_app.command("render")
def render(
    file: File,
    set_: Set = None,
    to: Annotated[Target, typer.Option(help="What they are for.")] = Target.KUBERAY,
    kind: Annotated[
        Kind,
        typer.Option(
            help="A RayJob for the run, a RayCluster to submit to, a RayService of the teacher or of `orpo-ray serve`."
        ),
    ] = Kind.JOB,
    image: Annotated[
        str | None,
        typer.Option(help="The image of every pod; orpo-ray:cpu or orpo-ray:cuda where left out.", show_default=False),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace; kubectl's own where left out.", show_default=False)
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Kueue's LocalQueue that admits the job; fixes the groups.", show_default=False)
    ] = None,
    autoscaling: Annotated[bool, typer.Option(help="Let pods come when they are asked for, and go.")] = True,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="With a PodMonitor for Prometheus.")] = False,
    student_parameters: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="As 135M or 1.1B, where the student's files are not here.", show_default=False
        ),
    ] = None,
    gpus_a_pod: Annotated[int, typer.Option(metavar="N", min=1, help="GPUs of the cluster's nodes.")] = 8,
) -> None:
    """Print manifests for a run.

    Groups of pods for teacher, samplers and trainers, sized from the configuration's `resources`, and what belongs
    around them: configuration, volumes, network policy, disruption budgets.
    """
    from orpo_ray.cli.deploy import render_manifests
    from orpo_ray.cli.plan import count
    from orpo_ray.config import load_config
    from orpo_ray.deploy.kuberay import RenderOptions

    size = count(student_parameters) if student_parameters else 0
    options = RenderOptions(kind.value, image, namespace, queue, autoscaling, monitoring, size, gpus_a_pod)
    render_manifests(load_config(file, set_ or ()), options, file)
