"""What a controller writes of its attempt at a pass, in the form of a worker's: progress, log and ledger.

So every command that shows runs shows pipelines, and whoever comes next sees whether somebody is at work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from runner import ledger
from runner.errors import RunnerError, WorkerExit
from runner.ledger import Attempt, Counts
from runner.run_record import RunRecord
from runner.store import ABSENT, Store
from runner.task import Entry, Outcome, Task

BEAT_S = 10.0

log = logging.getLogger(__name__)


class Journal:
    """One attempt at a pass: shard 0 of its run. `attempt` is a name of its own."""

    def __init__(self, store: Store, run: RunRecord, task: Task, attempt: str) -> None:
        self._store, self._run, self._task, self._attempt = store, run.id, task, attempt
        self._plan = run.plan
        self._lines: list[str] = []
        self._generations = {"progress": ABSENT, "log": ABSENT}
        self._logged = 0
        self._lock = threading.Lock()

    def note(self, line: str, *, grave: bool = False) -> None:
        """Log a line, and keep it for the log object."""
        log.log(logging.ERROR if grave else logging.INFO, "%s", line)
        now = datetime.now(UTC)
        self._lines.append(f"{now:%Y-%m-%dT%H:%M:%SZ} {'ERROR' if grave else 'INFO'} run={self._run} {line}\n")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Write every few seconds, whatever is done meanwhile, that somebody is at work, and the log as it is."""
        self._beat()
        over = threading.Event()
        heart = threading.Thread(target=self._beat_until, args=(over,), daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            try:
                self._beat()
            except RunnerError as e:
                log.warning("progress not written: %s", e)

    def _beat(self) -> None:
        with self._lock:
            self._generations["progress"] = ledger.write_progress(
                self._store, self._run, self._state(Counts(total=1)), self._generations["progress"]
            )
        self.flush()

    def end(self, exit_code: WorkerExit, entries: Sequence[Entry] = (), error: str = "") -> None:
        """Write log and ledger of the attempt; without entries the task remains in flight."""
        self.flush()
        failed = sum(entry.outcome is Outcome.FAILED for entry in entries)
        pending = sum(entry.outcome is Outcome.PENDING for entry in entries)
        counts = Counts(done=len(entries) - failed, failed=failed, total=1, pending=pending)
        in_flight = () if entries else (self._task.id,)
        ended = Attempt(0, self._attempt, exit_code, tuple(entries), in_flight, counts=counts, error=error)
        ledger.write_ledger(self._store, self._run, ended, self._plan)

    def _state(self, counts: Counts) -> Attempt:
        return Attempt(0, self._attempt, in_flight=(self._task.id,), counts=counts)

    def flush(self) -> None:
        """Write the log object as it is now."""
        with self._lock:
            lines = tuple(self._lines)
            if len(lines) > self._logged:
                text = "".join(lines).encode(errors="replace")
                self._generations["log"] = ledger.write_log(
                    self._store, self._run, (0, self._attempt), text, self._generations["log"]
                )
                self._logged = len(lines)
