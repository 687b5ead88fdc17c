"""What a model wrote → yes or no. The right column is a person's reading of the left."""

import pytest

from orpo_ray.tasks.answers.boolean import YesNoReader
from orpo_ray.tasks.answers.final import final_answer

MEANT = [
    ("The answer is yes", "yes"),
    ("So the answer is no.", "no"),
    ("**Answer:** No", "no"),
    ('The answer is "Yes".', "yes"),
    (r"\boxed{\text{Yes}}", "yes"),
    (r"The answer is \textbf{No}", "no"),
    ("#### yes", "yes"),
    ("Yes, because dogs can", "yes"),
    ("No. Dogs cannot", "no"),
    ("Yes.\n\nHe lived in 1900.", "yes"),
    ("YES", "yes"),
    ("The answer is True", "yes"),
    ("**Answer:** true", "yes"),
    ("Answer: It is false.", "no"),
    ("The statement is false.", "no"),
    ("Thus, the statement is true.", "yes"),
    ("Therefore, yes.", "yes"),
    ("So, no, he could not.", "no"),
    ("The answer is a no.", "no"),
    ("The answer is no because dogs", "no"),
    ("Thus, the answer is probably yes", "yes"),
    ("Yes, it might. But the answer is no.", "no"),
    ("The answer is yes. Wait, no.", "no"),
    ("The answer is yes... wait, the answer is no", "no"),
    ("Wait, no, the answer is yes", "yes"),
    ("The answer is no, not yes", "no"),
    ("The answer isn't no, it is yes", "yes"),
]
NONE = [
    "",
    "I don't know",
    "The answer is not yes",
    "The answer is yes or no",
    "Answer: yes/no",
    "The answer is <yes or no>.",
    "The answer is no one knows",
    "the answer is no longer clear",
    "There is no evidence.",
    "No evidence exists.",
    "It is not true.",
    "He said yes to the offer. Thus",
]


@pytest.mark.parametrize(("text", "answer"), MEANT)
def test_the_yes_or_no_that_a_text_means(text: str, answer: str) -> None:
    assert final_answer(text, YesNoReader()) == answer


@pytest.mark.parametrize("text", NONE)
def test_a_text_without_yes_or_no_is_unparsed(text: str) -> None:
    assert final_answer(text, YesNoReader()) is None
