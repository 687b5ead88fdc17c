"""Who may have which version, and when it goes."""

import pytest

from orpo_ray.errors import StaleAttemptError
from orpo_ray.weights import Shelf, Version


def version(number: int, epoch: int | None = None) -> Version:
    return Version(number, f"v{number}", step=number, epoch=epoch)


def started(attempt: int = 1) -> Shelf:
    shelf = Shelf(version(0))
    shelf.start_attempt(attempt, version(0))
    return shelf


def test_a_version_goes_once_nobody_reads_it() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.hold("a", "v1")
    shelf.hold("b", "v1")
    shelf.publish(1, version(2))
    assert shelf.take_removable() == []
    shelf.release("a", "v1")
    assert shelf.take_removable() == []
    shelf.release("b", "v1")
    assert shelf.take_removable() == [version(1)]
    assert shelf.take_removable() == []


def test_two_holds_of_one_reader_are_two() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.hold("a", "v1")
    shelf.hold("a", "v1")
    shelf.publish(1, version(2))
    shelf.release("a", "v1")
    assert shelf.take_removable() == []
    shelf.release("a", "v1")
    assert shelf.take_removable() == [version(1)]


def test_the_initial_student_and_the_newest_stay() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    assert shelf.take_removable() == []
    assert shelf.newest == version(1)


def test_a_pinned_version_stays_until_another_is_pinned() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.pin({1})
    shelf.publish(1, version(2))
    assert shelf.take_removable() == []
    shelf.pin({2})
    assert shelf.take_removable() == [version(1)]


def test_the_holds_of_a_dead_reader_end() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.hold("dead", "v1")
    shelf.publish(1, version(2))
    shelf.drop_reader("dead")
    assert shelf.take_removable() == [version(1)]


def test_calls_of_an_older_attempt_are_refused() -> None:
    shelf = started(1)
    shelf.publish(1, version(1))
    shelf.start_attempt(2, version(0))
    assert shelf.newest == version(0), "what was published after the checkpoint belongs to a dead timeline"
    with pytest.raises(StaleAttemptError, match="attempt 1 came while attempt 2"):
        shelf.publish(1, version(2))
    with pytest.raises(StaleAttemptError):
        shelf.start_attempt(2, version(0))


def test_versions_that_an_earlier_attempt_left_go_too() -> None:
    shelf = Shelf(version(0))
    shelf.start_attempt(4, version(3), older=[version(1), version(2)])
    assert shelf.take_removable() == [version(1), version(2)]


def test_versions_are_published_in_turn() -> None:
    with pytest.raises(ValueError, match="version 2 published after version 0"):
        started().publish(1, version(2))


def test_a_reader_that_lasts_keeps_what_the_next_attempt_finds() -> None:
    shelf = Shelf(version(0), lasting=frozenset(["evaluator"]))
    shelf.start_attempt(1, version(0))
    for number in (1, 2, 3):
        shelf.publish(1, version(number))
    for reader in ("evaluator", "sampler"):
        shelf.hold(reader, "v1")
        shelf.hold(reader, "v3")
    shelf.start_attempt(2, version(2), older=[version(1)])
    assert shelf.held_by("evaluator") == {"v1"}, "v3 belonged to the dead timeline"
    assert shelf.held_by("sampler") == set()


def test_a_late_release_does_not_free_the_same_number_of_the_next_attempt() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.hold("a", "v1")
    shelf.start_attempt(2, version(0))
    shelf.publish(2, Version(1, "v1-again", step=1))
    shelf.hold("a", "v1-again")
    shelf.release("a", "v1")
    shelf.publish(2, version(2))
    assert shelf.take_removable() == []


def test_a_reader_can_say_all_that_it_holds() -> None:
    shelf = started()
    shelf.publish(1, version(1))
    shelf.publish(1, version(2))
    shelf.hold("a", "v1")
    shelf.hold_only("a", {"v2"})
    assert shelf.held_by("a") == {"v2"}
    assert shelf.take_removable() == [version(1)]
