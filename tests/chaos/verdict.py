"""What a ledger says after the kills: rows lost, repeated, or trained elsewhere than the plan has them. Pure logic."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo_ray.pairs import Plan


@dataclass(frozen=True)
class Verdict:
    """Rows of the plan that the ledger has not, has more than once, or has at another step, epoch or prompt."""

    lost: list[int]
    repeated: list[int]
    misplaced: list[int]

    @property
    def clean(self) -> bool:
        return not (self.lost or self.repeated or self.misplaced)


def judge_ledger(lines: Sequence[Mapping[str, Any]], plan: Plan) -> Verdict:
    """Compare the committed lineage, in any order of its lines, with the plan row by row."""
    times = Counter(line["row"] for line in lines)
    misplaced = []
    for line in lines:
        if not 0 <= line["row"] < plan.geometry.rows:
            misplaced.append(line["row"])
            continue
        row = plan.row(line["row"])
        wanted = (row.index // plan.geometry.global_batch + 1, row.epoch, row.prompt_id, row.real)
        if (line["step"], line["epoch"], line["prompt_id"], line["policy"] != "padding") != wanted:
            misplaced.append(row.index)
    return Verdict(
        lost=[row for row in range(plan.geometry.rows) if row not in times],
        repeated=sorted(row for row, count in times.items() if count > 1),
        misplaced=sorted(misplaced),
    )


def largest_difference(found: Sequence[Mapping[str, Any]], undisturbed: Sequence[Mapping[str, Any]]) -> float:
    """Largest distance between the losses of the same steps; infinite where the steps are not the same."""
    if [line["step"] for line in found] != [line["step"] for line in undisturbed]:
        return float("inf")
    return max((abs(a["loss"] - b["loss"]) for a, b in zip(found, undisturbed, strict=True)), default=0.0)
