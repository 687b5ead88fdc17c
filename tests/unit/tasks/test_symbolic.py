import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from orpo_ray.errors import VerifierError
from orpo_ray.tasks import Row, Verdict, load_task
from orpo_ray.tasks.answers import symbolic
from orpo_ray.tasks.answers.symbolic import Comparison, SymbolicPool
from orpo_ray.tasks.gsm8k import GSM8KTask

ROW = Row("r1", "train", {"question": "6 times 7?", "answer": "6*7=<<6*7=42>>42\n#### 42"})


@pytest.fixture(scope="module")
def pool():
    pool = SymbolicPool(workers=1)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("gold", "answer", "comparison"),
    [
        ("42", r"6 \times 7", Comparison.EQUAL),
        ("42", "48-6", Comparison.EQUAL),
        (r"3\sqrt{2}", r"\sqrt{18}", Comparison.EQUAL),
        ("42", r"6 \times 8", Comparison.DIFFERENT),
        ("42", r"\pi", Comparison.DIFFERENT),
        ("42", "))((", Comparison.UNREADABLE),
    ],
)
def test_expressions_are_compared_by_value(pool: SymbolicPool, gold: str, answer: str, comparison: Comparison) -> None:
    assert pool.compare(gold, answer) is comparison


def test_a_thread_gets_the_verdict_that_the_main_thread_gets(pool: SymbolicPool) -> None:
    # math-verify's own timeout works on a main thread only, and has scored every answer of a thread 0 (verl PR #5635).
    verdicts: list[Comparison] = []
    threads = [threading.Thread(target=lambda: verdicts.append(pool.compare("42", r"84 / 2"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [Comparison.EQUAL] * 4


def _stub(body: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        "import sys, time, os\nprint('{\"ready\": true}', flush=True)\n" + textwrap.dedent(body),
    ]


@pytest.mark.parametrize(
    ("child", "complaint"),
    [
        ("sys.stdin.readline(); os._exit(3)", "ended with code 3"),
        ("sys.stdin.readline(); time.sleep(60)", "gave no reply"),
        ('while sys.stdin.readline(): print(\'{"error": "math-verify broke"}\', flush=True)', "math-verify broke"),
    ],
)
def test_a_child_that_dies_hangs_or_breaks_is_an_error_and_the_pool_goes_on(
    child: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SymbolicPool(workers=1, limit_s=-1, command=_stub(child))  # 2 s until it counts as hung
    try:
        for _ in range(2):
            start = time.perf_counter()
            with pytest.raises(VerifierError, match=complaint):
                pool.compare("1", "2")
            assert time.perf_counter() - start < 30
    finally:
        pool.close()


def test_a_broken_verifier_names_the_row_and_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gold: str, answer: str) -> Comparison:
        raise VerifierError("the math-verify process is gone")

    monkeypatch.setattr("orpo_ray.tasks.gsm8k.compare", broken)
    with pytest.raises(VerifierError, match=r"gsm8k, row r1: the math-verify process is gone"):
        GSM8KTask().verify(ROW, r"\boxed{6 \times 7}")


def test_any_failure_in_judging_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerifierError, match=r"gsm8k, row r2: KeyError"):
        GSM8KTask().verify(Row("r2", "train", {}), "#### 42")


def test_plain_numbers_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "SymbolicPool", None)
    monkeypatch.setattr(symbolic, "_pools", {})
    task = GSM8KTask()
    assert task.verify(ROW, "#### 42.0")
    assert task.classify(ROW, "#### 41") is Verdict.WRONG
    assert task.classify(ROW, "I cannot tell.") is Verdict.UNPARSED


@pytest.mark.parametrize("end", ["", "os._exit(0)"])
def test_a_script_without_main_guard_verifies_and_leaves_no_process(tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            rf"""
            import os

            from orpo_ray.tasks import Row
            from orpo_ray.tasks.answers import symbolic
            from orpo_ray.tasks.gsm8k import GSM8KTask

            row = Row("r", "train", {{"question": "?", "answer": "#### 42"}})
            print(GSM8KTask().verify(row, r"\boxed{{6 \times 7}}"))
            (pool,) = symbolic._pools.values()
            print(*(child._process.pid for child in pool._children), flush=True)
            {end}
            """
        )
    )
    root = str(Path(symbolic.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    right, pid = done.stdout.split()
    assert right == "True"
    # An actor that is killed runs no exit handler; its child ends with the pipe.
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_percentages_count_by_their_number_or_as_a_share() -> None:
    task = load_task("gsm8k")
    percent = Row("p", "train", {"question": "?", "answer": "#### 25"})
    share = Row("s", "train", {"question": "?", "answer": "#### 0.25"})
    assert task.verify(percent, "The answer is 25%.")
    assert task.verify(share, "The answer is 25%.")
    assert not task.verify(percent, "The answer is 0.25.")
    assert not task.verify(share, "The answer is 25.")
