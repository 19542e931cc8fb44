"""Runs as Jobs of a cluster: they go on without the process that submitted them. Whoever looks writes what it finds.

The store stays the memory: a run whose Job was deleted is told from its ledgers, and the end of one whose Job has ended
is written by the first process that sees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from runner import ledger
from runner.backends.kubernetes import pods, render, values, watch
from runner.backends.kubernetes.client import Client, Object
from runner.backends.kubernetes.diagnose import diagnose, log_command
from runner.backends.kubernetes.watch import Snapshot
from runner.backends.sight import Cause, Sight
from runner.errors import Action, ConfigError, Exit, TransientError, action_for
from runner.ledger import RunRecord
from runner.runs import state
from runner.runs.carry import follow
from runner.runs.tail import LogQuery, LogText, StoreLogs
from runner.spec import RunSpec
from runner.store import Store

_CREATE_TRIES = 5
_CREATE_PAUSE_S = 2.0
_DRAIN_S = 60.0
_LOOK_S = 2.0
_SILENT = timedelta(seconds=60)
"""Workers write every ten seconds: one that was silent for so long, and has no pod, has died."""

log = logging.getLogger(__name__)


class Cluster:
    """Runs of one cluster. `connect` returns its client when one is needed; `layers` lie over the chart's values."""

    def __init__(self, store: Store, connect: Callable[[], Client], layers: Sequence[values.Layer] = ()) -> None:
        self._store, self._connect, self._layers = store, connect, layers

    @property
    def _client(self) -> Client:
        return self._connect()

    def placed(self, spec: RunSpec) -> RunSpec:
        """Return the spec with the cluster and namespace that it means. Raises SpecError where no Job can be made."""
        where = {"context": self._client.context, "namespace": self._client.namespace}
        placed = spec.model_copy(update=where)
        image = self._values(placed, f"{spec.stage}-00000000", spec.shards)["pod"]["image"]
        return placed.model_copy(update={"image": image})

    def place(self, spec: RunSpec) -> str:
        """Return the cluster, the namespace and the image of a placed spec."""
        return f"context {spec.context} ({self._client.server}) · namespace {spec.namespace} · image {spec.image}"

    def _values(self, spec: RunSpec, run: str, shards: int) -> dict[str, Any]:
        return values.values_for(
            spec, run_id=run, shards=shards, image=spec.image, namespace=self._client.namespace, files=self._layers
        )

    def job(self, record: RunRecord, spec: RunSpec) -> Object:
        """Return the Job of a run. Raises SpecError for what cannot work on a cluster."""
        return render.job(self._values(spec, record.id, record.shards))

    def check(self, run: str, spec: RunSpec) -> Object:
        """Return the Job of a run as the cluster would take it, created nowhere. Raises ConfigError if it refuses."""
        there = self._client.create("jobs", render.job(self._values(spec, run, spec.shards)), dry_run=True)
        if there is None:
            raise ConfigError(f"job {run}: exists already in namespace {self._client.namespace}; runner status {run}")
        return there

    def start(self, record: RunRecord, spec: RunSpec) -> bool:
        """Create the run's Job where there is none; it goes on by itself."""
        body = self.job(record, spec)
        for tries in range(_CREATE_TRIES):
            try:
                if self._client.create("jobs", body) is None:
                    self._adopt(record.id)
            except TransientError:
                # The answer may be lost and the Job there: the next try then finds it.
                if tries == _CREATE_TRIES - 1:
                    raise
                time.sleep(_CREATE_PAUSE_S)
            else:
                break
        return True

    def _adopt(self, run: str) -> None:
        there = self._client.get("jobs", run)
        if there is not None and there["metadata"].get("labels", {}).get(values.RUN_LABEL) != run:
            raise ConfigError(
                f"job {run} in namespace {self._client.namespace} is not a run of this program; remove or rename it"
            )

    def carry_out(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Sight], None]
    ) -> Exit:
        """Start a run and watch it to its end; return its verdict. It goes on when `stop()` ends the watching."""
        if state.ending(self._store, record.id) is None:
            self.start(record, spec)
        return state.verdict(self._store, record) if follow(self, record, stop, look) else Exit.INTERRUPTED

    def settle(self, record: RunRecord) -> Sight:
        """Return what is seen of a run now; where its Job has ended or is gone, its end is written."""
        if state.ending(self._store, record.id) is not None:
            return Sight(alive=False, logs=_logs_of(record))
        try:
            return self._judge(record, watch.look(self._client, record.id))
        except TransientError as e:
            return Sight(causes=(_lost(str(e)),), logs=_logs_of(record))

    @contextmanager
    def watching(self, record: RunRecord) -> Iterator[Callable[[], Sight]]:
        """Yield `settle` from a snapshot that is kept up to date, so that asking costs the cluster nothing."""
        if state.ending(self._store, record.id) is not None:
            yield lambda: Sight(alive=False, logs=_logs_of(record))
            return
        with watch.Watcher(self._client, record.id) as watcher:
            yield lambda: self._judge(record, watcher.snapshot())

    def _judge(self, record: RunRecord, seen: Snapshot) -> Sight:
        at_work = frozenset(
            index
            for pod in seen.pods
            if (index := pods.index_of(pod)) is not None and pod.get("status", {}).get("phase") == "Running"
        )
        logs = _logs_of(record)
        if seen.lost:
            return Sight(causes=(_lost(seen.lost),), at_work=at_work, logs=logs)
        causes = diagnose(seen, datetime.now(UTC))
        if seen.job is not None and not pods.job_is_over(seen.job):
            return Sight(causes=causes, at_work=at_work, logs=logs)
        if seen.job is None and not self._gone(record, seen):
            begun = any(True for _ in ledger.read_counts(self._store, record.id))
            return Sight(alive=begun or bool(at_work), at_work=at_work, logs=logs)
        how = state.CANCELLED if state.cancelled(self._store, record.id) else state.FINISHED
        state.finish(self._store, record.id, how, self._exits(record.id, seen))
        return Sight(alive=False, causes=causes, at_work=at_work, logs=logs)

    def _gone(self, record: RunRecord, seen: Snapshot) -> bool:
        """Tell whether a run without a Job once had one, and nothing of it is at work any more."""
        if any(not pods.is_over(pod) for pod in seen.pods):
            return False
        if state.cancelled(self._store, record.id):
            return True
        newest = {a.shard: a for a in sorted(ledger.read_counts(self._store, record.id), key=_written)}
        silent = datetime.now(UTC) - _SILENT
        return bool(newest) and all(a.exit is not None or _written(a) < silent for a in newest.values())

    def _exits(self, run: str, seen: Snapshot) -> dict[int, int]:
        """Return the last exit code of each shard that has ended for good.

        The Job knows which those are, pods and ledgers know the codes; a shard given up without any code gets 1.
        """
        codes = {
            a.shard: int(a.exit)
            for a in sorted(ledger.read_counts(self._store, run), key=_written)
            if a.exit is not None
        }
        for index, pod in pods.newest_by_index(seen.pods).items():
            if (code := pods.exit_code(pod)) is not None:
                codes[index] = code
        status = (seen.job or {}).get("status", {})
        given_up = pods.parse_indexes(status.get("failedIndexes", ""))
        ended = {shard: code for shard, code in codes.items() if action_for(code) is not Action.RETRY}
        failed = {shard: codes.get(shard) or 1 for shard in given_up}
        done = dict.fromkeys(pods.parse_indexes(status.get("completedIndexes", "")), 0)
        return {**ended, **failed, **done}

    def cancel(self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool]) -> None:
        """Suspend the run's Job, which drains its pods, then delete it and write the run's end."""
        del spec
        run = record.id
        self._client.patch("jobs", run, {"spec": {"suspend": True}})
        deadline = time.monotonic() + _DRAIN_S
        while True:
            seen = watch.look(self._client, run)
            if all(map(pods.is_over, seen.pods)) or time.monotonic() > deadline:
                break
            if stop():
                return
            time.sleep(_LOOK_S)
        exits = self._exits(run, seen)
        self._client.delete("jobs", run)
        state.finish(self._store, run, state.CANCELLED, exits)

    def clean(self, run: str) -> int:
        """Remove a run's objects and its Job."""
        count = state.clean(self._store, run)
        self._client.delete("jobs", run)
        return count

    def logs(self, record: RunRecord, query: LogQuery) -> Callable[[], Iterator[LogText]]:
        """Return a function that yields what is new in the logs: the pods', and of attempts without one the store's."""
        return _Logs(self._store, self._connect, record.id, query).new


class _Logs:
    """Logs of a run's pods, and of the store for attempts whose pods are gone. An attempt's id is its pod's uid."""

    _PACE_S = 1.0

    def __init__(self, store: Store, connect: Callable[[], Client], run: str, query: LogQuery) -> None:
        self._connect, self._run, self._query = connect, run, query
        self._stored = StoreLogs(store, run, query)
        self._since: dict[str, str] = {}
        self._read: set[str] = set()
        self._over: set[str] = set()
        self._rounds = 0

    def new(self) -> Iterator[LogText]:
        """Yield what is new since the last call. Only the first one asks for more than one pod a second."""
        for pod in sorted(
            self._pods(), key=lambda pod: (pods.index_of(pod) or 0, pod["metadata"]["creationTimestamp"])
        ):
            if self._wanted(pod) and (text := self._text(pod)):
                yield text
        self._rounds += 1
        yield from self._stored.new(without=frozenset(self._read))

    def _pods(self) -> tuple[Object, ...]:
        try:
            return self._connect().list("pods", labels=f"batch.kubernetes.io/job-name={self._run}").items
        except (ConfigError, TransientError) as e:
            log.warning("logs of pods not read, only those of the store: %s", e)
            return ()

    def _wanted(self, pod: Object) -> bool:
        index, uid = pods.index_of(pod), pod["metadata"]["uid"]
        if index is None or self._query.shard not in (None, index) or uid in self._over:
            return False
        return not self._query.failed or (pods.is_over(pod) and pods.exit_code(pod) != 0)

    def _text(self, pod: Object) -> LogText | None:
        uid, is_over = pod["metadata"]["uid"], pods.is_over(pod)
        if self._rounds:
            time.sleep(self._PACE_S)
        since = self._since.get(uid, "")
        body = self._connect().log(pod["metadata"]["name"], since=since)
        if body is None:
            return None
        self._read.add(uid)
        if is_over:
            self._over.add(uid)
        # The cluster takes whole seconds: what stands before the last line seen comes again.
        stamped = [line.partition(" ") for line in body.splitlines()]
        fresh = [(at, text) for at, _, text in stamped if at > since]
        if not fresh:
            return None
        self._since[uid] = fresh[-1][0]
        return LogText(pods.index_of(pod) or 0, uid, "".join(f"{text}\n" for _, text in fresh))


def _logs_of(record: RunRecord) -> str:
    """Return the command that shows a shard's logs without this program, `{shard}` in the shard's place."""
    command = log_command(str(record.spec.get("namespace") or "default"), record.id, 0)
    return f"{command.removesuffix('0')}{{shard}}"


def _lost(why: str) -> Cause:
    return Cause("unreachable", f"{why}; the run does not need us", "kubectl cluster-info")


def _written(attempt: ledger.Attempt) -> datetime:
    return attempt.updated or datetime.min.replace(tzinfo=UTC)
