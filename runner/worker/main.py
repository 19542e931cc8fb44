"""The worker's life: who am I, is there a run, do my shard, say how it ended."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from runner import ledger, logs, run_record, runs
from runner.errors import ConfigError, DrainedError, RunnerError, TransientError, WorkerExit
from runner.run_record import RunRecord
from runner.runs.submit import create
from runner.stages.commit import Mode
from runner.stages.tools import Tools
from runner.store import Store, open_store
from runner.tardis.client import Tardis
from runner.worker.identity import Identity, identity
from runner.worker.shard import Shard
from runner.worker.stop import Stop

_PLAN_WAIT_S = 600.0
_PLAN_POLL_S = 5.0
_TERMINATION_LOG = Path("/dev/termination-log")

log = logging.getLogger(__name__)


def main(env: Mapping[str, str]) -> int:
    """Do the shard that the environment names; return the exit code of the table in errors.py."""
    lines = _Tee(sys.stderr)
    try:
        me = identity(env)
    except RunnerError as e:
        return _refuse(e)
    secrets = [me.key] if me.key else []
    logs.setup(me.spec.log_format, me.spec.log_level, lines, secrets=secrets, keys={"shard": me.shard})
    stop = Stop(me.parent)
    stop.install()
    try:
        return int(_run(me, stop, lines))
    except RunnerError as e:
        log.error("stopped: %s", e)
        return _refuse(e)


def _run(me: Identity, stop: Stop, lines: _Tee) -> WorkerExit:
    store = open_store(me.spec.store, refusal_s=me.spec.store_refusal_s)
    scratch = _scratch(me)
    shard: Shard | None = None
    tardis = runs.tardis_of(
        me.spec,
        me.key,
        stop=stop.event,
        on_bytes=lambda count: shard.received(count) if shard else None,
        on_parked=lambda seconds: shard.parked(seconds) if shard else None,
        anyone_downloaded=lambda seconds: _anyone_downloaded(store, me.run, seconds),
    )
    try:
        record = _record(me, store, tardis, stop)
        _same_store(me, record, store)
        mode = Mode.REPLACE if record.replaces else Mode.KEEP
        shard = Shard(me, record, Tools(store, tardis, scratch, mode, me.spec.deep, me.spec), stop, lines.text)
        end = shard.run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _last_word(end, shard.summary)
    return end


def _scratch(me: Identity) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f"{me.run}-{me.shard}-", dir=me.scratch))
    except OSError as e:
        where = me.scratch or tempfile.gettempdir()
        raise TransientError(
            f"{where}: no scratch directory can be made there ({e.strerror}); see RUNNER_SCRATCH"
        ) from e


def _record(me: Identity, store: Store, tardis: Tardis, stop: Stop) -> RunRecord:
    """Return the run's record. Where nobody planned yet, shard 0 plans and the others wait for it."""
    waited = 0.0
    while (record := run_record.read_run(store, me.run)) is None:
        if me.shard == 0:
            return create(me.spec, store, tardis, me.run)
        if waited >= _PLAN_WAIT_S:
            raise TransientError(f"run {me.run}: no plan after {waited:.0f} s; does the worker of shard 0 run?")
        pause = _PLAN_POLL_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
        if stop.event.wait(pause):
            raise DrainedError(f"run {me.run}: told to stop before there was a plan ({stop.reason})")
        waited += pause
    return record


def _anyone_downloaded(store: Store, run: str, seconds: float) -> bool:
    """Tell whether any worker of the run ended a download in the last so many seconds, by what they wrote of it."""
    newest_us = max((a.counts.last_download_us for a in ledger.read_counts(store, run)), default=0)
    return time.time() - newest_us / 1e6 < seconds


def _same_store(me: Identity, record: RunRecord, store: Store) -> None:
    if (planned := record.request.get("store")) != store.url:
        raise ConfigError(f"run {me.run} is planned for {planned}, this worker was given {store.url}; submit anew")


def _refuse(e: RunnerError) -> int:
    # Where nobody can read it, the exit code must do.
    with contextlib.suppress(OSError):
        print(f"error: {logs.escape(logs.redact(str(e)))}", file=sys.stderr)  # noqa: T201 - before logging is set up
    _last_word(e.worker_exit, str(e))
    return int(e.worker_exit)


def _last_word(end: WorkerExit, summary: str) -> None:
    """Leave one JSON line where the cluster shows a container's reason for ending."""
    # The exit code says the same to who reads no message.
    with contextlib.suppress(OSError):
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(json.dumps({"exit": int(end), "message": logs.redact(summary)}) + "\n")


class _Tee(io.StringIO):
    """A log stream that keeps the newest lines for the log object, and passes all on."""

    _KEEP_CHARS = 4_000_000

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._kept: list[str] = []
        self._chars = 0

    def write(self, text: str) -> int:
        self._kept.append(text)
        self._chars += len(text)
        while self._chars > self._KEEP_CHARS:
            self._chars -= len(self._kept.pop(0))
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def text(self) -> bytes:
        """Return what was kept, UTF-8."""
        return "".join(self._kept).encode(errors="replace")
