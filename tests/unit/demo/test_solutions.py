"""The styles of a solution: each is right, and they differ as much as the diversity filter asks."""

import random
from itertools import combinations

import pytest

from orpo_ray.demo.solutions import STYLES, gains_first, grouped, in_words, running, tell
from orpo_ray.tasks import Row
from orpo_ray.tasks.arithmetic import ArithmeticTask, Problem, Step, draw_problem
from orpo_ray.traces.diversity import rouge_l, select_diverse

PROBLEM = Problem("Ana", "coins", 12, (Step("finds", 5, True), Step("loses", 3, False), Step("wins", 4, True)))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (running, "12 + 5 = 17. 17 - 3 = 14. 14 + 4 = 18. The answer is 18."),
        (in_words, "Ana starts with 12, finds 5 to have 17, loses 3 to have 14, wins 4 to have 18. The answer is 18."),
        (gains_first, "Adding: 12 + 5 = 17. 17 + 4 = 21. Taking: 21 - 3 = 18. The answer is 18."),
        (grouped, "Gains: 5 + 4 = 9. Losses: 3. Together 12 + 9 = 21. 21 - 3 = 18. The answer is 18."),
    ],
)
def test_one_problem_in_each_style(style, text) -> None:
    assert tell(PROBLEM, style) == text


def test_every_style_ends_in_the_right_answer() -> None:
    rng, task = random.Random(0), ArithmeticTask()
    problems = [draw_problem(rng, "train", (1, 2, 3)) for _ in range(100)]
    wrong = [
        tell(problem, style)
        for problem in problems
        for style in STYLES
        if not task.verify(
            Row("r", "train", {"question": problem.question, "answer": str(problem.answer)}), tell(problem, style)
        )
    ]
    assert wrong == []


def test_most_tellings_pass_the_diversity_filter() -> None:
    rng = random.Random(0)
    told = [[tell(problem, style) for style in STYLES] for problem in (draw_problem(rng, "train") for _ in range(200))]
    assert sum(len(select_diverse(texts, 0.8)) for texts in told) / len(told) > 3
    # All pairs of styles but one differ whatever the problem; that one does where gains and losses alternate.
    alike = {
        (a.__name__, b.__name__)
        for texts in told
        for (a, x), (b, y) in combinations(zip(STYLES, texts, strict=True), 2)
        if rouge_l(x, y) > 0.8
    }
    assert alike == {("running", "gains_first")}
