"""Finding tasks by name, and a user's own by import path."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_ray.errors import DataError, VerifierError
from orpo_ray.tasks import TASKS, Row, Verdict, load_task

OWN = """
from orpo_ray.tasks import Row

class Doubling:
    def __init__(self, path=None):
        self.path = path

    def rows(self):
        return [Row(str(n), "all", {"question": f"twice {n}?"}) for n in range(10)]

    def prompt(self, row):
        return row.data["question"]

    def extract(self, text):
        return text.split()[-1] if text.split() else None

    def verify(self, row, text):
        return int(text.split()[-1]) == 2 * int(row.id)

    def gold(self, row):
        return str(2 * int(row.id))

class Half:
    def rows(self):
        return []

class Twins(Doubling):
    def rows(self):
        return [Row("0", "all", {}), Row("0", "all", {})]

class Bare(Doubling):
    def rows(self):
        return [{"question": "?"}]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_tasks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    return "own_tasks"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        DataError, match=r"unknown task 'gsm9k': known are gsm8k, arc_challenge, .*package\.module:Class"
    ):
        load_task("gsm9k")


@pytest.mark.parametrize("name", [name for name in TASKS if name != "arithmetic"])
def test_a_known_task_is_made_without_rows_or_network(name: str) -> None:
    assert load_task(name, split="validation").split == "validation"


def test_parts_of_one_file_are_disjoint(jsonl: Callable[..., str]) -> None:
    path = jsonl(*({"question": f"q{n}", "answer": f"#### {n}"} for n in range(20)))
    sizes = {"train": None, "validation": 3, "test": 5}
    parts = {split: load_task("gsm8k", path, split=split, sizes=sizes, seed=1).rows() for split in sizes}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 12, "validation": 3, "test": 5}
    assert len({row.id for rows in parts.values() for row in rows}) == 20
    with pytest.raises(DataError, match="split 'dev' is none of the parts"):
        load_task("gsm8k", path, split="dev", sizes=sizes)


def test_a_task_of_the_users_own(own: str) -> None:
    task = load_task(f"{own}:Doubling", "some/where")
    row = task.rows()[3]
    assert task.prompt(row) == "twice 3?"
    assert task.messages(row) == [{"role": "user", "content": "twice 3?"}]
    assert task.gold(row) == "6"
    assert task.classify(row, "it is 6") is Verdict.RIGHT
    assert task.classify(row, "it is 7") is Verdict.WRONG
    parts = [
        load_task(f"{own}:Doubling", split=split, sizes={"train": 6, "test": 4}).rows() for split in ("train", "test")
    ]
    assert [len(rows) for rows in parts] == [6, 4]
    assert {row.id for row in parts[0]} | {row.id for row in parts[1]} == {str(n) for n in range(10)}


def test_a_users_verifier_that_breaks_is_an_error_that_names_the_row(own: str) -> None:
    task = load_task(f"{own}:Doubling")
    with pytest.raises(VerifierError, match=r"own_tasks:Doubling, row 3: ValueError: invalid literal"):
        task.verify(Row("3", "all", {}), "no number here")
    with pytest.raises(VerifierError, match=r"row 3: IndexError"):
        task.verify(Row("3", "all", {}), "")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module:Task", "cannot import 'no_such_module'"),
        ("own_tasks:Missing", "module 'own_tasks' has no class 'Missing'"),
        ("own_tasks:Half", r"its class lacks prompt\(\), extract\(\), verify\(\), gold\(\)"),
    ],
)
def test_a_class_that_is_not_there_or_no_task(own: str, target: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_task(target)


@pytest.mark.parametrize(
    ("name", "says"), [("Twins", "two rows of the same id"), ("Bare", "gave a dict at 0, not a Row")]
)
def test_rows_of_the_users_own_are_checked(own: str, name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_task(f"{own}:{name}").rows()


def test_importing_tasks_and_judging_import_nothing_heavy() -> None:
    code = """
        import sys
        from orpo_ray.tasks import Row, load_task
        import orpo_ray.tasks.prompts, orpo_ray.traces.diversity
        assert load_task("gsm8k").verify(Row("r", "train", {"question": "?", "answer": "#### 42"}), "#### 42")
        heavy = {"torch", "ray", "vllm", "transformers", "datasets", "sympy", "math_verify", "pyarrow"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
