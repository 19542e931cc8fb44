"""The process: `python -m runner` and the installed `runner` begin and end here."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

_DRAINED = 143
"""The worker's exit code for this (errors.py): not imported yet when it is needed."""


def program() -> NoReturn:
    """Do what the command line says and end the process with its exit code."""
    if sys.argv[1:2] == ["worker"]:
        # The kernel keeps SIGTERM from a container's first process until that listens, and importing takes seconds in
        # which a pod that is evicted would begin its shard and be killed at it. Nothing is begun yet: go at once.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_DRAINED))
    codes: list[int] = []
    # First registered is last called: other threads are joined by then, and everybody else has cleaned up.
    atexit.register(_leave, codes)
    from runner.cli import main  # noqa: PLC0415 - what it imports registers after us

    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    """End the process now, unless an exception is about to end it.

    Taking the interpreter apart aborts the process when a thread of a library in C++ asks for its lock meanwhile: the
    lock is refused by unwinding the thread's stack, which C++ answers with std::terminate. Arrow has such threads.
    """
    if codes:
        for stream in (sys.stdout, sys.stderr):
            # `main` has told what could not be written; None where the process was started without the stream.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    program()
