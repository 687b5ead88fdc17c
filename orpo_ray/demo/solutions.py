"""The four ways in which the demo's models tell a solution.

For three steps, the ROUGE-L overlap of two tellings of one problem is mostly under the 0.8 of the diversity filter.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from orpo_ray.tasks.arithmetic import Problem, Step

Style: TypeAlias = Callable[[Problem], str]


def running(problem: Problem) -> str:
    """Step by step, in sums."""
    return _sums(problem.start, problem.steps)[0]


def in_words(problem: Problem) -> str:
    """Step by step, in words."""
    told = [
        f"{step.verb} {step.amount} to have {total}" for step, total in zip(problem.steps, problem.totals, strict=True)
    ]
    return f"{problem.name} starts with {problem.start}, {', '.join(told)}."


def gains_first(problem: Problem) -> str:
    """In another order: what is added, then what is taken away."""
    parts, total = [], problem.start
    for label, steps in (("Adding", _of(problem, gain=True)), ("Taking", _of(problem, gain=False))):
        if steps:
            sums, total = _sums(total, steps)
            parts.append(f"{label}: {sums}")
    return " ".join(parts)


def grouped(problem: Problem) -> str:
    """The gains and the losses are each summed up, then set against the start."""
    parts, together = [], []
    for label, gain in (("Gains", True), ("Losses", False)):
        amounts = [step.amount for step in _of(problem, gain=gain)]
        if amounts:
            whole = f" = {sum(amounts)}" if len(amounts) > 1 else ""
            parts.append(f"{label}: {' + '.join(map(str, amounts))}{whole}.")
            together.append(Step("", sum(amounts), gain))
    return f"{' '.join(parts)} Together {_sums(problem.start, together)[0]}"


STYLES: tuple[Style, ...] = (running, in_words, gains_first, grouped)


def tell(problem: Problem, style: Style) -> str:
    """A whole trace: the reasoning in `style`, then the final answer."""
    return f"{style(problem)} The answer is {problem.answer}."


def _of(problem: Problem, *, gain: bool) -> list[Step]:
    return [step for step in problem.steps if step.gain is gain]


def _sums(start: int, steps: Iterable[Step]) -> tuple[str, int]:
    """One sum for each step, from `start`, and the total where they end."""
    sums, total = [], start
    for step in steps:
        sums.append(f"{total} {'+' if step.gain else '-'} {step.amount} = {step.after(total)}.")
        total = step.after(total)
    return " ".join(sums), total
