"""Being told to stop: by whom, and that the first word stands. Signals to real processes are in tests/e2e."""

import os
import signal
from collections.abc import Iterator

import pytest

from runner.worker.stop import Stop


@pytest.fixture
def installed() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = Stop()
    stop.install()
    yield stop
    for number, action in before.items():
        signal.signal(number, action)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_whose_word_it_was(installed: Stop, number: signal.Signals) -> None:
    assert not installed.event.is_set()
    os.kill(os.getpid(), number)
    assert installed.event.wait(60)
    assert (installed.reason, installed.preempted) == (number.name, number == signal.SIGTERM)


def test_the_first_word_stands(installed: Stop) -> None:
    installed.now("the key was refused")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (installed.reason, installed.preempted) == ("the key was refused", False)


def test_a_lost_parent_is_a_word_and_no_preemption() -> None:
    mine, lost, none = Stop(os.getppid()), Stop(os.getppid() + 1), Stop()
    for stop in (mine, lost, none):
        stop.look_for_parent()
    assert [stop.event.is_set() for stop in (mine, lost, none)] == [False, True, False]
    assert "started this worker is gone" in lost.reason
    assert not lost.preempted


def test_there_is_time_to_drain_after_the_word() -> None:
    stop = Stop()
    assert not stop.overdue
    stop.now("x")
    assert not stop.overdue
