"""Runs as Jobs of a cluster: they go on without the process that submitted them. Whoever looks writes what it finds.

The store stays the memory: a run whose Job was deleted is told from its ledgers, and the end of one whose Job has ended
is written by the first process that sees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from runner import layout, ledger
from runner.backends.kubernetes import pods, render, values, watch
from runner.backends.kubernetes.client import Client, Object
from runner.backends.kubernetes.diagnose import diagnose, is_killed_for_memory, log_command
from runner.backends.kubernetes.fixed import RUN_LABEL
from runner.backends.kubernetes.watch import Snapshot
from runner.backends.sight import Cause, Sight
from runner.errors import (
    Action,
    ConfigError,
    Exit,
    NotAllowedError,
    NotFoundError,
    RunnerError,
    SpecError,
    TransientError,
    action_for,
)
from runner.run_record import RunRecord
from runner.runs import place, state
from runner.runs.carry import follow, waited
from runner.runs.place import Place
from runner.runs.pod_logs import PodLogs
from runner.runs.tail import LogQuery, LogText
from runner.spec import RunSpec
from runner.store import Store

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_TRIES = 15
_DRAIN_S = 60.0
_SILENT = timedelta(seconds=60)
"""Workers write every ten seconds: one that was silent for so long, and has no pod, has died."""


log = logging.getLogger(__name__)
T = TypeVar("T")


class Cluster:
    """Runs of one cluster. `connect` returns its client when one is needed; `layers` lie over the chart's values.

    `pause_s` is waited between two questions to the cluster.
    """

    def __init__(
        self,
        store: Store,
        connect: Callable[[], Client],
        layers: Sequence[values.Layer] = (),
        *,
        pause_s: float = 2.0,
    ) -> None:
        self._store, self._connect, self._layers, self._pause_s = store, connect, layers, pause_s
        self._noted: set[str] = set()
        self._peaks: dict[str, int] = {}

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
        return f"{self._client.where} · namespace {spec.namespace} · image {spec.image}"

    def _here(self) -> Place:
        client, given = self._client, values.documents(self._layers)
        return Place(client.server, client.authorities, client.namespace, client.context, given, client.uid)

    def _values(
        self, spec: RunSpec, run: str, shards: int, files: Sequence[values.Layer] | None = None
    ) -> dict[str, Any]:
        layers, namespace = self._layers if files is None else files, self._client.namespace
        return values.values_for(spec, run_id=run, shards=shards, image=spec.image, namespace=namespace, files=layers)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the cluster does not answer, as one does whose control plane starts anew."""
        for number in range(1, _TRIES):
            try:
                return ask()
            except TransientError as e:
                if number == 1:
                    log.warning("%s; asking again for a while", e)
            time.sleep(self._pause_s)
        return ask()

    def scheduled(self, job: str) -> datetime:
        """Return the time that a Job was meant for: its CronJob's schedule says, else it is when it was made.

        Raises NotFoundError when there is no such Job, ConfigError when its time is none.
        """
        there = self._patiently(lambda: self._client.get("jobs", job))
        if there is None:
            raise NotFoundError(f"job {job}: not in namespace {self._client.namespace}; unset what names it")
        metadata = there["metadata"]
        text = (metadata.get("annotations") or {}).get(_SCHEDULED) or metadata.get("creationTimestamp", "")
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except ValueError as e:
            raise ConfigError(f"job {job}: its schedule {text!r} is no time; give --day") from e

    def check(self, run: str, spec: RunSpec) -> Object:
        """Return the Job of a run as the cluster would take it, created nowhere. Raises ConfigError if it refuses."""
        there = self._client.create("jobs", render.job(self._values(spec, run, spec.shards)), dry_run=True)
        if there is None:
            raise ConfigError(f"job {run}: exists already in namespace {self._client.namespace}; runner status {run}")
        return there

    def start(self, record: RunRecord, spec: RunSpec) -> bool:
        """Create the run's Job where there is none, with the values of one that there was; it goes on by itself.

        Raises SpecError for what cannot work on a cluster, and for a run that is on another one.
        """
        run, here = record.id, self._patiently(self._here)
        is_ours = place.write(self._store, run, here)
        try:
            stands = here if is_ours else place.read(self._store, run) or here
            if not stands.same(here) and self._client.get("jobs", run) is None:
                raise _elsewhere(run, stands, here)
            body = render.job(self._values(spec, run, record.shards, self._layers or stands.values))
            self._patiently(lambda: self._create(run, body))
        except TransientError:
            raise  # it may have been made
        except RunnerError:
            if is_ours:
                place.forget(self._store, run)
            raise
        return True

    def _create(self, run: str, body: Object) -> None:
        """Create a Job; where one is there, the answer to an earlier try may have been lost."""
        if self._client.create("jobs", body) is not None:
            return
        there = self._client.get("jobs", run)
        if there is not None and there["metadata"].get("labels", {}).get(RUN_LABEL) != run:
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
        if (how := state.ending(self._store, record.id)) is not None:
            return Sight(alive=False, causes=how.causes, logs=_logs_of(_kubectl(record), record.id))
        return self._told(record, lambda: watch.look(self._client, record.id))

    def _told(self, record: RunRecord, look: Callable[[], Snapshot]) -> Sight:
        try:
            return self._judge(record, look())
        except TransientError as e:
            return Sight(causes=(_lost(str(e)),), logs=_logs_of(self._client.kubectl, record.id))

    @contextmanager
    def watching(self, record: RunRecord) -> Iterator[Callable[[], Sight]]:
        """Yield `settle` from a snapshot that is kept up to date, so that asking costs the cluster nothing."""
        if state.ending(self._store, record.id) is not None:
            yield lambda: self.settle(record)
            return
        with watch.Watcher(self._client, record.id) as watcher:
            yield lambda: self._told(record, watcher.snapshot)

    def _judge(self, record: RunRecord, seen: Snapshot) -> Sight:
        at_work = frozenset(
            index
            for pod in seen.pods
            if (index := pods.index_of(pod)) is not None and pod.get("status", {}).get("phase") == "Running"
        )
        logs = _logs_of(self._client.kubectl, record.id)
        if seen.lost:
            return Sight(causes=(_lost(seen.lost),), at_work=at_work, logs=logs)
        if seen.job is None:
            return self._without_job(record, seen, Sight(at_work=at_work, logs=logs))
        self._note(record.id)
        causes = diagnose(seen, datetime.now(UTC), kubectl=self._client.kubectl, peaks=self._peaks_of(record.id, seen))
        if not pods.job_is_over(seen.job):
            return Sight(causes=causes, at_work=at_work, logs=logs)
        how = state.CANCELLED if state.cancelled(self._store, record.id) else state.FINISHED
        state.finish(self._store, record.id, how, self._exits(record, seen), causes)
        return Sight(alive=False, causes=causes, at_work=at_work, logs=logs)

    def _without_job(self, record: RunRecord, seen: Snapshot, sight: Sight) -> Sight:
        """Judge a run that has no Job here. Only where its Job is known to have been does that mean an end."""
        run, here = record.id, self._here()
        stands = place.read(self._store, run)
        if stands is not None and not stands.same(here):
            raise _elsewhere(run, stands, here)
        newest = {a.shard: a for a in sorted(ledger.read_counts(self._store, run), key=_written)}
        silent = datetime.now(UTC) - _SILENT
        is_quiet = all(a.exit is not None or _written(a) < silent for a in newest.values())
        has_pods = any(not pods.is_over(pod) for pod in seen.pods)
        is_cancelled = state.cancelled(self._store, run)
        if stands is not None and not has_pods and (is_cancelled or (newest and is_quiet)):
            how = state.CANCELLED if is_cancelled else state.FINISHED
            state.finish(self._store, run, how, self._exits(record, seen))
            return replace(sight, alive=False)
        causes = (_unseen(run, here),) if newest and stands is None else ()
        return replace(sight, alive=has_pods or not is_quiet, causes=causes)

    def _note(self, run: str) -> None:
        """Write where a Job was seen that others made, as kubectl does; who may only read goes without."""
        if run not in self._noted:
            self._noted.add(run)
            with suppress(NotAllowedError):
                place.write(self._store, run, self._here())

    def _peaks_of(self, run: str, seen: Snapshot) -> Mapping[str, int]:
        """Return the bytes that workers killed for memory last told of, by their pods' uid; each is asked for once."""
        for pod in filter(is_killed_for_memory, seen.pods):
            uid, shard = pod["metadata"]["uid"], pods.index_of(pod)
            if uid not in self._peaks and shard is not None:
                told = self._store.head(layout.progress(run, shard, uid))
                self._peaks[uid] = int(told.metadata.get("peak_bytes", "0")) if told else 0
        return self._peaks

    def _exits(self, record: RunRecord, seen: Snapshot) -> dict[int, int]:
        """Return the last exit code of each shard that has ended for good.

        The Job knows which those are, pods and ledgers know the codes; a shard given up without any code gets 1.
        """
        codes = {
            a.shard: int(a.exit)
            for a in sorted(ledger.read_counts(self._store, record.id, record.plan), key=_written)
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
        run, here = record.id, self._patiently(self._here)
        stands = place.read(self._store, run)
        there = self._patiently(lambda: self._client.patch("jobs", run, {"spec": {"suspend": True}}))
        if there is None and stands is not None and not stands.same(here):
            raise _elsewhere(run, stands, here)
        deadline = time.monotonic() + _DRAIN_S
        while True:
            seen = self._patiently(lambda: watch.look(self._client, run))
            if all(map(pods.is_over, seen.pods)) or time.monotonic() > deadline:
                break
            if stop():
                return
            time.sleep(self._pause_s)
        exits = self._exits(record, seen)
        self._patiently(lambda: self._client.delete("jobs", run))
        state.finish(self._store, run, state.CANCELLED, exits)

    def abandon(self, record: RunRecord) -> None:
        """Write the end of a run whose cluster is gone, asking nobody. Raises SpecError while workers still write."""
        silent = datetime.now(UTC) - _SILENT
        at_work = [a for a in ledger.read_counts(self._store, record.id) if a.exit is None and _written(a) >= silent]
        if at_work:
            raise SpecError(f"run {record.id}: shard {at_work[0].shard} wrote less than a minute ago; cancel it there")
        state.finish(self._store, record.id, state.CANCELLED, {})

    def clean(self, run: str) -> int:
        """Remove a run's objects, and its Job where that can be reached: elsewhere its time to live takes it."""
        stands = place.read(self._store, run)
        count = state.clean(self._store, run)
        try:
            if stands is None or stands.same(self._here()):
                self._client.delete("jobs", run)
        except (ConfigError, TransientError) as e:
            log.warning("the job of %s stays until its time to live ends: %s", run, e)
        return count

    def logs(
        self, record: RunRecord, query: LogQuery, pause: Callable[[float], bool] = waited
    ) -> Callable[[], Iterator[LogText]]:
        """Return a function that yields what is new in the logs: the pods', and of attempts without one the store's."""
        return PodLogs(self._store, self._connect, record.id, query, pause).new


def _kubectl(record: RunRecord) -> str:
    """Return how `kubectl` reaches a run that has ended, from its record: no cluster need be configured here."""
    context = record.spec.get("context")
    there = f" --context {context}" if context else ""
    return f"kubectl{there} -n {record.spec.get('namespace') or 'default'}"


def _logs_of(kubectl: str, run: str) -> str:
    """Return the command that shows a shard's logs without this program, `{shard}` in the shard's place."""
    return f"{log_command(kubectl, run, 0).removesuffix('0')}{{shard}}"


def _elsewhere(run: str, stands: Place, here: Place) -> SpecError:
    return SpecError(
        f"run {run} is in {stands}, and this is {here}, where it has no Job: give that --context and --namespace, "
        f"or end it, if that cluster is gone: runner cancel {run} --abandon"
    )


def _unseen(run: str, here: Place) -> Cause:
    message = f"its workers are silent, it has no Job in {here}, and nobody saw where it had one"
    return Cause("unseen", message, f"kubectl get jobs -A -l {RUN_LABEL}={run}")


def _lost(why: str) -> Cause:
    return Cause("unreachable", f"{why}; the run does not need us", "kubectl cluster-info")


def _written(attempt: ledger.Attempt) -> datetime:
    return attempt.updated or datetime.min.replace(tzinfo=UTC)
