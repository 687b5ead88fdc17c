"""A run from its start, or from wherever it stands, to its end: with dummy phases, no cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.controller import ORDER, Controller, Interrupted, PhaseState
from orpo_ray.controller.distillation import ChangedRunError
from orpo_ray.controller.record import read_record
from orpo_ray.errors import DataError, InputError, OrpoRayError
from orpo_ray.phases.context import RunContext
from tests.unit.controller.dummies import Toy, config

ALL = list(ORDER)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "runs")


def stop(context: RunContext) -> None:
    raise KeyboardInterrupt


def test_a_new_run_goes_through_every_phase_in_order(toy: Toy) -> None:
    assert toy.run(config()) == ALL
    assert toy.kinds("phase.start") == [("phase.start", name) for name in ALL]
    record = read_record(toy.layout(config()).state)
    assert record is not None
    assert record.state is PhaseState.DONE
    assert list(record.phases) == ALL
    assert {phase.state for phase in record.phases.values()} == {PhaseState.DONE}
    assert [phase.seconds for phase in record.phases.values()] == [10.0] * 6
    assert record.phases["TEACH"].started == "2023-11-14T22:13:30.000Z"  # 10 s after the clock's start
    assert record.phases["TEACH"].finished == "2023-11-14T22:13:40.000Z"
    assert record.config["sampling"]["k"] == 8


def test_the_same_configuration_finds_everything(toy: Toy) -> None:
    toy.run(config())
    toy.events.clear()
    assert toy.run(config()) == []
    assert toy.kinds("phase.found", "phase.start") == [("phase.found", name) for name in ALL]


def test_a_change_redoes_only_what_depends_on_it(toy: Toy) -> None:
    """Up to DISTILL, since no other phase may be redone once that has begun."""
    toy.phases["DISTILL"].does = stop
    with pytest.raises(Interrupted):
        toy.run(config())
    toy.phases["DISTILL"].does = lambda context: None
    assert toy.run(config(student={"model": "models/other"})) == ["SEED", "DISTILL", "EVALUATE", "EXPORT"]


def test_another_k_under_another_name_prepares_alone(toy: Toy) -> None:
    toy.run(config())
    assert toy.run(config(name="other", sampling={"k": 4})) == ALL
    assert toy.run(config()) == []


def test_what_is_free_to_change_changes_nothing(toy: Toy) -> None:
    toy.run(config())
    assert toy.run(config(resources={"threads": 2}, limits={"failures": 9})) == []


def test_lost_files_are_made_again_and_nothing_else(toy: Toy) -> None:
    toy.run(config())
    (toy.layout(config()).run / "SEED.out").unlink()
    assert toy.run(config()) == ["SEED"]
    assert ("note", {"text": "SEED: its files are gone, so it is done again"}) in toy.events


def test_a_result_reads_the_same_from_the_phase_as_from_the_file(toy: Toy) -> None:
    """JSON turns tuples into lists and numbers as keys into text: later keys must not notice."""
    teach = toy.phases["TEACH"]
    plain = teach.run
    teach.run = lambda context: plain(context) | {"pair": (1, 2), "histogram": {0: 5}}  # type: ignore[method-assign]
    toy.run(config())
    assert toy.run(config()) == []


def test_the_phases_are_those_of_a_run(toy: Toy) -> None:
    with pytest.raises(ValueError, match="PREPARE, TEACH, SEED, DISTILL, EVALUATE, EXPORT; given are TEACH"):
        Controller(config(), toy.layout(config()), [toy.phases["TEACH"]])


class TestChangedConfiguration:
    def test_is_refused_once_distill_is_done(self, toy: Toy) -> None:
        toy.run(config())
        with pytest.raises(ChangedRunError) as refused:
            toy.run(config(policy={"phi": 0.7}, train={"lambda": 0.1}))
        assert refused.value.problems == ["policy.phi: was 0.5, is 0.7", "train.lambda: was 1.0, is 0.1"]
        assert refused.value.exit_code == 2
        for word in ("policy.phi: was 0.5, is 0.7", "--set name=…", "--fresh", str(toy.layout(config()).run)):
            assert word in str(refused.value)

    def test_is_refused_once_a_checkpoint_is_committed(self, toy: Toy) -> None:
        def halfway(context: RunContext) -> None:
            toy.commit_checkpoint(context)
            raise KeyboardInterrupt

        toy.phases["DISTILL"].does = halfway
        with pytest.raises(Interrupted):
            toy.run(config())
        toy.phases["DISTILL"].does = lambda context: None
        with pytest.raises(ChangedRunError, match=r"seed: was 0, is 1"):
            toy.run(config(seed=1))
        assert toy.run(config()) == ["DISTILL", "EVALUATE", "EXPORT"]

    def test_is_welcome_while_no_checkpoint_is_committed_and_clears_what_was_left(self, toy: Toy) -> None:
        """The journal of another configuration would be replayed into this one."""
        journal = toy.layout(config()).journal / "block-0.parquet"

        def sampled(context: RunContext) -> None:
            journal.parent.mkdir()
            journal.touch()
            raise KeyboardInterrupt

        toy.phases["DISTILL"].does = sampled
        with pytest.raises(Interrupted):
            toy.run(config())
        assert journal.exists()
        toy.phases["DISTILL"].does = lambda context: None
        assert toy.run(config(policy={"phi": 0.7})) == ["DISTILL", "EVALUATE", "EXPORT"]
        assert not journal.exists()

    def test_the_same_configuration_keeps_what_was_sampled(self, toy: Toy) -> None:
        journal = toy.layout(config()).journal

        def sampled(context: RunContext) -> None:
            journal.mkdir()
            raise KeyboardInterrupt

        toy.phases["DISTILL"].does = sampled
        with pytest.raises(Interrupted):
            toy.run(config())
        toy.phases["DISTILL"].does = lambda context: None
        toy.run(config())
        assert journal.exists()

    def test_what_the_initial_student_was_found_to_know_stays_where_the_distillation_begins(self, toy: Toy) -> None:
        """SEED begins its evaluation, and trackers are told of it before DISTILL begins."""
        layout = toy.layout(config())
        files = [layout.evaluations / "epoch-000-test.json", layout.tensorboard / "events", layout.tracked]

        def evaluated(context: RunContext) -> None:
            for file in files:
                file.parent.mkdir(exist_ok=True)
                file.touch()
            layout.metrics.touch()

        toy.phases["SEED"].does = evaluated
        toy.run(config())
        assert all(file.exists() for file in files)
        assert not layout.metrics.exists(), "of a distillation that got to no checkpoint"

    def test_fresh_starts_the_distillation_anew_and_finds_the_traces(self, toy: Toy) -> None:
        toy.phases["DISTILL"].does = toy.commit_checkpoint
        toy.run(config())
        toy.phases["DISTILL"].does = lambda context: None
        layout = toy.layout(config())
        gone = [
            layout.checkpoints,
            layout.weights,
            layout.ledger,
            layout.evaluations,
            layout.tensorboard,
            layout.metrics,
        ]
        for directory in (*gone[1:-1], layout.pairs):
            directory.mkdir()
        layout.metrics.touch()
        assert toy.run(config(policy={"phi": 0.7}), fresh=True) == ["DISTILL", "EVALUATE", "EXPORT"]
        assert [path for path in gone if path.exists()] == []
        assert layout.pairs.exists()
        with pytest.raises(ChangedRunError, match=r"was 0\.7, is 0\.5"):
            toy.run(config())

    @pytest.mark.parametrize(
        ("changes", "redone"),
        [
            ({"eval": {"max_tokens": 20}}, ["TEACH", "EVALUATE", "EXPORT"]),
            ({"task": {"name": "arithmetic", "test_size": 20}}, ["TEACH", "EVALUATE", "EXPORT"]),
            (
                {
                    "task": {"name": "arithmetic", "test_size": 10, "validation_size": 5},
                    "export": {"select": "best"},
                },
                ["TEACH", "EVALUATE", "EXPORT"],
            ),
            ({"eval": {"samples_kept": 9}, "tracking": {"tensorboard": False}}, []),
            ({"student": {"model": "models/student", "engine": {"kv_cache_mib": 64, "max_num_seqs": 8}}}, []),
        ],
    )
    def test_of_the_evaluation_redoes_the_evaluation_alone(
        self, toy: Toy, changes: dict[str, Any], redone: list[str]
    ) -> None:
        """TEACH finds its traces, and scores the teacher anew."""
        toy.run(config())
        assert toy.run(config(**changes)) == redone

    def test_of_the_evaluation_is_welcome_from_a_checkpoint_on(self, toy: Toy) -> None:
        def halfway(context: RunContext) -> None:
            toy.commit_checkpoint(context)
            raise KeyboardInterrupt

        toy.phases["DISTILL"].does = halfway
        with pytest.raises(Interrupted):
            toy.run(config())
        toy.phases["DISTILL"].does = lambda context: None
        redone = toy.run(config(eval={"max_tokens": 20}))
        assert redone == ["TEACH", "DISTILL", "EVALUATE", "EXPORT"]
        assert toy.layout(config()).checkpoints.exists()

    def test_of_the_test_split_is_refused_where_it_moves_training_rows_and_named(self, toy: Toy) -> None:
        task = {"name": "gsm8k", "path": "rows.jsonl", "test_size": 10}
        toy.run(config(task=task))
        with pytest.raises(ChangedRunError) as refused:
            toy.run(config(task=task | {"test_size": 20}))
        assert refused.value.problems[0] == "task.test_size: was 10, is 20"
        assert refused.value.problems[1].startswith(
            "the task's rows, the teacher's weights or its recorded traces have"
        )
        assert toy.phases["TEACH"].runs == 1

    def test_changed_inputs_are_refused_before_any_work(self, toy: Toy) -> None:
        """A data file or a model directory under the same name may hold something else by now."""
        toy.run(config())
        toy.phases["SEED"].key = lambda context: "0123456789abcdef"  # type: ignore[method-assign]
        with pytest.raises(ChangedRunError, match=r"the teacher's traces or the student's weights have changed"):
            toy.run(config())
        assert toy.phases["SEED"].runs == 1

    def test_checkpoints_of_unknown_origin_are_refused(self, toy: Toy) -> None:
        (toy.layout(config()).checkpoints / "step-000010").mkdir(parents=True)
        with pytest.raises(InputError, match=r"does not say what they were trained with.*--fresh"):
            toy.run(config())
        assert toy.run(config(), fresh=True) == ALL

    def test_a_half_written_checkpoint_does_not_count(self, toy: Toy) -> None:
        (toy.layout(config()).checkpoints / "step-000010.partial").mkdir(parents=True)
        assert toy.run(config()) == ALL


class TestInterrupted:
    def test_the_record_says_so_and_the_message_how_to_go_on(self, toy: Toy) -> None:
        toy.phases["SEED"].does = stop
        with pytest.raises(Interrupted) as interrupted:
            toy.run(config())
        message = "stopped in SEED; what is finished is kept. Go on with\n  orpo-ray run toy.yaml"
        assert str(interrupted.value) == message
        assert interrupted.value.exit_code == 130
        record = read_record(toy.layout(config()).state)
        assert record is not None
        assert record.state is PhaseState.INTERRUPTED
        assert {name: phase.state for name, phase in record.phases.items()} == {
            "PREPARE": PhaseState.DONE,
            "TEACH": PhaseState.DONE,
            "SEED": PhaseState.INTERRUPTED,
        }
        assert toy.kinds("run.interrupted") == [("run.interrupted", "SEED")]

    def test_a_second_start_goes_on_and_adds_the_time_up(self, toy: Toy) -> None:
        toy.phases["SEED"].does = stop
        with pytest.raises(Interrupted):
            toy.run(config())
        toy.phases["SEED"].does = lambda context: None
        assert toy.run(config()) == ["SEED", "DISTILL", "EVALUATE", "EXPORT"]
        record = read_record(toy.layout(config()).state)
        assert record is not None
        assert record.phases["SEED"].seconds == 20.0

    def test_a_killed_start_is_gone_on_from(self, toy: Toy) -> None:
        """SIGKILL leaves `running` behind."""
        toy.run(config())
        state = toy.layout(config()).state
        data = json.loads(state.read_text())
        data["state"] = data["phases"]["EXPORT"]["state"] = "running"
        state.write_text(json.dumps(data))
        assert toy.run(config()) == ["EXPORT"]


class TestFailed:
    def test_an_error_of_ours_passes_and_is_on_record(self, toy: Toy) -> None:
        def broken(context: RunContext) -> None:
            raise DataError("rows.jsonl, line 3: no field `question`")

        toy.phases["PREPARE"].does = broken
        with pytest.raises(DataError, match=r"^rows.jsonl, line 3: no field `question`$"):
            toy.run(config())
        record = read_record(toy.layout(config()).state)
        assert record is not None
        assert record.state is PhaseState.FAILED
        assert record.error == record.phases["PREPARE"].error == "rows.jsonl, line 3: no field `question`"

    def test_an_error_of_ours_is_found_inside_others(self, toy: Toy) -> None:
        def wrapped(context: RunContext) -> None:
            try:
                raise DataError("rows.jsonl, line 3: no field `question`")
            except DataError as cause:
                raise RuntimeError("ray::MapBatches failed\nTraceback …") from cause

        toy.phases["TEACH"].does = wrapped
        with pytest.raises(DataError, match=r"^rows.jsonl, line 3: no field `question`$"):
            toy.run(config())

    def test_any_other_error_names_the_phase(self, toy: Toy) -> None:
        def dies(context: RunContext) -> None:
            raise RuntimeError("The actor died.\n  worker 17 exited")

        toy.phases["DISTILL"].does = dies
        with pytest.raises(OrpoRayError, match=r"^DISTILL failed: RuntimeError: worker 17 exited\n") as failed:
            toy.run(config())
        assert failed.value.exit_code == 1
        lines = toy.layout(config()).events.read_text().splitlines()
        assert "worker 17 exited" in json.loads(lines[-1])["traceback"]

    def test_a_key_that_cannot_be_made_is_the_phases_error(self, toy: Toy) -> None:
        def no_key(context: RunContext) -> str:
            raise DataError("rows.jsonl: no such file")

        toy.phases["TEACH"].key = no_key  # type: ignore[method-assign]
        with pytest.raises(DataError):
            toy.run(config())
        record = read_record(toy.layout(config()).state)
        assert record is not None
        assert (record.state, record.error) == (PhaseState.FAILED, "rows.jsonl: no such file")

    def test_the_next_start_tries_again(self, toy: Toy) -> None:
        def dies(context: RunContext) -> None:
            raise RuntimeError

        toy.phases["TEACH"].does = dies
        with pytest.raises(OrpoRayError, match="TEACH failed: RuntimeError: without a message"):
            toy.run(config())
        toy.phases["TEACH"].does = lambda context: None
        assert toy.run(config()) == ALL[1:]


def test_a_storage_that_cannot_be_written_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    toy = Toy(tmp_path / "file")
    with pytest.raises(InputError, match=r"storage\.path: .*file/toy cannot be written \(Not a directory\)"):
        toy.run(config())
    assert sum(phase.runs for phase in toy.phases.values()) == 0
