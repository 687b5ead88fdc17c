"""A task of one's own, as a user would write it: sums of two digits. Also named by import path in the tests."""

from collections.abc import Sequence

from orpo_ray.tasks import Row, Task


class SumsTask(Task):
    """`What is 3 plus 4?`: a hundred questions, cut into disjoint splits."""

    name = "sums"

    def __init__(self, split: str = "train", sizes: dict[str, int | None] | None = None, seed: int = 0) -> None:
        self.split, self._sizes = split, sizes or {}

    def rows(self) -> Sequence[Row]:
        everything = [(first, second) for first in range(10) for second in range(10)]
        start = 0
        for split in ("test", "validation", "train"):
            size = self._sizes.get(split) or (0 if split != "train" else len(everything) - start)
            if split == self.split:
                chosen = everything[start : start + size]
                return [Row(f"{a}+{b}", split, {"a": a, "b": b}) for a, b in chosen]
            start += size
        raise AssertionError(self.split)

    def prompt(self, row: Row) -> str:
        return f"What is {row.data['a']} plus {row.data['b']}?"

    def extract(self, text: str, row: Row | None = None) -> str | None:
        digits = "".join(letter for letter in text.rpartition("answer is")[2] if letter.isdigit())
        return digits or None

    def gold(self, row: Row) -> str:
        return str(row.data["a"] + row.data["b"])
