"""The data card of a run: what it learns from, in numbers. Counts are over everything; what reads texts (diversity,
overlap, verdicts on live traces) is over every n-th prompt, so that its cost does not grow with the run.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml

from orpo_ray.pairs import PairGroup
from orpo_ray.report.browse import RunTraces
from orpo_ray.report.wording import model_name
from orpo_ray.tasks.provenance import provenance
from orpo_ray.traces.diversity import rouge_l

READ_PROMPTS = 2000
"""About how many prompts, of each source and epoch, have their texts read."""


def data_card(run: RunTraces, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The card as plain data.

    Args:
        results: of the phases that are done, by name.

    Raises:
        InputError: the traces of a phase that is done are gone.
    """
    return {
        "name": run.config.name,
        "task": _task(run, results),
        "models": {
            "teacher": _model(run.config.teacher.model or run.config.teacher.path or run.config.teacher.backend),
            "student": _model(run.config.student.model),
        },
        "teachers": [
            {**one, "teacher": model_name(one["teacher"]), "path": None}
            for one in results.get("TEACH", {}).get("teachers", [])
        ],
        "traces": {source: card for source in ("teacher", "initial") if (card := _stored(run, source)) is not None},
        "epochs": list(_epochs(run)),
        "read": {"prompts": READ_PROMPTS},
    }


class Lengths:
    """Lengths of traces; it holds one counter for each length that occurs."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, lengths: Iterable[int]) -> None:
        self._counts.update(lengths)

    def to_json(self) -> dict[str, float] | None:
        """Mean, median, 95th percentile and maximum in tokens; None where there is no trace."""
        total = self._counts.total()
        if not total:
            return None
        mean = sum(length * count for length, count in self._counts.items()) / total
        return {
            "mean": round(mean, 2),
            "median": self._quantile(0.5),
            "p95": self._quantile(0.95),
            "max": max(self._counts),
        }

    def _quantile(self, share: float) -> int:
        """The smallest length that at least this share of the traces does not exceed."""
        reached, needed = 0, share * self._counts.total()
        for length in sorted(self._counts):
            reached += self._counts[length]
            if reached >= needed:
                return length
        raise AssertionError("a share is at most 1")


@dataclass
class Mean:
    """A mean that is added up; None where nothing was added."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float | None:
        return round(self.total / self.count, 6) if self.count else None


def mean_pairwise_overlap(texts: Sequence[str]) -> float | None:
    """Mean ROUGE-L F over all pairs of a prompt's texts: 1 where they are all alike; None for fewer than two."""
    scores = [rouge_l(a, b) for a, b in combinations(texts, 2)]
    return sum(scores) / len(scores) if scores else None


def _task(run: RunTraces, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known = provenance(run.config.task.name)
    given = [path for path in (run.config.task.path, run.config.task.test_path) if path]
    return {
        "name": run.config.task.name,
        "rows": dict(results.get("PREPARE", {}).get("rows", {})),
        "files": [Path(path).name if Path(path).exists() else path for path in given],
        "origin": known.origin if known else None,
        "licence": known.licence if known else None,
    }


def _model(name: str) -> dict[str, Any]:
    return {"name": model_name(name), "licence": _licence(Path(name))}


def _licence(model: Path) -> str | None:
    """What the front matter of a model directory's README.md says, as the hub reads it."""
    try:
        text = (model / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except (OSError, IndexError, ValueError, yaml.YAMLError):
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return str(licence) if licence else None


def _stored(run: RunTraces, source: Literal["teacher", "initial"]) -> dict[str, Any] | None:
    store = run.store(source)
    if store is None:
        return None
    counts = store.counts
    every = max(1, counts.prompts // READ_PROMPTS)
    lengths, kept, overlap = Lengths(), Lengths(), Mean()
    for place, (_, traces) in enumerate(store.prompts()):
        sizes = run.lengths(traces)
        lengths.add(sizes)
        kept.add(size for size, trace in zip(sizes, traces, strict=True) if trace.kept)
        if place % every == 0:
            overlap.add(mean_pairwise_overlap([trace.text for trace in traces if trace.kept]))
    total = max(1, counts.traces)
    return {
        **counts.to_json(),
        "shares": {
            name: round(getattr(counts, name) / total, 6)
            for name in ("right", "wrong", "unparsed", "truncated", "kept", "near_duplicates")
        },
        "tokens": lengths.to_json(),
        "kept_tokens": kept.to_json(),
        "kept_overlap": overlap.value,
        "key": store.manifest["key"],
        "sampling": _sampling(store.manifest.get("made_from", {})),
    }


def _sampling(made_from: Mapping[str, Any]) -> dict[str, Any]:
    sampling = made_from.get("sampling", {})
    return {**sampling, "seed": made_from["seed"]} if "seed" in made_from else dict(sampling)


@dataclass
class _Epoch:
    """Sums over the groups of one epoch."""

    prompts: int = 0
    pairs: int = 0
    origins: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    sampled: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    chosen: Lengths = field(default_factory=Lengths)
    rejected: Lengths = field(default_factory=Lengths)
    live_overlap: Mean = field(default_factory=Mean)
    pair_overlap: Mean = field(default_factory=Mean)


def _epochs(run: RunTraces) -> Iterator[dict[str, Any]]:
    """What was trained on, epoch by epoch."""
    store = run.store("teacher")
    every = max(1, (store.counts.prompts if store else 0) // READ_PROMPTS)
    trained, epochs = run.steps_trained(), defaultdict[int, _Epoch](_Epoch)
    for step, group in run.groups():
        if step <= trained:
            _count(run, epochs[group.epoch], group, every)
    for number in sorted(epochs):
        epoch = epochs[number]
        yield {
            "epoch": number,
            "prompts": epoch.prompts,
            "pairs": epoch.pairs,
            "by_origin": dict(epoch.origins),
            "by_version": {str(version): count for version, count in sorted(epoch.versions.items())},
            "live": dict(epoch.sampled),
            "rejected_verdicts": dict(epoch.verdicts),
            "chosen_tokens": epoch.chosen.to_json(),
            "rejected_tokens": epoch.rejected.to_json(),
            "live_overlap": epoch.live_overlap.value,
            "pair_overlap": epoch.pair_overlap.value,
        }


def _count(run: RunTraces, epoch: _Epoch, group: PairGroup, every: int) -> None:
    read = epoch.prompts % every == 0
    epoch.prompts += 1
    epoch.pairs += group.pairs
    epoch.origins[group.policy] += 1
    epoch.chosen.add(map(len, group.chosen))
    epoch.rejected.add(map(len, group.rejected))
    if group.policy == "live":
        epoch.versions[group.version] += 1
    if group.sampled:
        epoch.sampled.update(
            {"traces": group.sampled, "tokens": group.sampled_tokens, "wrong": group.wrong, "distinct": group.distinct}
        )
    if not read:
        return
    chosen, rejected = ([run.decode(tokens) for tokens in side] for side in (group.chosen, group.rejected))
    for tokens, text in zip(group.rejected, rejected, strict=True):
        epoch.verdicts["truncated" if run.is_cut(tokens) else run.verdict(group.prompt_id, text) or "not known"] += 1
    if group.policy == "live":
        epoch.live_overlap.add(mean_pairwise_overlap(rejected))
    for right, wrong in zip(group.pair_chosen, group.pair_rejected, strict=True):
        if wrong >= 0:
            epoch.pair_overlap.add(rouge_l(chosen[right], rejected[wrong]))
