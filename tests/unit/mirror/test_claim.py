"""One driver writes to a mirror at a time, also where two machines have no lock in common."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_ray.errors import InputError
from orpo_ray.mirror.claim import BEAT_S, DRIVER, WATCH_S, Claim, TakenOverError
from orpo_ray.mirror.place import Place, open_place


class Clock:
    """Monotonic seconds, as the test has them; `sleeps` lets them go by, and others act meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now, self._meanwhile = 0.0, meanwhile

    def __call__(self) -> float:
        return self.now

    def sleeps(self, seconds: float) -> None:
        self.now += seconds
        self._meanwhile()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place((tmp_path / "mirror").as_uri())


def there(place: Place) -> dict[str, object]:
    content = place.read(DRIVER)
    assert content is not None
    found: dict[str, object] = json.loads(content)
    return found


def test_a_driver_says_that_it_is_there_and_takes_it_back(place: Place) -> None:
    claim = Claim(place, Path("/a"))
    claim.take()
    assert there(place)["storage"] == "/a"
    claim.release()
    assert place.read(DRIVER) is None


def test_a_driver_that_lives_keeps_others_out(place: Place) -> None:
    clock = Clock(lambda: lives.beat())
    lives = Claim(place, Path("/a"), clock)
    lives.take()
    with pytest.raises(InputError, match=r"another process works on this run \(pid \d+ on .*, since .*\)"):
        Claim(place, Path("/b"), clock).take(clock.sleeps)
    assert clock.now <= BEAT_S


def test_a_driver_that_is_dead_is_watched_and_followed(place: Place) -> None:
    clock = Clock()
    Claim(place, Path("/a"), clock).take()
    Claim(place, Path("/b"), clock).take(clock.sleeps)
    assert there(place)["storage"] == "/b"
    assert clock.now == pytest.approx(WATCH_S)


def test_a_driver_of_the_same_directory_is_dead_since_its_lock_is_free(place: Place) -> None:
    clock = Clock()
    Claim(place, Path("/a"), clock).take()
    Claim(place, Path("/a"), clock).take(clock.sleeps)
    assert clock.now == 0


def test_a_driver_that_ends_meanwhile_is_waited_for_no_longer(place: Place) -> None:
    clock = Clock(lambda: place.remove(DRIVER))
    Claim(place, Path("/a"), clock).take()
    Claim(place, Path("/b"), clock).take(clock.sleeps)
    assert clock.now == 1


def test_signs_of_life_are_given_now_and_then(place: Place) -> None:
    clock = Clock()
    claim = Claim(place, Path("/a"), clock)
    claim.take()
    for _ in range(25):
        clock.now += 1
        claim.beat()
    assert there(place)["beat"] == 2


@pytest.mark.parametrize("ended", [False, True])
def test_one_that_was_taken_for_dead_writes_no_more(place: Place, ended: bool) -> None:
    clock = Clock()
    slow, other = Claim(place, Path("/a"), clock), Claim(place, Path("/b"), clock)
    slow.take()
    other.take(clock.sleeps)
    if ended:
        other.release()
    for act in (slow.check, slow.beat, slow.release):
        with pytest.raises(TakenOverError, match="was taken over by another driver"):
            act()
    assert (place.read(DRIVER) is None) is ended
