"""The diversity benchmark runs, agrees with rouge-score, and says so in JSON."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmark_compares_both_sides_on_the_same_texts(tmp_path: Path) -> None:
    out = tmp_path / "diversity.json"
    sizes = ["--prompts", "60", "--oracle-prompts", "6", "--compared", "3", "--words", "40"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/diversity.py"), *sizes, "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert (result["prompts"], result["rouge_score_prompts"], result["pairs_compared"]) == (60, 6, 3 * 28)
    assert result["largest_difference"] <= 1e-12
    assert result["same_traces_kept"] is True
    assert 60 < result["kept"] < 480, "some are near-duplicates, some are not"
    assert done.returncode == (0 if result["ratio"] >= 50 else 1), done.stderr
