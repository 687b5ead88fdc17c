"""README.md of the exported student: where it comes from, and how good it is."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from orpo_ray import __version__
from orpo_ray.config import RunConfig
from orpo_ray.evaluation.accuracy import Accuracy
from orpo_ray.report.wording import HUB_NAME, model_name, parameters, percent, teacher_accuracy

# Where a run worked, and on how many machines, is nobody's concern who reads the card.
_LEFT_OUT = {"storage", "resources", "limits", "tracking"}


def model_card(
    config: RunConfig, results: Mapping[str, Mapping[str, Any]], epoch: int, *, converted: bool = False
) -> str:
    """The card as Markdown with the Hugging Face hub's front matter.

    Args:
        results: of the phases up to EVALUATE, by name.
        epoch: whose weights these are.
        converted: the student was converted to the Llama layout.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string((files("orpo_ray.report") / "model_card.jinja").read_text(encoding="utf-8"))
    options = config.model_dump(mode="json", by_alias=True, exclude=_LEFT_OUT)
    student = config.student.model
    on_hub = HUB_NAME.fullmatch(student) and not Path(student).is_dir()
    size = results.get("PREPARE", {}).get("student", {}).get("parameters")
    return template.render(
        version=__version__,
        config=config,
        epoch=epoch,
        adapter=config.train.lora is not None and config.export.lora == "adapter",
        converted=converted,
        base_model=student if on_hub else None,
        student=model_name(student),
        size=parameters(size) if size else None,
        teacher=model_name(config.teacher.model or config.teacher.path or config.teacher.backend),
        max_tokens=config.eval_max_tokens,
        accuracy=list(_accuracy(results)),
        training=list(_training(config, results.get("DISTILL", {}))),
        data=list(_data(results)),
        yaml=yaml.safe_dump(options, sort_keys=False, allow_unicode=True),
    )


def _accuracy(results: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    evaluations = results.get("EVALUATE", {}).get("evaluations", [])
    for evaluation in sorted(evaluations, key=lambda item: (item["split"], item["epoch"])):
        accuracy = Accuracy(evaluation["correct"], evaluation["total"])
        who = f"after epoch {evaluation['epoch']}" if evaluation["epoch"] else "before training"
        right = f"{accuracy.correct}/{accuracy.total}"
        yield {"split": evaluation["split"], "who": who, "right": right, "accuracy": str(accuracy)}
    teacher = teacher_accuracy(results.get("TEACH", {}))
    if teacher is not None:
        accuracy, measured = teacher
        how, split = measured.split(", ")
        right = f"{accuracy.correct}/{accuracy.total}"
        yield {"split": split, "who": f"the teacher ({how})", "right": right, "accuracy": str(accuracy)}


def _training(config: RunConfig, distill: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    train = config.train
    yield "λ of the odds-ratio term", f"{train.lam:g}"
    yield "learning rate", f"{train.learning_rate:g}, {train.schedule}, warm-up {percent(train.warmup_ratio)}"
    yield "global batch", f"{train.global_batch} prompts with up to {train.pairs_per_prompt} pairs each"
    if train.lora is not None:
        targets = train.lora.target_modules
        where = "all linear layers" if targets == "all-linear" else ", ".join(targets)
        yield "trained", f"LoRA adapters of rank {train.lora.rank}, alpha {train.lora.alpha:g}, on {where}"
    if not distill:
        return
    yield "optimizer steps", f"{distill['steps']:,}"
    yield "preference pairs", f"{distill['pairs']:,}"
    origins = ", ".join(f"{count:,} {origin}" for origin, count in distill["by_policy"].items())
    yield "prompts by origin of their negatives", origins
    lags = ", ".join(
        f"{lag}: {rows:,}" for lag, rows in sorted(distill["staleness"].items(), key=lambda item: int(item[0]))
    )
    yield "staleness of live negatives, in versions", lags
    if distill.get("loss_first") is not None:
        yield "loss, first and last step", f"{distill['loss_first']:.4f}, {distill['loss_last']:.4f}"


def _data(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for split, rows in results.get("PREPARE", {}).get("rows", {}).items():
        yield f"{split} rows", f"{rows['prompts']:,}, fingerprint `{rows['fingerprint']}`"
    teach, seed = results.get("TEACH", {}), results.get("SEED", {})
    if "key" in teach:
        kept = f"{teach['kept']:,} kept of {teach['traces']:,}, " if "kept" in teach else ""
        yield "teacher traces", f"{kept}fingerprint `{teach['key']}`"
    if "negatives" in seed:
        yield "wrong traces of the initial student", f"{seed['negatives']:,} kept"
