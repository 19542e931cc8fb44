"""One attempt at one shard: which tasks remain, a pool of threads over them, progress, and the ledger at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from runner import ledger, plan
from runner.errors import Action, DrainedError, RunnerError, WorkerExit, action_for, gravest
from runner.ledger import Attempt, Counts, Fold
from runner.run_record import RunRecord
from runner.stages import availability, candles, download, instruments, kept, validate
from runner.stages.tools import Tools
from runner.store import ABSENT
from runner.task import Entry, Outcome, Stage, Task
from runner.worker.feed import Feed
from runner.worker.identity import Identity
from runner.worker.memory import peak_bytes
from runner.worker.stop import Stop
from runner.worker.tally import Tally

PROGRESS_S = 10.0
_LOOK_S = 0.1

log = logging.getLogger(__name__)


class _Run(Protocol):
    def __call__(self, task: Task, data_type: str, tools: Tools) -> Entry: ...


STAGES: Mapping[Stage, _Run] = {
    Stage.INSTRUMENTS: instruments.run,
    Stage.AVAILABILITY: availability.run,
    Stage.DOWNLOAD: download.run,
    Stage.CANDLES: candles.run,
    Stage.VALIDATE: validate.run,
}


class Shard:
    """An attempt at a shard. `log_text` returns the log so far."""

    def __init__(
        self, me: Identity, record: RunRecord, tools: Tools, stop: Stop, log_text: Callable[[], bytes]
    ) -> None:
        self._me, self._record, self._tools, self._stop = me, record, tools, stop
        self._log_text = log_text
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._tally = Tally(())
        self._feed = Feed((), self._announce, least=1)
        self._received_bytes = 0
        self._last_download_us = 0
        self._parked_until_us = 0
        self._generations = {"progress": ABSENT, "log": ABSENT}
        self._written = 0.0
        self._told = 0.0
        self.summary = ""

    def received(self, count: int) -> None:
        """Count bytes that came from the source."""
        with self._lock:
            self._received_bytes += count

    def parked(self, seconds: float) -> None:
        """Take note that the source told to wait so long."""
        with self._lock:
            self._parked_until_us = max(self._parked_until_us, time.time_ns() // 1000 + int(seconds * 1_000_000))

    def run(self) -> WorkerExit:
        """Do what remains of the shard and write its ledger; return the exit code."""
        with plan.open_plan(self._tools.store, self._record) as file:
            self._tally = Tally(plan.decode_shard(file, self._me.shard))
        log.info("start run=%s attempt=%s tasks=%d", self._me.run, self._me.attempt, len(self._tally.tasks))
        attempts = ledger.read_attempts(self._tools.store, self._me.run, (self._me.shard,))
        folded = ledger.fold(attempts)
        if attempts:
            self._keep(folded)
        remaining = self._tally.remaining()
        alone = [t for t in remaining if folded.deaths.get(t.id, 0) >= ledger.DEATHS_ALONE]
        together = [t for t in remaining if t not in alone]
        self._pool(Feed(together, self._announce, least=self._me.threads), self._me.threads)
        if alone and not self._stop.event.is_set():
            self._pool(Feed(alone, self._announce, least=1, most=1), 1)
        return self._end()

    def _keep(self, folded: Fold) -> None:
        """Take over what earlier attempts settled, or ruined for good."""
        self._take_over(e for key, e in folded.entries.items() if ledger.final(e))
        if not self._record.replaces:
            self._take_over(kept.kept(self._tools.store, self._tally.remaining()))
        for task in self._tally.remaining():
            if cause := ledger.poisoned(folded, task.id, self._me.run):
                self._give_up(task, cause)
                log.error("task %s given up: %s", task.id, cause)
        log.info("resume kept=%d", len(self._tally.entries))

    def _take_over(self, entries: Iterable[Entry]) -> None:
        lacking = {(task.id, data_type) for task in self._tally.remaining() for data_type in task.data_types}
        for entry in entries:
            if (entry.task_id, entry.data_type) in lacking:
                self._tally.add(replace(entry, facts={**entry.facts, "written": False}))

    def _give_up(self, task: Task, cause: RunnerError) -> None:
        for data_type in task.data_types:
            self._tally.add(ledger.failure(Entry(task.id, data_type, Outcome.FAILED), cause))

    def _pool(self, feed: Feed, threads: int) -> None:
        """Work a feed off with so many threads, writing progress meanwhile, until it is done, drained or overdue."""
        self._feed = feed
        pool = [threading.Thread(target=self._work, args=(feed,), daemon=True) for _ in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            while thread.is_alive() and not self._stop.overdue:
                thread.join(_LOOK_S)
                self._stop.look_for_parent()
                self._tell()

    def _work(self, feed: Feed) -> None:
        try:
            while not self._stop.event.is_set() and (task := feed.take()) is not None:
                if self._task(task):
                    feed.ended(task)
        except RunnerError as e:
            # The store refuses even progress: nothing more can be proven, so nothing more is begun.
            log.error("no progress can be written: %s", e)
            self._fail_all(e)

    def _fail_all(self, error: RunnerError) -> None:
        with self._lock:
            for task in self._tally.remaining():
                self._give_up(task, error)
        self._stop.now(str(error))

    def _task(self, task: Task) -> bool:
        """Do every data type of a task; tell whether it ended rather than being interrupted."""
        for data_type in task.data_types:
            if self._stop.event.is_set():
                return False
            blank = Entry(task.id, data_type, Outcome.FAILED)
            try:
                entry = STAGES[task.stage](task, data_type, self._tools)
            except DrainedError:
                return False
            except RunnerError as e:
                entry = ledger.failure(blank, e)
            except Exception as e:
                log.exception("bug in task %s %s", task.id, data_type)
                entry = ledger.failure(blank, RunnerError(f"{type(e).__name__}: {e}: a bug, please report the log"))
            self._record_entry(entry)
        return True

    def _record_entry(self, entry: Entry) -> None:
        with self._lock:
            self._tally.add(entry)
            if entry.outcome is Outcome.DONE:
                self._last_download_us = time.time_ns() // 1000
        counts = self._counts()
        where = f"task={counts.done + counts.failed}/{counts.total} {entry.task_id} {entry.data_type}"
        if entry.outcome is not Outcome.FAILED:
            log.info("%s %s rows=%s", where, entry.outcome, entry.facts.get("rows"))
            return
        log.error("%s failed: %s", where, entry.facts["error"])
        if action_for(int(str(entry.facts["exit"]))) is Action.FAIL_RUN:
            self._stop.now(str(entry.facts["error"]))

    def _counts(self) -> Counts:
        with self._lock:
            return Counts(
                done=self._tally.done,
                failed=self._tally.failed,
                total=len(self._tally.tasks),
                received_bytes=self._received_bytes,
                peak_bytes=peak_bytes(),
                last_download_us=self._last_download_us,
                pending=self._tally.pending,
                parked_until_us=self._parked_until_us,
            )

    def _snapshot(self, in_flight: Sequence[str]) -> Attempt:
        return Attempt(self._me.shard, self._me.attempt, in_flight=tuple(in_flight), counts=self._counts())

    def _announce(self, names: tuple[str, ...]) -> None:
        progress = self._snapshot(names)
        with self._writing:
            self._generations["progress"] = ledger.write_progress(
                self._tools.store, self._me.run, progress, self._generations["progress"]
            )
            self._written = time.monotonic()

    def _tell(self) -> None:
        """Write progress and log objects, and one line, when it is time."""
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        counts = self._counts()
        log.info("progress task=%d/%d bytes=%d", counts.done + counts.failed, counts.total, counts.received_bytes)
        try:
            if now - self._written >= PROGRESS_S:
                self._feed.announce()
            self._write_log()
        except RunnerError as e:
            log.warning("progress not written: %s", e)

    def _write_log(self) -> None:
        who = (self._me.shard, self._me.attempt)
        self._generations["log"] = ledger.write_log(
            self._tools.store, self._me.run, who, self._log_text(), self._generations["log"]
        )

    def _end(self) -> WorkerExit:
        with self._lock:
            entries = tuple(self._tally.entries.values())
        codes = {WorkerExit(int(str(e.facts["exit"]))) for e in entries if e.outcome is Outcome.FAILED}
        if self._tally.remaining():
            # Nobody told us to stop, and yet something is left: a thread died.
            codes.add(WorkerExit.DRAINED if self._stop.event.is_set() else WorkerExit.BUG)
        end = gravest(codes)
        counts = self._counts()
        self.summary = (
            f"exit={int(end)} done={counts.done} failed={counts.failed} of {counts.total} {self._stop.reason}"
        )
        log.info("end %s", self.summary)
        attempt = replace(
            self._snapshot(self._feed.begun),
            exit=end,
            entries=entries,
            preempted=self._stop.preempted,
            error=self._stop.reason,
        )
        ledger.write_ledger(self._tools.store, self._me.run, attempt, self._record.plan)
        self._write_log()
        return end
