"""Each `orpo-ray` command in a code block of a page is run here, or named with the test that runs it."""

import ast
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import site_pages
import yaml

from tests.unit.cli.conftest import CONFIG, Call, call  # noqa: F401
from tests.unit.report.traced import write_traced_run

ROOT = Path(__file__).parents[3]
RUN_HERE = ("validate", "plan", "config schema", "deploy render", "show", "report", "traces", "reproduce --dry-run")
"""Commands, with options that make them quick, that are run as the page has them."""

JOBS = "tests/unit/cli/test_jobs.py"
PROVEN = {
    "demo": "tests/e2e/test_reproduce.py::test_two_recipes_stopped_and_gone_on_with",  # the demo's file, fewer prompts
    "run": "tests/e2e/test_examples.py::test_gsm8k_into_smollm2",
    "run --fresh": "tests/unit/cli/test_run.py::test_a_changed_field_is_refused_by_name",
    "run --set": "tests/integration/test_lora_distill.py::test_it_learned",
    "eval --model": "tests/integration/test_distill.py::test_the_evaluator_followed_every_epoch",
    "teacher": "tests/integration/test_teacher_endpoint.py::test_serves_own_configuration_builds_the_teacher",
    "serve --storage": "tests/integration/test_service.py::test_a_run_is_submitted_followed_and_stopped_through_a_restart",
    "lm-eval": "tests/unit/evaluation/test_lm_eval.py",
    "doctor": "tests/unit/cli/test_doctor.py::test_this_machine_is_examined_for_real",
    "reproduce": "tests/e2e/test_reproduce.py::test_two_recipes_stopped_and_gone_on_with",
    "reproduce --report": "tests/unit/cli/test_reproduce.py::test_a_report_alone_starts_nothing",
    "submit --address --wait": f"{JOBS}::test_wait_ends_as_the_run_does",
    "submit --address --driver-cpus --driver-resource --wait": "tests/integration/test_jobs.py",
    "status": f"{JOBS}::test_status_list_logs_and_stop",
    "list": f"{JOBS}::test_status_list_logs_and_stop",
    "logs -f": f"{JOBS}::test_status_list_logs_and_stop",
    "stop": f"{JOBS}::test_status_list_logs_and_stop",
}
"""A command with its options, and the test that runs what it does."""


@dataclass(frozen=True)
class Command:
    """One command of a page, as words behind `orpo-ray`."""

    page: str
    words: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The command and its options, without their values."""
        depth = 2 if self.words[0] in ("config", "deploy") else 1
        options = [word.partition("=")[0] for word in self.words[depth:] if word.startswith("-") and word != "-"]
        return " ".join([*self.words[:depth], *sorted(set(options))])

    @property
    def runs_here(self) -> bool:
        return any(set(case.split()) <= set(self.kind.split()) for case in RUN_HERE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    fenced = re.findall(r"(?ms)^```(\w*)[^\n]*\n(.*?)^```", text)
    return [*fenced, *(("", block) for block in re.findall(r"(?m)^    (orpo-ray .*)$", text))]


def commands() -> list[Command]:
    found = []
    for page, text in site_pages.pages().items():
        if page.startswith("docs/reference/"):
            continue  # usages, made from the commands themselves
        for language, block in blocks(text):
            if language not in ("", "sh", "bash", "console"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                for said in re.findall(r"(?:^|[|&;]|-- )\s*(?:\$ )?orpo-ray ([a-z-][^|>&;]*)", line.partition(" #")[0]):
                    found.append(Command(page, tuple(shlex.split(said))))
    return sorted(set(found), key=lambda command: (command.page, command.words))


COMMANDS = commands()


def test_commands_are_found() -> None:
    assert {"README.md", "docs/tutorial.md", "docs/cluster.md"} <= {command.page for command in COMMANDS}
    assert Command("docs/tutorial.md", ("report", "demo")) in COMMANDS


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: f"{Path(command.page).stem}: {' '.join(command.words)}"
)
def test_a_command_is_run_here_or_proven(command: Command, call: Call, tmp_path: Path) -> None:  # noqa: F811
    if not command.runs_here:
        assert command.kind in PROVEN, f"{command.page}: name the test that runs orpo-ray {' '.join(command.words)}"
        return
    for name in ("examples", "orpo_ray"):
        (tmp_path / name).symlink_to(ROOT / name)
    files = {"run.yaml": yaml.safe_dump(CONFIG)} | files_of(command.page)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if command.words[0] in ("show", "report", "traces"):
        layout = write_traced_run(tmp_path / "runs")
        layout.ledger.mkdir(exist_ok=True)
        (layout.ledger / "attempt-001-rank-0.jsonl").write_text(json.dumps({"attempt": 1, "step": 1, "row": 0}) + "\n")
        shutil.copytree(tmp_path / "runs" / "toy", tmp_path / "runs" / "demo")
    words = [{"RUN": "toy", "FILE": "run.yaml"}.get(word, word) for word in command.words]
    if command.words[0] in ("plan", "deploy") and "--student-parameters" not in words:
        words += ["--student-parameters", "135M"]  # no model lies here to be measured
    ended = call(*words)
    # That this machine is too small is an answer as well, told beside the whole plan.
    too_small = command.words[0] == "plan" and "does not fit on this machine" in ended.err
    assert ended.code == (2 if too_small else 0), ended.err
    assert ended.out


def files_of(page: str) -> dict[str, str]:
    """Files that the page has in full: blocks that begin with their name in a comment."""
    named = [re.match(r"# ([\w-]+\.(?:yaml|py))\n", block) for _, block in blocks((ROOT / page).read_text())]
    return {match[1]: match.string for match in named if match}


def test_each_proof_is_there_and_asked_for() -> None:
    asked = {command.kind for command in COMMANDS if not command.runs_here}
    assert PROVEN.keys() == asked
    for proof in PROVEN.values():
        file, _, name = proof.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names or (not name and any(found.startswith("test_") for found in names)), proof


def test_the_task_of_the_how_to_works(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    files = files_of("docs/howto/own-task.md")
    (tmp_path / "capitals.py").write_text(files["capitals.py"])
    rows = [{"country": f"Country {n}", "capital": f"City {n}"} for n in range(5)]
    (tmp_path / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.syspath_prepend(tmp_path)
    from orpo_ray.config import parse_config
    from orpo_ray.tasks import Verdict
    from orpo_ray.tasks.split_of import split_of

    config = parse_config(yaml.safe_load(files["run.yaml"]))
    train = split_of(config.task, "train", config.seed)
    assert (len(train.rows()), len(split_of(config.task, "test", config.seed).rows())) == (3, 2)
    row = train.rows()[0]
    assert row.data["country"] in train.prompt(row)
    told: dict[str, Any] = {
        f"The answer is {row.data['capital']}.": Verdict.RIGHT,
        "The answer is Atlantis.": Verdict.WRONG,
        "I do not know.": Verdict.UNPARSED,
    }
    assert {text: train.classify(row, text) for text in told} == told
