"""Nodes that are not there, played by kwok; what becomes of pods on them; and what their workers would have written.

Which shards fail is a rule of their number, so that the verdict is known beforehand.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from runner import ledger, plan
from runner.backends.kubernetes import pods
from runner.backends.kubernetes.client import Client, GoneError, Object
from runner.errors import RunnerError, SourceError, TransientError, WorkerExit
from runner.ledger import Attempt, Counts
from runner.run_record import RunRecord
from runner.store import ABSENT, Store
from runner.task import Entry, Outcome
from tests.e2e_k8s.cluster import apply, kubectl

LABEL = "runner-bench/fake"
NODES = 10
_EVERY = 50
_FAILS, _STUMBLES = 7, 13
"""Of 50 shards this one fails for good, and this one fails once and is tried again."""
_LIFE_MS = (15_000, 60_000)
"""A pod runs for a time between these."""
_LEDGER_AFTER_S = 5.0
_INDEX = '.metadata.labels["batch.kubernetes.io/job-completion-index"] | tonumber'
_TRIED = '.metadata.annotations["batch.kubernetes.io/job-index-failure-count"]'
PLACEMENT: Mapping[str, Any] = {
    "pod": {
        "image": "no-image-is-pulled:0",
        "nodeSelector": {LABEL: "true"},
        "tolerations": [{"key": LABEL, "operator": "Exists", "effect": "NoSchedule"}],
    }
}
"""Values that put a run's pods on these nodes, where nothing else lands."""


def fails(shard: int) -> bool:
    """Tell whether a shard fails for good."""
    return shard % _EVERY == _FAILS


def exit_of(shard: int, *, tried: bool) -> WorkerExit:
    """Return how a pod of a shard ends."""
    if fails(shard):
        return WorkerExit.TASKS_FAILED
    stumbles = shard % _EVERY == _STUMBLES and not tried
    return WorkerExit.TRANSIENT if stumbles else WorkerExit.SETTLED


def stages() -> list[Object]:
    """Return what ends pods: kwok's stages, one for each way to end, the same rule as `exit_of`."""
    fail, stumble = f"({_INDEX}) % {_EVERY} == {_FAILS}", f'({_INDEX}) % {_EVERY} == {_STUMBLES} and {_TRIED} == "0"'
    return [
        _ended(WorkerExit.TASKS_FAILED, fail),
        _ended(WorkerExit.TRANSIENT, stumble),
        _ended(WorkerExit.SETTLED, f"({fail} or {stumble}) | not"),
    ]


def _ended(code: WorkerExit, rule: str) -> Object:
    is_well = code is WorkerExit.SETTLED
    now = "{{ Now }}"
    end = {"exitCode": int(code), "reason": "Completed" if is_well else "Error", "startedAt": now, "finishedAt": now}
    told = {"name": "worker", "image": "{{ (index .spec.containers 0).image }}", "restartCount": 0}
    unready = [
        {"type": kind, "status": "False", "reason": "PodCompleted", "lastTransitionTime": now}
        for kind in ("Ready", "ContainersReady")
    ]
    status = {
        "phase": "Succeeded" if is_well else "Failed",
        "conditions": unready,
        "containerStatuses": [{**told, "ready": False, "started": False, "state": {"terminated": end}}],
    }
    least_ms, most_ms = _LIFE_MS
    rules = [
        {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
        {"key": ".status.phase", "operator": "In", "values": ["Running"]},
        {"key": rule, "operator": "In", "values": ["true"]},
    ]
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"ended-{int(code)}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": rules},
            "delay": {"durationMilliseconds": least_ms, "jitterDurationMilliseconds": most_ms},
            "next": {"statusTemplate": json.dumps(status)},
        },
    }


def _node(number: int) -> Object:
    room = {"cpu": "2k", "memory": "8Ti", "ephemeral-storage": "40Ti", "pods": "2k"}
    metadata = {"name": f"fake-{number}", "labels": {LABEL: "true", "kubernetes.io/hostname": f"fake-{number}"}}
    taints = [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]
    status = {"capacity": room, "allocatable": room}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status}


@contextmanager
def nodes(kwok: Path, kubeconfig: str, folder: Path) -> Iterator[None]:
    """Have fake nodes that are ready, for as long as kwok plays them."""
    (folder / "stages.json").write_text("\n---\n".join(map(json.dumps, stages())))
    files = [*sorted((kwok.parent / "stages").iterdir()), folder / "stages.json"]
    configs = [word for file in files for word in ("--config", str(file))]
    select = ("--manage-all-nodes=false", f"--manage-nodes-with-label-selector={LABEL}=true")
    with (folder / "kwok.log").open("wb") as log:
        player = subprocess.Popen([kwok, "--kubeconfig", kubeconfig, *configs, *select], stdout=log, stderr=log)
    try:
        apply(*map(_node, range(NODES)))
        kubectl("wait", "--for", "condition=Ready", "nodes", "-l", LABEL, "--timeout", "60s")
        yield
    finally:
        kubectl("delete", "nodes", "-l", LABEL, "--wait=false", check=False)
        player.terminate()
        player.wait(10)


class StandIn:
    """Writes to the store what workers would have: progress as a pod starts, a ledger a little later. No data.

    A ledger is there before its pod ends, as a worker's is; `late` counts those that were not.
    """

    def __init__(self, client: Client, store: Store, record: RunRecord) -> None:
        self._client, self._store, self._record = client, store, record
        self._shards = plan.decode_bytes(plan.read_plan(store, record)).shards
        self._begun: set[str] = set()
        self._told: set[str] = set()
        self._due: deque[tuple[float, Object]] = deque()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4)
        self._writes: list[Future[None]] = []
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._follow, self._tell)]
        self.late = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for write in self._writes:
            if not write.cancelled():
                write.result()

    def _follow(self) -> None:
        version, labels = "", f"batch.kubernetes.io/job-name={self._record.id}"
        while not self._stop.is_set():
            try:
                if not version:
                    found = self._client.list("pods", labels=labels, keep=pods.lean)
                    version = found.version
                    for pod in found.items:
                        self._see(pod)
                with self._client.watch("pods", version, labels=labels, seconds=60) as changes:
                    for change in changes:
                        version = change["object"]["metadata"]["resourceVersion"]
                        if change["type"] in ("ADDED", "MODIFIED"):
                            self._see(pods.lean(change["object"]))
            except GoneError:
                version = ""
            except TransientError:
                self._stop.wait(1)

    def _see(self, pod: Object) -> None:
        uid, phase = pod["metadata"]["uid"], pod["status"].get("phase")
        if phase == "Running" and uid not in self._begun:
            self._begun.add(uid)
            self._writes.append(self._pool.submit(self._write, pod, is_end=False))
            self._due.append((time.monotonic() + _LEDGER_AFTER_S, pod))
        elif pods.is_over(pod) and uid not in self._told:
            self._told.add(uid)
            self.late += 1
            self._writes.append(self._pool.submit(self._write, pod, is_end=True))

    def _tell(self) -> None:
        while not self._stop.is_set():
            if self._due and self._due[0][0] <= time.monotonic():
                self._writes.append(self._pool.submit(self._write, self._due.popleft()[1], is_end=True))
            else:
                self._stop.wait(0.05)

    def _write(self, pod: Object, *, is_end: bool) -> None:
        shard, uid = pods.index_of(pod) or 0, pod["metadata"]["uid"]
        tasks = self._shards[shard]
        begun = Attempt(shard, uid, in_flight=tuple(task.id for task in tasks), counts=Counts(total=len(tasks)))
        if not is_end:
            ledger.write_progress(self._store, self._record.id, begun, ABSENT)
            return
        tried = pod["metadata"].get("annotations", {}).get(pods.TRIES[0], "0") != "0"
        code = exit_of(shard, tried=tried)
        entries = tuple(_entry(task.id, data_type, code) for task in tasks for data_type in task.data_types)
        good = len(tasks) if code is WorkerExit.SETTLED else 0
        size = sum(task.predicted_bytes for task in tasks)
        counts = Counts(done=good, failed=len(tasks) - good, total=len(tasks), received_bytes=size)
        ended = Attempt(shard, uid, code, entries, counts=counts)
        ledger.write_ledger(self._store, self._record.id, ended, self._record.plan)
        self._told.add(uid)


def _entry(task_id: str, data_type: str, code: WorkerExit) -> Entry:
    if code is WorkerExit.SETTLED:
        return Entry(task_id, data_type, Outcome.DONE, {"rows": 1_000_000, "written": True})
    cause: RunnerError = SourceError(f"{task_id}: a stand-in failed, for a trial")
    if code is WorkerExit.TRANSIENT:
        cause = TransientError(f"{task_id}: a stand-in lost its connection, for a trial")
    return ledger.failure(Entry(task_id, data_type, Outcome.FAILED), cause)
