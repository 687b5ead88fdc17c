r"""What a model wrote → the number that it means. The right column is a person's reading of the left."""

import time
from fractions import Fraction

import pytest

from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.answers.number import NumberReader, value

STATED = [
    ("#### 42", "42"),
    ("#### 42\nThat is 6*7, and not the 5 apples of before.", "42"),
    ("#### 42 apples", "42"),
    ("####\n42", "42"),
    ("#### $1,234.00", "1234"),
    ("#### 42.", "42"),
    (r"so \boxed{42}", "42"),
    (r"\[\boxed{42}\]", "42"),
    (r"\boxed{\text{42 apples}}", "42"),
    (r"\boxed{\text{The answer is }\mathbf{42}}", "42"),
    (r"\boxed{x = 42}", "42"),
    (r"\boxed{\$42}", "42"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{1\,234}", "1234"),
    (r"\boxed{-18}", "-18"),
    (r"\boxed{18 \text{ km/h}}", "18"),
    (r"\boxed{18\,\text{m}^2}", "18"),
    (r"\boxed{42", "42"),
    (r"\boxed 42", "42"),
    (r"\fbox{42}", "42"),
    ("The answer is 42.", "42"),
    ("The answer is **42**.", "42"),
    ("The answer is ***42***", "42"),
    ("The answer is *42*", "42"),
    ("The answer is `42`", "42"),
    ("The answer is \\(42\\).", "42"),
    ("The answer is $$42$$", "42"),
    ("The answer is: \\[ \\boxed{42} \\]", "42"),
    ("**Final Answer**\n\n42", "42"),
    ("### Final Answer:\n- **18**", "18"),
    ("### Answer:\n42 dollars", "42"),
    ("Answer: 42 (not 43)", "42"),
    ("ANSWER: €42", "42"),
    ('{"answer": 42}', "42"),
    ("<answer>42</answer>", "42"),
    ("<think>The answer is 5</think>#### 7", "7"),
    ("Final Answer: The final answer is $\\boxed{18}$. I hope it is correct.", "18"),
    ("The answer, therefore, is 42", "42"),
    ("The answer to the question is thus 42", "42"),
    ("Thus the answer must be 42!", "42"),
    ("42 is the correct answer", "42"),
    ("So, 42 is the final answer to the question.", "42"),
    ("The answer is approximately 42", "42"),
    ("The answer is x=42", "42"),
    ("the answer is 6 \\times 7 = 42.", "42"),
    ("the answer is 5 x 4 = 20", "20"),
    ("the answer is 20 = 5 x 4", "20"),
    ("The answer is 100 - 58 = 42 apples", "42"),
    ("The answer is 42km/h", "42"),
    ("The answer is 18m^2", "18"),
]
VALUES = [
    ("The answer is $1,234.00.", "1234"),
    ("answer is 1,00,000", "100000"),
    ("the answer is 5\u00a0000", "5000"),
    ("The answer is 42.0", "42"),
    ("The answer is 1.50", "1.5"),
    ("The answer is .5", "0.5"),
    ("The answer is 007", "7"),
    ("The answer is 1/2", "1/2"),
    (r"\boxed{\dfrac{1}{2}}", "1/2"),
    (r"\boxed{\frac12}", "1/2"),
    (r"$\boxed{-\frac{1}{2}}$", "-1/2"),
    ("The answer is 3 1/2 hours", "7/2"),
    ("The answer is 3½", "7/2"),
    ("The answer is -$5", "-5"),
    ("The answer is $-5", "-5"),
    ("the answer is −42.", "-42"),
    ("The answer is -0", "0"),
    ("The answer is 25%.", "25%"),
    ("The answer is 25 percent", "25%"),
    ("\\boxed{42\\%}", "42%"),
    ("The answer is 4.2e3", "4200"),
    ("answer is 1.5 million", "1500000"),
    ("the answer is ４２", "42"),
    ("the answer is three.", "3"),
    ("the answer is forty-two apples.", "42"),
    ("the answer is two thousand three hundred and five.", "2305"),
]
FINAL = [
    ("The answer is 41... wait, the answer is 42", "42"),
    ("The answer is 41. Wait, it's 42.", "42"),
    ("The answer is 41. Wait, that's wrong. The answer is 42.", "42"),
    ("~~41~~ The answer is ~42", "42"),
    ("The answer isn't 42, it is 43.", "43"),
    ("The answer is not 42 but 43", "43"),
    ("If the answer is 5, then we check.\nThe answer is 7", "7"),
    ("The answer is 5? Let me check. The answer is 6", "6"),
    ("The answer is 7. A common wrong answer is 6", "7"),
    ("I don't think the answer is 5. The answer is 4", "4"),
    ("Since it is not 5 the answer is 4", "4"),
    ("#### 18\nSince 4 eggs are eaten, this is correct.", "18"),
    ("#### 18\n\nWait, 18 - 2 = 16 eggs", "18"),
    ("#### Step 1: think of 5\n6*7=42", "42"),
    ("#### 1. Start with 5\nfoo\n#### 2. Go on with 6\n6*7 = 42 clips in 2 months", "42"),
    ("The answer is that Natalia sold 72 clips. This is because April had 48.", "72"),
    ("The answer is 18.\n\nQuestion: Tom has 5.\nAnswer: 10", "18"),
]
UNSTATED = [
    ("So she sold 72 clips altogether.", "72"),
    ("48 + 24 = 72 clips.\n\nHope this helps!", "72"),
    ("Answer: Natalia sold 72 clips altogether.", "72"),
    ("Let the answer be x. Then 2x = 36 so x = 18", "18"),
    ("768 / 50 = 15.36 minutes, which rounds down to 15 minutes", "15"),
    ("The temperature fell to -18", "-18"),
    ("Pages 10-18", "18"),
]
NONE = [
    "",
    "I don't know.",
    "The answer is not 42.",
    "The answer isn't 42",
    "#### 42,00",
    "The answer is 3:30",
    "The answer is 40 or 44",
    "The answer is between 40 and 44",
    "The answer is 5 to 10",
    r"\boxed{42, 43}",
    r"\boxed{}",
    r"\boxed{\text{no solution}}",
    "The answer is H2O",
    "The answer is the 3rd",
    "The answer is one of the most",
    "The answer is $x$",
    "The answer is 1e99999999999",
    "The answer is " + "1" * 5000,
]
EXPRESSIONS = [
    ("The answer is 6*7", "6*7"),
    (r"\boxed{6 \times 7}", r"6 \times 7"),
    (r"\boxed{3\sqrt{2}}", r"3\sqrt{2}"),
    ("the answer is 2^3", "2^3"),
]


@pytest.mark.parametrize(("text", "answer"), STATED + VALUES + FINAL + UNSTATED + EXPRESSIONS)
def test_the_number_that_a_text_means(text: str, answer: str) -> None:
    assert final_answer(text, NumberReader()) == answer


@pytest.mark.parametrize("text", NONE)
def test_a_text_without_one_final_number_is_unparsed(text: str) -> None:
    assert final_answer(text, NumberReader()) is None


@pytest.mark.parametrize("power", ["9^{9^9}", "2^{99999}", "99999!", "2^{10!}"])
def test_an_expression_that_would_take_minutes_is_no_answer(power: str) -> None:
    answer = final_answer(rf"\boxed{{{power}}}", NumberReader())
    assert not set("^!") & set(answer or "")


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("42", 42),
        ("1,234.00", 1234),
        ("-3/4", Fraction(-3, 4)),
        ("25%", 25),
        ("42,00", None),
        ("6*7", None),
        ("", None),
    ],
)
def test_value_of_an_answer(answer: str, number: Fraction | int | None) -> None:
    assert value(answer) == number


@pytest.mark.parametrize(
    "piece", ["1 ", "1/", "\n", "#", "\\boxed{", "the answer is ", "<answer>", "*a ", "\\frac{1}{2}", "1,"]
)
def test_a_text_that_loops_is_read_in_no_more_than_linear_time(piece: str) -> None:
    start = time.process_time()
    final_answer(piece * (20_000 // len(piece)), NumberReader())
    # Each of these took from 2 to 50 s when a rule was quadratic.
    assert time.process_time() - start < 2
