"""A process that uses a store and dies, or freezes, at the system call it is told to. No test: tests start it.

Reads one JSON command a line and forks a child for each, which answers in JSON lines on stdout; the last line of a
command is {"status": n}, the child's exit status as `subprocess` gives it (-9: killed).
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import resource
import signal
import sys
import time
from itertools import count
from pathlib import Path
from random import Random

import google_crc32c

from runner.errors import NotFoundError, PreconditionError, RunnerError
from runner.store import ABSENT, Store, open_store

STEPS = ("open", "write", "utime", "fsync", "mkdir", "rmdir", "link", "replace", "unlink")


def say(**answer: object) -> None:
    os_write(1, json.dumps(answer).encode() + b"\n")


os_write = os.write


class Fate:
    """Decides at each step of the store whether this process dies, or freezes, before it."""

    def __init__(self, *, die_at: int | None, freeze_at: list[str]) -> None:
        self._die_at = die_at
        self._freeze_at = freeze_at
        self._steps = 0
        for name in STEPS:
            setattr(os, name, self._guard(name, getattr(os, name)))
        io.open = self._guard("read", io.open)  # pathlib reads through it
        fcntl.flock = self._tell_of_waiting(self._guard("flock", fcntl.flock))

    def _guard(self, name: str, call):
        def step(*args, **kwargs):
            self._steps += name != "read"
            if name != "read" and self._steps == self._die_at:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if self._freeze_at and name == self._freeze_at[0]:
                self._freeze_at.pop(0)
                if not self._freeze_at:
                    say(frozen=os.getpid())
                    os.kill(os.getpid(), signal.SIGSTOP)
            return call(*args, **kwargs)

        return step

    def _tell_of_waiting(self, call):
        told = []

        def flock(*args):
            try:
                return call(*args)
            except BlockingIOError:
                if not told:
                    told.append(True)
                    say(waiting=os.getpid())
                raise

        return flock


def put(store: Store, command: dict) -> None:
    body = Path(command["path"]) if "path" in command else command["body"].encode() * command.get("times", 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info = store.put(
        command["key"], body, if_generation=command.get("if_generation", ABSENT), metadata=command.get("metadata")
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    say(generation=info.generation, grown_kib=grown)


def delete(store: Store, command: dict) -> None:
    say(deleted=store.delete(command["key"], if_generation=command.get("if_generation")))


def head(store: Store, command: dict) -> None:
    info = store.head(command["key"])
    say(facts=info and [info.generation, info.crc32c, dict(info.metadata)])


def read(store: Store, command: dict) -> None:
    listed = list(store.list(""))
    say(keys=[info.key for info in listed], bodies=[store.get(info.key).decode() for info in listed])


def tree(store: Store, command: dict) -> None:
    root = Path(store.url.removeprefix("file://"))
    say(files=sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()))


def count_up(store: Store, command: dict) -> None:
    """Increment a counter by swaps and tell of each one that succeeded."""
    for _ in range(command["times"]):
        while True:
            info = store.head(command["key"])
            try:
                value = int(store.get(info.key, if_generation=info.generation)) + 1
                made = store.put(info.key, b"%d" % value, if_generation=info.generation)
            except PreconditionError:
                continue
            say(before=info.generation, after=made.generation, value=value)
            break


def churn(store: Store, command: dict) -> None:
    """Create, swap and delete for ever; each body says in its metadata what it is."""
    random = Random(command["seed"])
    for step in count():
        key = f"d{random.randrange(2)}/k{random.randrange(3)}"
        body = bytes([65 + random.randrange(26)]) * random.randrange(1, 200_000)
        facts = {"crc": str(google_crc32c.value(body)), "size": str(len(body)), "pad": "x" * random.randrange(4000)}
        info = store.head(key)
        try:
            if info is not None and random.random() < 0.3:
                store.delete(key, if_generation=info.generation)
            else:
                store.put(key, body, if_generation=info.generation if info else ABSENT, metadata=facts)
        except (PreconditionError, NotFoundError):
            pass
        say(step=step)


DEEDS = {"put": put, "delete": delete, "head": head, "read": read, "tree": tree, "count_up": count_up, "churn": churn}


def obey(command: dict) -> None:
    store = open_store(command["url"])
    store.head("warm/up")
    if "fsize" in command:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["fsize"], command["fsize"]))
    if "uid" in command:
        os.setuid(command["uid"])
    Fate(die_at=command.get("die_at"), freeze_at=command.get("freeze_at", []))
    started = time.monotonic()
    try:
        DEEDS[command["do"]](store, command)
    except RunnerError as error:
        say(error=type(error).__name__, message=str(error))
    say(took_s=time.monotonic() - started)


def serve() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            obey(json.loads(line))
            os._exit(0)
        say(pid=pid)
        say(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    serve()
