"""What a model wrote → the option that it means. The right column is a person's reading of the left."""

import pytest

from orpo_ray.tasks.answers.final import final_answer
from orpo_ray.tasks.answers.label import LabelReader

PALMS = LabelReader("ABCD", ["dry palms", "wet palms", "a plant", "palms covered with oil"])
GERMS = LabelReader("ABCDE", ["E. coli", "C. difficile", "B cells", "Vitamin D", "A fib"])
WEATHER = LabelReader("1234", ["fog", "rain", "drought", "tornado"])
NUMBERS = LabelReader("ABCD", ["3", "1", "2", "4"])
GENES = LabelReader("ABCD", ["WW or ww", "WW or Ww", "WW only", "Ww only"])
UNITS = LabelReader("ABCD", ["40", "40 m north", "40 m/s", "40 m/s north"])
NO_ROW = LabelReader()

LABELS = [
    ("the answer is (B). Option C fails because it is oily.", "B"),
    ("**Answer:** b", "B"),
    ("**Answer: (B)**", "B"),
    ("Answer: [B]", "B"),
    ("Answer\nB", "B"),
    ("## Final Answer\n\n**(C)**", "C"),
    ("The correct answer is:\n\nA) dry palms", "A"),
    ("The correct answer is: B. wet palms", "B"),
    ("The best answer is B: wet palms", "B"),
    ("The answer is B - wet palms", "B"),
    ("The answer is B wet palms", "B"),
    ("The answer is “B”.", "B"),
    ("The answer is （B）", "B"),
    ('{"answer": "B"}', "B"),
    ("answer=B", "B"),
    ("THE ANSWER IS B", "B"),
    ("<answer>B</answer>", "B"),
    ("#### B", "B"),
    (r"\boxed{B}", "B"),
    (r"\boxed{\text{(B) wet palms}}", "B"),
    ("$\\boxed{\\mathbf{C}}$", "C"),
    ("Option B is correct.", "B"),
    ("B is the correct answer because", "B"),
    ("Among the options, B is the most suitable.", "B"),
    ("Option D, palms covered with oil, is correct.", "D"),
    ("I would choose C.", "C"),
    ("The answer is therefore option (D).", "D"),
    ("The answer that makes sense is B.", "B"),
    ("Correct Answer: B", "B"),
    ("Final answer – B", "B"),
    ("Thus, B.", "B"),
    ("I think it's C.", "C"),
    ("B", "B"),
    ("(b)", "B"),
    ("a", "A"),
    ("**B. wet palms**", "B"),
    ("B\n\nExplanation: friction is greater with the wet ones", "B"),
    ("The answer is 2", "B"),
    ("The answer is option 3", "C"),
]
ARTICLE = [
    ("The answer is A.", "A"),
    ("The answer is a.", "A"),
    ("The answer is A because it is dry", "A"),
    ("The answer is A dry palms", "A"),
    ("A plant needs water. The answer is B", "B"),
    ("The answer is A plant needs water.", "C"),
    ("the answer is a plant", "C"),
    ("THE ANSWER IS A PLANT", "C"),
    ("A good question! The answer might be B", "B"),
]
TEXTS = [
    ("The answer is dry palms.", "A"),
    ("The answer is the dry palms, since rubbing", "A"),
    ("Answer: Dry palms have friction.", "A"),
    ("Dry palms is the correct answer.", "A"),
    ("The answer is palms covered with oil.", "D"),
    (r"\boxed{\text{dry palms}}", "A"),
    ("So dry palms produce the most heat.", "A"),
]
FINAL = [
    ("The answer is A... wait, the answer is B", "B"),
    ("The answer is A. Wait, actually it's B.", "B"),
    ("The answer is A.\nActually, no: it should be C.", "C"),
    ("The answer is B\n\nWait, let me reconsider. Option C is better. The answer is C", "C"),
    ("Option B is the best answer. Option C is incorrect.", "B"),
    ("The answer is B.\n\nExplanation: A is wrong as dry. C is wrong. D is not correct.", "B"),
    ("Let's go through: A is wrong. B is wrong. D is wrong. Therefore C is correct.", "C"),
    ("The answer is B, not C", "B"),
    ("The answer is (B) rather than (A)", "B"),
    ("The answer is not A but B.", "B"),
    ("The answer isn't (A) or (B) but (C)", "C"),
    ("The answer cannot be A. The answer is B", "B"),
    ("You might think the answer is A, but it is B.", "B"),
    ("If the answer were A, it would slip. The answer is B", "B"),
    ("The answer is A? No. The answer is B", "B"),
    ("I don't think the answer is A. The answer is D.", "D"),
    ("The claim on wet palms is correct. The answer is A. This statement about wet palms is correct.", "A"),
    ("The answer choices are: A) dry palms B) wet palms. I pick B.", "B"),
    ("A. dry palms\nB. wet palms\nSo B.", "B"),
    ("The answer is B.\n\nQuestion: Which?\nAnswer: C", "B"),
]
NONE = [
    "",
    "I don't know.",
    "not A",
    "Not B.",
    "Definitely not (C)",
    "It is not A.",
    "The answer is not A.",
    "The answer is **not** A",
    "The answer is not B because wet palms slip.",
    "The answer can't be A",
    "(A) is not the answer.",
    "The right choice isn't D.",
    "The answer is anything but A",
    "The answer is neither A nor B",
    "The answer is A. However, A is incorrect.",
    "The answer is A or B",
    "The answer is (A) and (B).",
    "Both A and B are correct.",
    "Answer: A/B/C/D",
    "The answer is (X).",
    "The answer is E",
    "None of the above.",
    "The correct answer is not listed.",
    "The answer is palms.",
    "Wet palms would not work.",
    "So wet palms would not produce as much heat as dry palms.",
    "A. dry palms\nB. wet palms\nC. a plant\nD. palms covered with oil",
    "Options: (A) dry palms (B) wet palms",
    "In option A we see. In option B we see",
]
LIKE_LABELS = [
    (GERMS, "The answer is E. coli", "A"),
    (GERMS, "The answer is C. difficile.", "B"),
    (GERMS, "The answer is B cells", "C"),
    (GERMS, "The answer is B. C. difficile", "B"),
    (GERMS, "The answer is E. A fib", "E"),
    (GERMS, "The answer is E.", "E"),
    (GERMS, "The answer is Vitamin D", "D"),
    (GERMS, "**Answer: A. E. coli**", "A"),
    (WEATHER, "The answer is (3)", "3"),
    (WEATHER, "The answer is 3.", "3"),
    (WEATHER, "The answer is B", "2"),
    (WEATHER, "The answer is (D) tornado", "4"),
    (WEATHER, r"\boxed{2}", "2"),
    (WEATHER, "drought", "3"),
    (WEATHER, "the answer is 7", None),
    (WEATHER, "The answer is 3 tornadoes", None),
    (NUMBERS, "The answer is 2", "C"),
    (NUMBERS, "The answer is option 2", "B"),
    (NUMBERS, "The answer is B", "B"),
    (NUMBERS, r"\boxed{3}", "A"),
    (NUMBERS, "The answer is (C) 2", "C"),
    (GENES, "The answer is WW or Ww.", "B"),
    (GENES, "The answer is WW or ww", "A"),
    (UNITS, "The answer is 40.", "A"),
    (UNITS, "The answer is 40 m north", "B"),
    (UNITS, "The answer is 40 m/s.", "C"),
    (UNITS, "The answer is 40 m/s north.", "D"),
    (UNITS, "The answer is 40 km.", None),
    (NO_ROW, "The answer is B", "B"),
    (NO_ROW, "**Answer:** b", "B"),
    (NO_ROW, "the answer is (3)", "3"),
    (NO_ROW, "The answer is a plant", None),
    (NO_ROW, "The answer is A plant", None),
]


@pytest.mark.parametrize(("text", "label"), LABELS + ARTICLE + TEXTS + FINAL)
def test_the_option_that_a_text_means(text: str, label: str) -> None:
    assert final_answer(text, PALMS) == label


@pytest.mark.parametrize("text", NONE)
def test_a_text_without_one_final_option_is_unparsed(text: str) -> None:
    assert final_answer(text, PALMS) is None


@pytest.mark.parametrize(("reader", "text", "label"), LIKE_LABELS)
def test_options_that_look_like_labels_and_labels_that_are_numbers(
    reader: LabelReader, text: str, label: str | None
) -> None:
    assert final_answer(text, reader) == label
