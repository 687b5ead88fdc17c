"""Numbers, and what a phase did, in words."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orpo_ray.evaluation.accuracy import Accuracy

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def duration(seconds: float) -> str:
    """As `8.3 s`, `2 min 05 s` or `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def percent(share: float) -> str:
    """As `47.4 %`."""
    return f"{100 * share:.1f} %"


def parameters(count: int) -> str:
    """A model's size as `363 k`, `134.5 M` or `1.1 B`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {unit}"
    return str(count)


def model_name(name: str) -> str:
    """A model's name without the directories of the machine that it was trained on; a hub name stays whole."""
    return name if HUB_NAME.fullmatch(name) else name.rstrip("/").rpartition("/")[2]


def from_here(path: Path) -> str:
    """A path as seen from the working directory, where it lies below that."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # a job's working directory may be gone before the job is
        return str(path)


def teacher_accuracy(teach: Mapping[str, Any]) -> tuple[Accuracy, str] | None:
    """The teacher's accuracy and what it was measured on: greedy on the test split, else over its sampled traces."""
    if teach.get("test"):
        return Accuracy(teach["test"]["correct"], teach["test"]["total"]), "greedy, test"
    if teach.get("traces"):
        return Accuracy(teach["right"], teach["traces"]), "sampled, train"
    return None


def several_answers_sentence(evaluation: Mapping[str, Any]) -> str | None:
    """pass@k and majority@k as `after epoch 3: pass@1 40.1 %, pass@8 71.0 %, majority@8 48.2 %`; None where not sampled."""
    found = [
        f"{name} {percent(value)}" for name, value in evaluation.items() if name.startswith(("pass@", "majority@"))
    ]
    if not found:
        return None
    when = f"after epoch {evaluation['epoch']}" if evaluation["epoch"] else "before"
    return f"{when}: {', '.join(found)}"


def places_sentence(fields: Mapping[str, Any]) -> str:
    """How many workers and samplers an attempt has, of how many it was to have."""
    parts = [
        f"{fields[name]} of {fields[f'all_{name}']} {words}"
        for name, words in (("workers", "train workers"), ("samplers", "samplers"))
    ]
    fewer = [name for name in ("workers", "samplers") if fields[name] < fields[f"all_{name}"]]
    rest = f": fewer {' and '.join(fewer)}, until there is a place for more" if fewer else " again"
    return f"attempt {fields['attempt']} has {' and '.join(parts)}{rest}"


def phase_sentence(phase: str, result: Mapping[str, Any]) -> str:
    """What a finished phase did, in one line; empty where its result does not say."""
    if "skipped" in result:
        return f"nothing to do: {result['skipped']}"
    try:
        return _SENTENCES[phase](result)
    except (KeyError, IndexError, TypeError):
        return ""


def _prepare(result: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{split['prompts']:,} {name}" for name, split in result["rows"].items())
    size = result["student"]["parameters"]
    return f"{rows} prompts" + (f"; a student of {parameters(size)} parameters" if size else "")


def _teach(result: Mapping[str, Any]) -> str:
    share = percent(result["right"] / result["traces"])
    return f"{result['traces']:,} traces of {result['prompts']:,} prompts, {share} right, {result['kept']:,} kept{_by_teacher(result)}"


def _by_teacher(result: Mapping[str, Any]) -> str:
    """Each teacher's share of the positives, where there are several."""
    shares = [f"{percent(item['share_of_positives'])} of {item['teacher']}" for item in result.get("teachers", [])]
    return f" ({', '.join(shares)})" if shares else ""


def _seed(result: Mapping[str, Any]) -> str:
    if result.get("source") == "none":
        return f"{result['prompts']:,} prompts with their right traces; no negatives are used"
    whose = " of the teacher" if result.get("source") == "teacher" else ""
    text = f"{result['negatives']:,} wrong traces{whose} kept of {result['prompts']:,} prompts"
    never = result.get("never_wrong", 0)
    return text + (f"; {never:,} prompts without one" if never else "")


def _distill(result: Mapping[str, Any]) -> str:
    text = f"{result['pairs']:,} pairs in {result['steps']:,} steps, {result['pairs_per_s']:.1f} pairs/s"
    if result.get("loss_first") is not None:
        text += f", loss {result['loss_first']:.3f} → {result['loss_last']:.3f}"
    return text


def _evaluate(result: Mapping[str, Any]) -> str:
    test = sorted((e for e in result["evaluations"] if e["split"] == "test"), key=lambda e: e["epoch"])
    first, last = (Accuracy(e["correct"], e["total"]).rate for e in (test[0], test[-1]))
    return f"test accuracy {percent(first)}" + (f" → {percent(last)}" if len(test) > 1 else "")


def _export(result: Mapping[str, Any]) -> str:
    return f"{from_here(Path(result['path']))} (the {result['select']} epoch, {result['epoch']})"


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "PREPARE": _prepare,
    "TEACH": _teach,
    "SEED": _seed,
    "DISTILL": _distill,
    "EVALUATE": _evaluate,
    "EXPORT": _export,
}
