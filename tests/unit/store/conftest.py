from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

WRITER = Path(__file__).with_name("writer.py")


class Writer:
    """A process of writer.py, its commands and answers."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(WRITER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.child: int | None = None

    def start(self, **command: object) -> None:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        self.child = None

    def answer(self) -> dict:
        """Wait for the next answer, except for the child's process id, which is kept."""
        line = self.process.stdout.readline()
        assert line, f"writer ended with {self.process.wait()}"
        answer = json.loads(line)
        if "pid" in answer:
            self.child = answer["pid"]
            return self.answer()
        if "status" in answer:
            self.child = None
        return answer

    def until(self, name: str) -> dict:
        while name not in (answer := self.answer()):
            assert "status" not in answer, answer
        # It says so before it is: to be woken, it must have stopped.
        while name == "frozen" and _state(self.child) != "T":
            time.sleep(0.001)
        return answer

    def end(self) -> dict:
        """Return all that the command answered, as one; the last of a name wins."""
        answers: dict = {}
        while "status" not in answers:
            answers |= self.answer()
        return answers

    def do(self, **command: object) -> dict:
        self.start(**command)
        return self.end()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        os.kill(self.child, signum)

    def close(self) -> None:
        if self.child is not None:
            with suppress(ProcessLookupError):
                self.kill()
        self.process.kill()
        self.process.communicate()


def _state(pid: int) -> str:
    """Return what a process does, as `ps` has it: T is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def writers() -> Iterator[Callable[..., Writer]]:
    made: list[Writer] = []

    def make(prefix: Sequence[str] = ()) -> Writer:
        made.append(Writer(prefix))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


@pytest.fixture
def writer(writers: Callable[..., Writer]) -> Writer:
    return writers()
