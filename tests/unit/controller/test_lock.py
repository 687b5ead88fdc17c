"""One process works on a run at a time; a dead one's lock is nobody's."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orpo_ray.controller.lock import RunLock, lock_holder
from orpo_ray.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from orpo_ray.controller.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "toy" / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_works_on_the_run(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    file = tmp_path / "toy" / "lock"
    with pytest.raises(InputError) as refused, RunLock(file):
        pass
    for part in (str(tmp_path / "toy"), f"pid {other.pid} on {socket.gethostname()}", "--set name=…"):
        assert part in str(refused.value)
    holder = lock_holder(file)
    assert holder is not None
    assert holder.pid == other.pid


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    file = tmp_path / "toy" / "lock"
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock_holder(file) is None
    with RunLock(file):
        holder = lock_holder(file)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert lock_holder(file) is None


def test_a_process_that_starts_from_the_holder_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """Ray's daemons outlive a killed driver for a moment."""
    file = tmp_path / "lock"
    with RunLock(file):
        child = subprocess.Popen(["sleep", "60"])
    with child, RunLock(file):
        holder = lock_holder(file)
        child.kill()
    assert holder is not None


def test_looking_at_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert lock_holder(tmp_path / "lock") is None


def test_somebody_who_only_looks_is_waited_for(tmp_path: Path) -> None:
    import fcntl
    import threading

    file = tmp_path / "lock"
    file.touch()
    with file.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, looking.close).start()
        began = time.monotonic()
        with RunLock(file):
            assert time.monotonic() - began < 1
