"""Signals: the first stops cleanly, the second ends all, also where a library took the handler."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from orpo_ray.controller.stopping import Interrupted, StopSignals


def test_the_first_signal_raises_in_the_main_thread_once() -> None:
    with StopSignals(kill_hard=lambda number: None) as signals:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.first == signal.SIGTERM


def test_the_second_signal_kills_hard() -> None:
    killed: list[int] = []
    done = threading.Event()

    def kill(number: int) -> None:
        killed.append(number)
        done.set()

    with StopSignals(kill_hard=kill):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert done.wait(5)
    assert killed == [signal.SIGINT]


def test_signals_are_counted_under_a_librarys_own_handler() -> None:
    done = threading.Event()
    with StopSignals(kill_hard=lambda number: done.set()) as signals:
        signal.signal(signal.SIGINT, lambda number, frame: None)  # as Ray Train does while it trains
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert done.wait(5)
        assert signals.first == signal.SIGINT


def test_handlers_are_taken_back_and_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(kill_hard=lambda number: None) as signals:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signals.rearm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_exit_code_says_which_signal() -> None:
    assert Interrupted("stopped").exit_code == 130
    assert Interrupted("stopped", signal.SIGTERM).exit_code == 143


HANG = """
import os, signal, subprocess, time
from orpo_ray.controller.stopping import StopSignals
child = subprocess.Popen(["sleep", "60"])
with StopSignals():
    while True:
        try:
            print(child.pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("stopping", flush=True)
            time.sleep(60)
"""


def test_a_second_ctrl_c_ends_the_process_and_all_below_it() -> None:
    with subprocess.Popen([sys.executable, "-c", HANG], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    # A killed child stays as a zombie at most, until whoever adopts it looks.
    try:
        with open(f"/proc/{child}/stat") as stat:
            assert stat.read().split()[2] == "Z"
    except FileNotFoundError:
        pass
