"""`orpo-ray`: the commands and what each takes; those that speak to a cluster are in `cluster`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orpo_ray import __version__
from orpo_ray.cli.arguments import File, Fresh, Set
from orpo_ray.cli.cluster import cluster_app
from orpo_ray.cli.failures import exit_with_one_message

app = typer.Typer(
    name="orpo-ray",
    help="Distil a black-box teacher LLM into a small student by ORPO-Distill, on Ray Serve, Ray Data and Ray Train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help in boxes would cost more than everything else that `--help` does.
    rich_markup_mode=None,
)
config_app = typer.Typer(help="About the configuration file.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")


def main() -> None:
    """Entry point of the command `orpo-ray`."""
    # Read when ray is imported: a command started by `uv run` would otherwise make Ray rebuild uv's environment.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with exit_with_one_message():
        app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orpo-ray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(file: File, set_: Set = None, fresh: Fresh = False) -> None:
    """Run a distillation, or go on with it.

    The same command goes on from wherever the last start stopped, and finds what is finished.
    """
    from orpo_ray.cli.execute import execute, resuming
    from orpo_ray.config import load_config

    execute(load_config(file, set_ or ()), command=resuming("run", str(file), set_ or ()), fresh=fresh)


@app.command()
def demo(set_: Set = None, fresh: Fresh = False) -> None:
    """Run the demo that comes with the package.

    It distils a small teacher into a smaller student on this machine, in a few minutes, and writes to runs/demo.
    """
    from orpo_ray.cli.execute import execute, resuming
    from orpo_ray.cli.packaged import demo_config

    execute(demo_config(set_ or ()), command=resuming("demo", None, set_ or ()), fresh=fresh)


@app.command()
def validate(file: File, set_: Set = None) -> None:
    """Check a configuration.

    Prints it with every option resolved, or every mistake in it at once. Nothing is created.
    """
    from orpo_ray.config import dump_config, load_config

    typer.echo(dump_config(load_config(file, set_ or ())), nl=False)


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from orpo_ray.config import config_schema

    typer.echo(config_schema())


@app.command()
def teacher(
    file: File,
    set_: Set = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Ask for no key, even where others than this machine reach it.")
    ] = False,
) -> None:
    """Serve the teacher until Ctrl-C.

    Its API is OpenAI's, so the teacher backend `openai` works against it.
    """
    from orpo_ray.cli.execute import serve_until_stopped
    from orpo_ray.config import load_config

    unasked = ["teacher.serve.insecure=true"] if insecure else []
    serve_until_stopped(load_config(file, [*(set_ or ()), *unasked]))


@app.command()
def serve(
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where runs lie: their storage.path.")] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine reach 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8000,
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the token that the service asks for.")
    ] = "ORPO_RAY_SERVICE_TOKEN",
    insecure: Annotated[bool, typer.Option("--insecure", help="Ask for no token.")] = False,
    driver_cpus: Annotated[float, typer.Option(metavar="N", min=0, help="Logical CPUs that a run's driver takes.")] = 0,
    driver_resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N", help="A custom resource that a run's driver takes, as driver=1.", show_default=False
        ),
    ] = None,
    driver_label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="A label that a driver's node must have.", show_default=False),
    ] = None,
) -> None:
    """Serve runs to clients and browsers until Ctrl-C.

    A REST API and a page to submit, watch and stop runs; on the cluster at RAY_ADDRESS, or on one of its own.
    """
    from orpo_ray.cli.jobs import placement
    from orpo_ray.cli.service import serve_runs

    drivers = placement(driver_cpus, driver_resource or (), driver_label or ())
    serve_runs(storage, host, port, token_env, drivers, insecure=insecure)


@app.command("eval")
def evaluate(
    file: File,
    model: Annotated[Path, typer.Option(metavar="DIR", help="The model directory to evaluate.", show_default=False)],
    set_: Set = None,
) -> None:
    """Measure a model's accuracy.

    Prints how a model directory answers the held-out rows of the configuration, with a 95 % interval.
    """
    from orpo_ray.cli.execute import evaluate_directory
    from orpo_ray.config import load_config

    evaluate_directory(load_config(file, set_ or ()), model)


@app.command("lm-eval")
def lm_eval(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.", show_default=False)],
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where runs lie: their storage.path.")] = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the task is written; RUN/lm-eval where left out.", show_default=False),
    ] = None,
) -> None:
    """Let lm-evaluation-harness score a student.

    Writes the run's test questions as a task of the harness, marked by this package's verifier, and prints its command line.
    """
    from orpo_ray.cli.lm_eval import export_task

    export_task(run, storage, out)


@app.command()
def reproduce(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The experiment's YAML file.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="Override an option, as run.train.epochs=3; may be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every run, list them, and stop.")] = False,
    report_only: Annotated[bool, typer.Option("--report", help="Make no run; compare what is done.")] = False,
) -> None:
    """Make the paper's experiment, or one of your own.

    Recipes × tasks × students × seeds, and sweeps: each an ordinary run. Finished ones are skipped; the same command goes on.
    Writes a table with intervals and paired tests, and a page with plots, beside the paper's own figures.
    """
    from orpo_ray.cli.reproduce import reproduce as reproduce_

    reproduce_(file, set_ or (), dry_run=dry_run, report_only=report_only)


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.", show_default=False)],
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where runs lie: their storage.path.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Print what was trained: one JSON line for each row.")
    ] = False,
) -> None:
    """Show a run.

    Phases, accuracy by epoch, staleness, and where things lie; also of a run that works at this moment.
    """
    from orpo_ray.cli.show import show_run

    show_run(run, storage, as_json=as_json, ledger=ledger)


@app.command()
def traces(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.", show_default=False)],
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where runs lie: their storage.path.")] = Path("runs"),
    pairs: Annotated[bool, typer.Option("--pairs", help="Preference pairs, chosen beside rejected.")] = False,
    source: Annotated[
        str | None, typer.Option(metavar="WHOSE", help="teacher, initial or live; for pairs also none (SFT).")
    ] = None,
    verdict: Annotated[str | None, typer.Option(metavar="VERDICT", help="right, wrong or unparsed.")] = None,
    truncated: Annotated[
        bool | None, typer.Option("--truncated/--whole", help="Cut by max_tokens, or not.", show_default=False)
    ] = None,
    kept: Annotated[
        bool | None, typer.Option("--kept/--dropped", help="Counts for training, or not.", show_default=False)
    ] = None,
    version: Annotated[str | None, typer.Option(metavar="RANGE", help="Version of the student, as 3 or 2..5.")] = None,
    epoch: Annotated[str | None, typer.Option(metavar="RANGE", help="Epoch of a live trace or a pair.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="ID", help="Of this prompt.")] = None,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Prompt or trace has this text in it.")] = None,
    overlap: Annotated[str | None, typer.Option(metavar="RANGE", help="ROUGE-L overlap, as 0.5..0.8 or 0.9..")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="RANGE", help="Length in tokens, as 10..40.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON, one a line.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them to a .jsonl, .parquet or .csv file.")
    ] = None,
) -> None:
    """Look at the traces and pairs of a run.

    The overlap of a trace is the highest with another kept one of its prompt; that of a pair is between its two traces.
    """
    from orpo_ray.cli.traces import show_traces, trace_filters

    filters = trace_filters(
        {"source": source, "verdict": verdict, "truncated": truncated, "kept": kept, "prompt_id": prompt},
        {"version": version, "epoch": epoch, "overlap": overlap, "tokens": tokens},
        search,
    )
    show_traces(run, storage, filters, pairs=pairs, limit=limit, as_json=as_json, export=export)


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.", show_default=False)],
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where runs lie: their storage.path.")] = Path("runs"),
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, without the plots.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; - prints it. Beside the run where left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a run's report.

    One HTML file that needs no other: accuracy, curves, data card, cost, sample traces, environment, configuration.
    """
    from orpo_ray.cli.report import write_report

    write_report(run, storage, markdown=markdown, output=output)


@app.command()
def plan(
    file: File,
    set_: Set = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The cluster: a list of `nodes:`, or KubeRay's manifests; this machine where left out.",
            show_default=False,
        ),
    ] = None,
    student_parameters: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="As 135M or 1.1B, where the student's files are not here.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what a run will need, without a cluster.

    Phases, actors and where they may go, tokens and disk to expect, and what does not fit (exit code 2).
    """
    from orpo_ray.cli.plan import show_plan
    from orpo_ray.config import load_config

    show_plan(load_config(file, set_ or ()), cluster, size=student_parameters, as_json=as_json)


@app.command()
def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Also what this configuration asks for.", show_default=False),
    ] = None,
    set_: Set = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also the Ray cluster that runs are submitted to.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="Also the cluster with this dashboard.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what on this machine is not fit for a run, and what helps.

    Versions, compiler, memory, GPUs, ports, token, storage, teacher. Exit code 1 where something must be mended.
    """
    from orpo_ray.cli.doctor import show_examination
    from orpo_ray.config import load_config

    config = None if file is None else load_config(file, set_ or ())
    show_examination(config, cluster=cluster or address is not None, address=address, as_json=as_json)


# Without a name: its commands stand beside the others.
app.add_typer(cluster_app)
