"""Python imports this at its start where the folder is on PYTHONPATH: makes one process of a run die, or eat memory.

`CRASH_AT=<point>:<n>` kills at the n-th time that a process passes the point, `CRASH_AT=time:<seconds>` a worker that
long after its start; `CRASH_MARK` is the file that the first victim creates: after it nobody dies. The victim
of `CRASH_HOW=STOP` freezes instead.
`GREEDY=<pattern>:<MiB>` makes a worker take that much memory half-way through a day file whose URL matches; before, it
enters the control group `CGROUP`, or, where none is given, kills itself thereafter as the kernel would.
Without these variables nothing happens.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class _Fate:
    """Counts how often this process passes its point, and ends it there."""

    def __init__(self, at: int, mark: Path) -> None:
        self._at, self._mark, self._passed = at, mark, 0
        self._how = signal.Signals[f"SIG{os.environ.get('CRASH_HOW', 'KILL')}"]
        self._lock = threading.Lock()

    def passes(self) -> None:
        with self._lock:
            self._passed += 1
            if self._passed != self._at:
                return
        self.die()

    def die(self) -> None:
        try:
            with self._mark.open("x") as mark:
                mark.write(str(os.getpid()))
        except FileExistsError:
            return
        os.kill(os.getpid(), self._how)


def _around(call: Callable[..., Any], where: Callable[..., str], pattern: str, act: Callable[[], None], *, after: bool):
    """Return the call that acts before or after itself where its arguments lead to a matching place."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        hit = re.search(pattern, where(*args)) is not None
        if hit and not after:
            act()
        answer = call(*args, **kwargs)
        if hit and after:
            act()
        return answer

    return wrapped


def _part(chunks: Iterator[bytes], share: float, act: Callable[[], None]) -> Iterator[bytes]:
    """Yield a body of one or more pieces; act when so much of its first piece, or all of it, has been taken."""
    if share == 0:
        act()
    for number, piece in enumerate(chunks):
        if number == 0 and 0 < share < 1:
            cut = int(len(piece) * share)
            yield piece[:cut]
            act()
            yield piece[cut:]
        else:
            yield piece
    if share == 1:
        act()


def _on_bodies(pattern: str, change: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
    from runner.tardis.wire import Wire

    get = Wire.get

    def wrapped(self: Wire, url: str, key: str | None) -> Any:
        reply = get(self, url, key)
        if reply.status == 200 and re.search(pattern, url):
            chunks = reply.chunks()
            reply.chunks = lambda: change(chunks)
        return reply

    Wire.get = wrapped


def _crash(at: str, mark: Path, *, is_worker: bool) -> None:
    from runner.store.file import FileStore
    from tests.e2e.crash.points import POINTS, CrashPoint, Seam

    name, _, number = at.partition(":")
    if name == "time":
        if is_worker:
            timer = threading.Timer(float(number), _Fate(1, mark).die)
            timer.daemon = True
            timer.start()
        return
    point = POINTS[CrashPoint(name)]
    if point.is_worker is not is_worker:
        return
    fate = _Fate(int(number), mark)
    if point.seam is Seam.BODY:
        _on_bodies(point.pattern, lambda chunks: _part(chunks, point.share, fate.passes))
    elif point.seam is Seam.LINK:
        os.link = _around(os.link, lambda _, to: str(to), point.pattern, fate.passes, after=point.after)
    else:
        call = getattr(FileStore, point.seam)
        wrapped = _around(call, lambda _, key, *__: key, point.pattern, fate.passes, after=point.after)
        setattr(FileStore, point.seam, wrapped)


def _devour(greedy: str, cgroup: str | None) -> None:
    pattern, _, mib = greedy.rpartition(":")
    eaten: list[bytes] = []
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))

    def eat() -> None:
        eaten.extend(os.urandom(1024) * 1024 for _ in range(int(mib)))
        if not cgroup:
            os.kill(os.getpid(), signal.SIGKILL)

    _on_bodies(pattern, lambda chunks: _part(chunks, 0.5, eat))


def _arm(env: dict[str, str]) -> None:
    is_worker = "JOB_COMPLETION_INDEX" in env
    if (at := env.get("CRASH_AT")) and not (mark := Path(env["CRASH_MARK"])).exists():
        _crash(at, mark, is_worker=is_worker)
    if is_worker and (greedy := env.get("GREEDY")):
        _devour(greedy, env.get("CGROUP"))


_arm(dict(os.environ))
