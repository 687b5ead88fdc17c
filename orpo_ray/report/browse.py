"""The traces and the preference pairs of a run, one after another: what `orpo-ray traces` shows.

Both are read lazily, block by block, so memory does not grow with the run. What the files do not hold is made again: the
text of a live trace by the student's tokenizer, its verdict by the task's verifier.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from orpo_ray.config import RunConfig, parse_config
from orpo_ray.config.layout import RunLayout
from orpo_ray.errors import InputError
from orpo_ray.pairs import PairGroup, from_table
from orpo_ray.pairs.group import Origin
from orpo_ray.sampling.journal import Journal
from orpo_ray.tasks import Row, Task
from orpo_ray.tasks.split_of import split_of
from orpo_ray.traces.diversity import rouge_l
from orpo_ray.traces.record import Trace
from orpo_ray.traces.store import MANIFEST, TraceStore

Source = Literal["teacher", "initial", "live"]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True)
class TraceRow:
    """One trace, for a person.

    Attributes:
        source: the teacher, the initial student, or the student while it was trained. Of the live student only the
            traces that became a pair's rejected one are on the storage.
        sample: which of its prompt's traces it is, from 0.
        verdict: right, wrong or unparsed; None for a live trace whose task cannot be loaded here.
        kept: it counts: a positive of the teacher, or a negative.
        epoch, step: of the pair that it is part of, from 1; None for stored traces, which belong to no epoch.
        tokens: length in tokens of the student.
        overlap: highest ROUGE-L F with another kept trace of its prompt and source; None where there is no other.
    """

    source: Source
    prompt_id: str
    sample: int
    verdict: str | None
    truncated: bool
    kept: bool
    near_duplicate: bool
    version: int
    epoch: int | None
    step: int | None
    tokens: int
    overlap: float | None
    model: str | None
    seed: int | None
    temperature: float | None
    prompt: str | None
    text: str


@dataclass(frozen=True)
class PairRow:
    """One preference pair, as it was trained on or is about to be.

    Attributes:
        row: place of its prompt in the stream; `pair` counts the pairs of one row from 0.
        step: the optimizer step that trains it, from 1; `trained` says whether that step is done.
        source: whose trace the rejected one is, the teacher's own where negatives.source says so; `none` for a pair
            without one (SFT).
        version: the student version that sampled the rejected trace; 0 for the initial student.
        verdict, truncated: of the rejected trace.
        overlap: ROUGE-L F of chosen and rejected.
        rejected_logp: mean log-probability of a token (nats) when it was sampled; None where it is not known.
    """

    row: int
    pair: int
    step: int
    epoch: int
    trained: bool
    prompt_id: str
    source: Origin
    version: int
    verdict: str | None
    truncated: bool | None
    overlap: float | None
    chosen_tokens: int
    rejected_tokens: int | None
    rejected_logp: float | None
    prompt: str
    chosen: str
    rejected: str | None


def phase_results(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Results of the phases that are done, by name, from a run's record as JSON."""
    return {name: phase["result"] for name, phase in record["phases"].items() if phase["state"] == "done"}


def trace_store(
    layout: RunLayout, results: Mapping[str, Mapping[str, Any]], source: Literal["teacher", "initial"]
) -> TraceStore | None:
    """The finished store of a source; None while its phase is not done, and where the run needs no such traces.

    Raises:
        InputError: it is gone.
    """
    path = results.get({"teacher": "TEACH", "initial": "SEED"}[source], {}).get("path")
    if path is None:
        return None
    recorded = Path(path)
    # The storage may have been moved since, or be mounted elsewhere.
    directory = layout.storage / "traces" / recorded.name
    manifest = (directory if directory.is_dir() else recorded) / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{recorded}: the {source} traces of this run are gone; run it again to make them anew")
    return TraceStore(manifest.parent, json.loads(manifest.read_text(encoding="utf-8")))


class RunTraces:
    """What lies below one run's directory, opened as it is asked for.

    Args:
        results: of the phases that are done, by name.
    """

    def __init__(self, layout: RunLayout, config: RunConfig, results: Mapping[str, Mapping[str, Any]]) -> None:
        self._layout, self.config, self._results = layout, config, results

    @classmethod
    def open(cls, layout: RunLayout) -> "RunTraces":
        """From the run's own record."""
        record = json.loads(layout.state.read_text(encoding="utf-8"))
        return cls(layout, parse_config(record["config"], source=str(layout.state)), phase_results(record))

    def traces(self, sources: Sequence[Source] = SOURCES) -> Iterator[TraceRow]:
        """Traces of the teacher, of the initial student, then those live ones that pairs are made of."""
        for source in sources:
            if source == "live":
                yield from self._live()
            elif (store := self.store(source)) is not None:
                for _, traces in store.prompts():
                    yield from self._stored(source, traces)

    def pairs(self) -> Iterator[PairRow]:
        """Every sampled pair in the order of the stream; rows that only fill up a batch are left out."""
        trained = self.steps_trained()
        for step, group in self.groups():
            yield from self._pairs_of(step, group, trained)

    def store(self, source: Literal["teacher", "initial"]) -> TraceStore | None:
        """As `trace_store`."""
        return trace_store(self._layout, self._results, source)

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer.

        Raises:
            InputError: neither the run nor student.model has one any more.
        """
        from transformers import AutoTokenizer

        places = [self._layout.export, *sorted(self._layout.weights.glob("v*"), reverse=True)]
        there = [str(place) for place in places if (place / "tokenizer_config.json").is_file()]
        try:
            return AutoTokenizer.from_pretrained(
                [*there, self.config.student.model][0], trust_remote_code=self.config.student.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"student.model: {self.config.student.model} gives no tokenizer here to read the run's tokens with: "
                f"{str(error).splitlines()[0]}"
            ) from None

    @cached_property
    def task(self) -> Task | None:
        """The training rows; None where they cannot be loaded here, so prompts and live verdicts are not known."""
        try:
            task = split_of(self.config.task, "train", self.config.seed)
            task.rows()
        except InputError:
            return None
        return task

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.id: row for row in self.task.rows()} if self.task is not None else {}

    def is_cut(self, tokens: Sequence[int]) -> bool:
        """Whether a trace has no end token, as one has that the token limit cut."""
        return tokens[-1] not in self._end_tokens

    @cached_property
    def _end_tokens(self) -> set[int]:
        from transformers import GenerationConfig

        ends = {self.tokenizer.eos_token_id}
        try:
            more = GenerationConfig.from_pretrained(self.tokenizer.name_or_path).eos_token_id
        except (OSError, ValueError):
            return ends
        return ends | (set(more) if isinstance(more, list) else {more})

    def groups(self) -> Iterator[tuple[int, PairGroup]]:
        """Every sampled pair group, with the optimizer step (from 1) that trains it."""
        for step, table in Journal(self._layout.journal, self.config.train.global_batch).blocks():
            for group in from_table(table):
                if group.real:
                    yield step, group

    def _stored(self, source: Source, traces: Sequence[Trace]) -> Iterator[TraceRow]:
        overlaps = _overlaps([trace.text for trace in traces], [trace.kept for trace in traces])
        lengths = self.lengths(traces)
        for trace, overlap, tokens in zip(traces, overlaps, lengths, strict=True):
            yield TraceRow(
                source=source,
                prompt_id=trace.prompt_id,
                sample=trace.sample,
                verdict=trace.verdict,
                truncated=trace.truncated,
                kept=trace.kept,
                near_duplicate=trace.near_duplicate,
                version=trace.version,
                epoch=None,
                step=None,
                tokens=tokens,
                overlap=overlap,
                model=trace.model,
                seed=trace.seed,
                temperature=trace.temperature,
                prompt=self._prompt(trace.prompt_id),
                text=trace.text,
            )

    def _live(self) -> Iterator[TraceRow]:
        for step, group in self.groups():
            if group.policy != "live":
                continue
            texts = [self.decode(tokens) for tokens in group.rejected]
            overlaps = _overlaps(texts, [True] * len(texts))
            for place, (tokens, text, overlap) in enumerate(zip(group.rejected, texts, overlaps, strict=True)):
                yield TraceRow(
                    source="live",
                    prompt_id=group.prompt_id,
                    sample=place,
                    verdict=self.verdict(group.prompt_id, text),
                    truncated=self.is_cut(tokens),
                    kept=True,
                    near_duplicate=False,
                    version=group.version,
                    epoch=group.epoch,
                    step=step,
                    tokens=len(tokens),
                    overlap=overlap,
                    model=None,
                    seed=None,
                    temperature=self.config.sampling.temperature,
                    prompt=self._prompt(group.prompt_id),
                    text=text,
                )

    def _pairs_of(self, step: int, group: PairGroup, trained: int) -> Iterator[PairRow]:
        prompt = self._prompt(group.prompt_id) or self.decode(group.prompt)
        chosen = [self.decode(tokens) for tokens in group.chosen]
        rejected = [self.decode(tokens) for tokens in group.rejected]
        verdicts = [self.verdict(group.prompt_id, text) for text in rejected]
        for pair, (right, wrong) in enumerate(zip(group.pair_chosen, group.pair_rejected, strict=True)):
            has = wrong >= 0
            logp = group.rejected_logp[wrong] if has else None
            yield PairRow(
                row=group.index,
                pair=pair,
                step=step,
                epoch=group.epoch,
                trained=step <= trained,
                prompt_id=group.prompt_id,
                source=group.policy,
                version=group.version,
                verdict=verdicts[wrong] if has else None,
                truncated=self.is_cut(group.rejected[wrong]) if has else None,
                overlap=round(rouge_l(chosen[right], rejected[wrong]), 6) if has else None,
                chosen_tokens=len(group.chosen[right]),
                rejected_tokens=len(group.rejected[wrong]) if has else None,
                rejected_logp=logp if logp is not None and logp == logp else None,
                prompt=prompt,
                chosen=chosen[right],
                rejected=rejected[wrong] if has else None,
            )

    def lengths(self, traces: Sequence[Trace]) -> list[int]:
        """Tokens with the end token, where there is one."""
        if all(trace.token_ids is not None for trace in traces):
            return [len(trace.token_ids or ()) for trace in traces]
        encoded = self.tokenizer([trace.text for trace in traces], add_special_tokens=False).input_ids
        return [len(ids) + (not trace.truncated) for ids, trace in zip(encoded, traces, strict=True)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids of the student, without special tokens."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _prompt(self, prompt_id: str) -> str | None:
        row = self._rows.get(prompt_id)
        return self.task.prompt(row) if self.task is not None and row is not None else None

    def verdict(self, prompt_id: str, text: str) -> str | None:
        """The task's verdict on a trace; None where task or row is not there, and where it would have to ask a judge."""
        if self.config.task.judge is not None:
            return None
        row = self._rows.get(prompt_id)
        return str(self.task.classify(row, text)) if self.task is not None and row is not None else None

    def steps_trained(self) -> int:
        """The last optimizer step that is done."""
        if not self._layout.metrics.is_file():
            return 0
        step = 0
        with self._layout.metrics.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    step = int(json.loads(line)["step"])
        return step


def _overlaps(texts: Sequence[str], kept: Sequence[bool]) -> list[float | None]:
    """For each of a prompt's texts the highest ROUGE-L F with another one that was kept."""
    places = [place for place, keep in enumerate(kept) if keep]
    return [
        round(max(scores), 6)
        if (scores := [rouge_l(text, texts[other]) for other in places if other != place])
        else None
        for place, text in enumerate(texts)
    ]
