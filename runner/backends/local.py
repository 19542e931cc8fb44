"""Shards as processes of this machine: the same worker and environment as a pod's, retried by the same exit-code table.

Nothing here is needed to know the state of a run: kill this process and the next submit goes on from the store.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runner import ledger
from runner.backends.sight import Sight
from runner.errors import Action, ConfigError, RunnerError, SpecError, WorkerExit, action_for
from runner.run_record import RunRecord
from runner.spec import RunSpec
from runner.store import ABSENT, Store

_LOOK_S = 0.05
_DRAIN_S = 15.0
# What Linux takes for one variable: name, "=", value and a NUL (MAX_ARG_STRLEN, execve(2)).
_VARIABLE_BYTES = 131_072
_INTERRUPTED = (int(WorkerExit.DRAINED), -signal.SIGTERM)

_HELD = ".held"
"""Locked by the supervisor whose scratch it lies in."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look(Sight):
    """What the supervisor sees: process ids of shards at work, seconds until shards start again, last exit codes."""

    running: Mapping[int, int] = field(default_factory=dict)
    waiting: Mapping[int, float] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Process:
    shard: int
    attempt: str
    popen: subprocess.Popen[bytes]
    output: IO[bytes]


@dataclass(slots=True)
class _State:
    """Shards by what they do: ready (a heap of (time, shard)), running, ended (exit codes)."""

    ready: list[tuple[float, int]]
    running: dict[int, _Process] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)


def check_size(spec: RunSpec) -> None:
    """Raise SpecError when a spec is too long for the environment of a worker."""
    size = len(f"RUNNER_SPEC={spec.to_json()}".encode()) + 1
    if size > _VARIABLE_BYTES:
        raise SpecError(
            f"the request is too long for a worker's environment: {size:,} bytes, at most {_VARIABLE_BYTES:,}; "
            f"give fewer --instruments ({len(spec.instruments):,} now), patterns for many, or several requests"
        )


@contextmanager
def _scratch(run: str) -> Iterator[str]:
    """Yield a directory for a run's workers. Raises RunnerError when there is no room for one."""
    with ExitStack() as made:
        try:
            directory = made.enter_context(tempfile.TemporaryDirectory(prefix=f"{run}-"))
            held = made.enter_context((Path(directory) / _HELD).open("wb"))
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as e:
            where = e.filename or tempfile.gettempdir()
            raise RunnerError(f"{where}: {e.strerror}; free space there, or set TMPDIR to another place") from e
        yield directory


class Supervisor:
    """Runs a run's shards, `spec.parallelism` at a time. `env` is what workers inherit beside their own variables."""

    def __init__(self, record: RunRecord, spec: RunSpec, store: Store, env: Mapping[str, str]) -> None:
        self._record, self._spec, self._store = record, spec, store
        self._env = dict(env)
        self._workers = max(1, min(spec.parallelism, record.shards))

    def run(self, shards: Iterable[int], stop: Callable[[], bool], look: Callable[[Look], None]) -> Mapping[int, int]:
        """Run shards to their end, or drain them once `stop()` is true; return each ended shard's last exit code.

        A shard that was drained, or never begun, has no exit code in the result.
        """
        state = _State(ready=[(0.0, shard) for shard in shards])
        heapq.heapify(state.ready)
        with _scratch(self._record.id) as directory:
            try:
                while (state.ready or state.running) and not stop():
                    self._start_ready(state, Path(directory))
                    time.sleep(_LOOK_S)
                    if self._reap(state):
                        break
                    look(_look(state))
            finally:
                self._drain(state)
        self._sweep()
        look(_look(state))
        return state.ended

    def _sweep(self) -> None:
        """Remove the scratch of supervisors of this run that were killed: nobody holds it."""
        for left in Path(tempfile.gettempdir()).glob(f"{self._record.id}-????????"):
            with suppress(OSError), (left / _HELD).open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)

    def _start_ready(self, state: _State, directory: Path) -> None:
        now = time.monotonic()
        while state.ready and state.ready[0][0] <= now and len(state.running) < self._workers:
            shard = heapq.heappop(state.ready)[1]
            state.running[shard] = self._start(shard, directory)

    def _start(self, shard: int, directory: Path) -> _Process:
        attempt = uuid.uuid4().hex
        env = {
            **self._env,
            "RUNNER_RUN": self._record.id,
            "RUNNER_SPEC": self._spec.to_json(),
            "JOB_COMPLETION_INDEX": str(shard),
            "RUNNER_ATTEMPT": attempt,
            "RUNNER_WORKERS": str(self._workers),
            "RUNNER_PARENT": str(os.getpid()),
            "RUNNER_SCRATCH": str(directory),
        }
        output = (directory / f"{attempt}.log").open("w+b")
        popen = subprocess.Popen(
            [sys.executable, "-m", "runner", "worker"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for us; we tell the workers
        )
        return _Process(shard, attempt, popen, output)

    def _reap(self, state: _State) -> bool:
        """Take note of workers that ended; tell whether one of them ends the run."""
        refused = False
        for process in [p for p in state.running.values() if p.popen.poll() is not None]:
            del state.running[process.shard]
            code = process.popen.returncode
            self._save_log(process)
            action = action_for(code)
            if action is Action.FAIL_RUN:
                log.error("shard %d ended with %s: the whole run stops", process.shard, _ending(code))
                refused = True
            if action is not Action.RETRY or not self._retry(state, process.shard, code):
                state.ended[process.shard] = code
        return refused

    def _retry(self, state: _State, shard: int, code: int) -> bool:
        """Put a shard back with back-off; a preemption is not counted. Tell whether it has a try left."""
        failures = state.failures.get(shard, 0) + (code not in _INTERRUPTED)
        state.failures[shard] = failures
        if failures > self._spec.retry.limit:
            log.error("shard %d given up after %d failures, last exit %d", shard, failures, code)
            return False
        pause = min(self._spec.retry.backoff_s * 2 ** max(0, failures - 1), self._spec.retry.backoff_max_s)
        log.warning("shard %d ended with %s, again in %.1f s", shard, _ending(code), pause)
        heapq.heappush(state.ready, (time.monotonic() + pause, shard))
        return True

    def _save_log(self, process: _Process) -> None:
        """Keep the log of a worker that could not do so itself."""
        with process.output as output:
            if action_for(process.popen.returncode) in (Action.COMPLETE, Action.FAIL_SHARD):
                return
            output.seek(0)
            try:
                ledger.write_log(self._store, self._record.id, (process.shard, process.attempt), output.read(), ABSENT)
            except RunnerError as e:
                log.warning("log of shard %d not kept: %s", process.shard, e)

    def _drain(self, state: _State) -> None:
        """Ask all workers to stop, and end those that do not."""
        for process in state.running.values():
            process.popen.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _DRAIN_S
        for process in state.running.values():
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
            self._save_log(process)
            if action_for(process.popen.returncode) is not Action.RETRY:
                state.ended[process.shard] = process.popen.returncode
        state.running.clear()


def _look(state: _State) -> Look:
    now = time.monotonic()
    return Look(
        running={shard: process.popen.pid for shard, process in state.running.items()},
        waiting={shard: max(0.0, at - now) for at, shard in state.ready if shard in state.failures},
        ended=dict(state.ended),
    )


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


@contextmanager
def supervising(directory: Path, store_url: str, run: str) -> Iterator[bool]:
    """Hold the right to supervise a run on this machine; yields whether it was free.

    The kernel gives it back when its holder dies, however that happens.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = _lock_file(directory, store_url, run).open("a+b")
    except OSError as e:
        raise ConfigError(f"{directory}: no lock can be kept there ({e.strerror}); set XDG_STATE_HOME") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def supervised(directory: Path, store_url: str, run: str) -> bool:
    """Tell whether a process of this machine holds that right; looking changes nothing for others who look."""
    try:
        file = _lock_file(directory, store_url, run).open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock_file(directory: Path, store_url: str, run: str) -> Path:
    name = hashlib.sha256(f"{store_url}\n{run}".encode()).hexdigest()[:32]
    return directory / f"{name}.lock"
