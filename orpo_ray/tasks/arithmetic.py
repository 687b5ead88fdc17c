"""Word problems of two or three additions and subtractions, generated: a task that needs no data.

A problem is a starting number and a few gains and losses. Its answer can be checked, and its solution can be told in styles
and orders that share few words and numbers, so that several traces of one prompt are really different.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

from orpo_ray.errors import DataError
from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.answers.number import NumberReader, value
from orpo_ray.tasks.splits import SplitSize
from orpo_ray.tasks.task import Row, Task, Verdict

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens", "shells", "stamps")
GAINS = ("finds", "wins", "buys", "gets")
LOSSES = ("loses", "sells", "gives", "drops")
STARTS = range(5, 21)
AMOUNTS = range(1, 10)
STEP_COUNTS = (2, 3)

# Of ten sums five belong to `pretrain`, which the task never serves: the demo's models were brought up on them.
_SPLIT_OF_TENTH = ("pretrain",) * 5 + ("train",) * 3 + ("validation", "test")
_DEFAULT_SIZES: Mapping[str, int] = {"train": 800, "validation": 200, "test": 500}


@dataclass(frozen=True)
class Step:
    """One change: `verb` tells it, `amount` is positive, `gain` says whether it is added or taken away."""

    verb: str
    amount: int
    gain: bool

    def after(self, total: int) -> int:
        return total + self.amount if self.gain else total - self.amount


@dataclass(frozen=True)
class Problem:
    """`name` has `start` of `thing`; then the steps happen, one after another."""

    name: str
    thing: str
    start: int
    steps: tuple[Step, ...]

    @property
    def totals(self) -> list[int]:
        """The total after each step."""
        totals = [self.start]
        for step in self.steps:
            totals.append(step.after(totals[-1]))
        return totals[1:]

    @property
    def answer(self) -> int:
        return self.totals[-1]

    @property
    def question(self) -> str:
        *first, last = (f"{step.verb} {step.amount}" for step in self.steps)
        story = f"{', '.join(first)} and {last}" if first else last
        return f"{self.name} has {self.start} {self.thing}, {story}. How many {self.thing} does {self.name} have now?"

    @property
    def split(self) -> str:
        """Chosen by a hash of the sum alone, so that no sum is in two splits under different names."""
        total = str(self.start) + "".join(f"{'+' if step.gain else '-'}{step.amount}" for step in self.steps)
        return _SPLIT_OF_TENTH[hashlib.sha256(total.encode()).digest()[0] % 10]


def draw_problem(
    rng: random.Random,
    split: str,
    step_counts: tuple[int, ...] = STEP_COUNTS,
    gains: tuple[str, ...] = GAINS,
    losses: tuple[str, ...] = LOSSES,
) -> Problem:
    """A random problem of `split`, with one of `step_counts` steps, whose total never falls below 0."""
    while True:
        steps = []
        for _ in range(rng.choice(step_counts)):
            gain = rng.random() < 0.5
            steps.append(Step(rng.choice(gains if gain else losses), rng.choice(AMOUNTS), gain))
        problem = Problem(rng.choice(NAMES), rng.choice(THINGS), rng.choice(STARTS), tuple(steps))
        if min(problem.totals) >= 0 and problem.split == split:
            return problem


class ArithmeticTask(Task):
    """The first rows of an endless series, one for each (seed, split): a larger size keeps the rows of a smaller one.

    Args:
        path: must be None: the rows are generated.
        split: `train`, `validation` or `test`. They never share a sum, whatever the seeds.
        sizes: rows in each split; 800, 200 and 500 where a split is not named or its size is None.
        seed: chooses the series.

    Raises:
        DataError: a path is given, or the split is none of the three.
    """

    name = "arithmetic"

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "train",
        sizes: Mapping[str, SplitSize] | None = None,
        seed: int = 0,
    ) -> None:
        if path is not None:
            raise DataError(f"task 'arithmetic' generates its rows and reads no data; remove the path {path!r}")
        if split not in _DEFAULT_SIZES:
            raise DataError(f"task 'arithmetic' has no split {split!r}; it has {', '.join(_DEFAULT_SIZES)}")
        size = (sizes or {}).get(split)
        self.split = split
        self._size = _DEFAULT_SIZES[split] if size is None else size
        self._seed = seed

    def rows(self) -> list[Row]:
        rng = random.Random(f"{self._seed}/{self.split}")
        # A dict keeps the first of equal questions, and their order.
        problems: dict[str, Problem] = {}
        while len(problems) < self._size:
            problem = draw_problem(rng, self.split)
            problems.setdefault(problem.question, problem)
        return [
            Row(f"{self.split}-{index:06d}", self.split, {"question": question, "answer": str(problem.answer)})
            for index, (question, problem) in enumerate(problems.items())
        ]

    def prompt(self, row: Row) -> str:
        """The question alone: the demo's models know no instructions; they reason first and answer last by themselves."""
        return str(row.data["question"])

    def extract(self, text: str, row: Row | None = None) -> str | None:
        return final_answer(text, NumberReader())

    def gold(self, row: Row) -> str:
        return str(row.data["answer"])

    def judge(self, row: Row, answer: str) -> Verdict:
        return Verdict.RIGHT if value(answer) == value(self.gold(row)) else Verdict.WRONG
