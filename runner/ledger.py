"""Attempts at a run and their folding: what each did to its shard, and what is true of the run by all of them.

Everything lies in the store under `_runs/<id>/`, so that any process can tell the state of a run without a daemon.
A ledger is written at every orderly end of a worker; a progress object names the tasks in flight before they start,
so an attempt that left progress and no ledger died, and what it was doing then is known.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from runner import layout
from runner.errors import ConfigError, PoisonError, PreconditionError, RunnerError, WorkerExit
from runner.store import ABSENT, ObjectInfo, Store
from runner.task import Entry, Fact, Outcome

API_VERSION = "runner/v1"
DEATHS_ALONE = 2
"""A task in flight at this many deaths is run alone, after all others."""
DEATHS_FAILED = 3
"""A task in flight at this many deaths has failed."""
PREEMPTIONS_FAILED = 6
"""A task interrupted by this many preemptions has failed."""
SETTLED, OF_PLAN = "settled", "plan"
"""What a ledger says in its metadata: how many entries are settled, and of which plan (its SHA-256) they are rows."""
_READ_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Pin:
    """What a run record says of its plan object: the SHA-256 for who reads it whole, size and CRC-32C for others."""

    sha256: str
    size: int
    crc32c: int

    def __str__(self) -> str:
        return f"{self.size} bytes, CRC-32C {self.crc32c:08x}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How far an attempt is: tasks by state, bytes received, the worker's peak resident memory, its last download.

    Of the tasks that are `done`, `pending` wait for the source. It told the worker to wait until `parked_until_us`.
    """

    done: int = 0
    failed: int = 0
    total: int = 0
    received_bytes: int = 0
    peak_bytes: int = 0
    last_download_us: int = 0
    pending: int = 0
    parked_until_us: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a shard. `exit` is None while it runs, and for ever when it died without a ledger.

    `in_flight` names the tasks that were begun and not ended when the ledger (or the last progress) was written.
    `preempted` tells whether an orderly stop came from the machine rather than from the user.
    """

    shard: int
    attempt: str
    exit: WorkerExit | None = None
    entries: tuple[Entry, ...] = ()
    in_flight: tuple[str, ...] = ()
    preempted: bool = False
    counts: Counts = Counts()
    updated: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fold:
    """What all attempts together say. Keys of `entries` are (task id, data type)."""

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    preemptions: Mapping[str, int] = field(default_factory=dict)
    peak_bytes: Mapping[str, int] = field(default_factory=dict)


def sha256(body: bytes) -> str:
    """Return the hash of bytes, in hex.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(body).hexdigest()


def pin(body: bytes) -> Pin:
    """Return what pins a plan object of these bytes.

    >>> pin(b"123456789").crc32c == 0xE3069283
    True
    """
    import google_crc32c  # noqa: PLC0415 - not for who only reads records

    return Pin(sha256(body), len(body), google_crc32c.value(body))


def canonical(value: object) -> bytes:
    """Return JSON that is equal for equal values.

    >>> canonical({"b": 1, "a": None})
    b'{"a":null,"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def write_ledger(store: Store, run: str, attempt: Attempt, plan: Pin | None = None) -> None:
    """Write the ledger of an attempt that ends in good order.

    Its metadata says how many of its entries are settled, and of which plan they are rows.
    """
    key = layout.ledger(run, attempt.shard, attempt.attempt)
    body = canonical(
        {"apiVersion": API_VERSION, **_attempt_fields(attempt), "entries": [_entry_fields(e) for e in attempt.entries]}
    )
    settled = sum(entry.outcome.settled for entry in attempt.entries)
    said = {"exit": str(int(attempt.exit or 0)), SETTLED: str(settled), **({OF_PLAN: plan.sha256} if plan else {})}
    _replace(store, key, body, {**_metadata(attempt.counts), **said})


def write_progress(store: Store, run: str, attempt: Attempt, generation: str) -> str:
    """Write the attempt's progress over `generation` (ABSENT at first); return the new generation.

    An answer that was lost is adopted: nobody else writes this key.
    """
    key = layout.progress(run, attempt.shard, attempt.attempt)
    return _replace(store, key, canonical(_attempt_fields(attempt)), _metadata(attempt.counts), generation)


def write_log(store: Store, run: str, attempt: tuple[int, str], text: bytes, generation: str) -> str:
    """Write an attempt's log as it is so far over `generation`; return the new generation."""
    return _replace(store, layout.log(run, *attempt), text, {}, generation)


def _replace(store: Store, key: str, body: bytes, metadata: Mapping[str, str], generation: str = ABSENT) -> str:
    try:
        return store.put(key, body, if_generation=generation, metadata=metadata).generation
    except PreconditionError:
        live = store.head(key)
        return store.put(key, body, if_generation=live.generation if live else ABSENT, metadata=metadata).generation


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    return {
        "shard": attempt.shard,
        "attempt": attempt.attempt,
        "exit": None if attempt.exit is None else int(attempt.exit),
        "inFlight": list(attempt.in_flight),
        "preempted": attempt.preempted,
        "error": attempt.error,
        "counts": asdict(attempt.counts),
    }


def _metadata(counts: Counts) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(counts).items()}


def _entry_fields(entry: Entry) -> dict[str, Any]:
    return {"task": entry.task_id, "dataType": entry.data_type, "outcome": entry.outcome, "facts": dict(entry.facts)}


def read_attempt(store: Store, info: ObjectInfo) -> Attempt:
    """Return what a ledger or progress object says. Raises ConfigError when it is none."""
    try:
        document = json.loads(store.get(info.key))
        return Attempt(
            shard=document["shard"],
            attempt=document["attempt"],
            exit=None if document["exit"] is None else WorkerExit(document["exit"]),
            entries=tuple(
                Entry(e["task"], e["dataType"], Outcome(e["outcome"]), e["facts"]) for e in document.get("entries", ())
            ),
            in_flight=tuple(document["inFlight"]),
            preempted=document["preempted"],
            error=document["error"],
            updated=info.updated,
            counts=Counts(**document["counts"]),
        )
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{info.key} is not a ledger ({e}); remove it and run the shard again") from e


def read_attempts(store: Store, run: str, shards: Collection[int] | None = None) -> tuple[Attempt, ...]:
    """Return every attempt at a run, or at these shards, by the time of its last word; ledgers win over progress."""
    suffix = f"{next(iter(shards))}/" if shards is not None and len(shards) == 1 else ""
    last: dict[tuple[int, str], ObjectInfo] = {}
    for kind in ("progress", "shards"):
        for info in store.list(f"{layout.run_prefix(run)}{kind}/{suffix}"):
            of = layout.shard_and_attempt(info.key)
            if of is not None and (shards is None or of[0] in shards):
                last[of] = info
    # One after the other they would take minutes: each is small, and its store is far away.
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = tuple(pool.map(lambda info: read_attempt(store, info), last.values()))
    return tuple(sorted(found, key=lambda a: (a.updated is not None and a.updated.timestamp(), a.attempt)))


def read_counts(store: Store, run: str, plan: Pin | None = None) -> tuple[Attempt, ...]:
    """Return every attempt with its counts and exit alone, from the metadata of two listings: no object is opened.

    With `plan` without those whose ledger says that it is of another one. Raises ConfigError for metadata of others.
    """
    found: dict[tuple[int, str], Attempt] = {}
    for kind in ("progress", "shards"):
        for info in store.list(f"{layout.run_prefix(run)}{kind}/"):
            of = layout.shard_and_attempt(info.key)
            if of is not None:
                found[of] = _counted(of, info)
                if plan and info.metadata.get(OF_PLAN, plan.sha256) != plan.sha256:
                    del found[of]
    return tuple(found.values())


def _counted(of: tuple[int, str], info: ObjectInfo) -> Attempt:
    try:
        counts = Counts(**{f.name: int(info.metadata.get(f.name, "0")) for f in fields(Counts)})
        end = WorkerExit(int(info.metadata["exit"])) if "exit" in info.metadata else None
    except ValueError as e:
        raise ConfigError(f"{info.key} has metadata of another writer ({e}); remove it and run the shard again") from e
    return Attempt(*of, end, counts=counts, updated=info.updated)


def fold(attempts: Iterable[Attempt]) -> Fold:
    """Fold attempts, oldest first: a settled outcome wins over an unsettled one, a later one over an earlier.

    An attempt without a ledger died with its tasks in flight.

    >>> failed, done = Entry("t", "trades", Outcome.FAILED), Entry("t", "trades", Outcome.DONE)
    >>> folded = fold([Attempt(0, "a", WorkerExit.SETTLED, (done,)), Attempt(0, "b", None, (failed,), ("t",))])
    >>> folded.entries["t", "trades"].outcome.value, folded.deaths
    ('done', Counter({'t': 1}))
    """
    entries: dict[tuple[str, str], Entry] = {}
    deaths: Counter[str] = Counter()
    preemptions: Counter[str] = Counter()
    peak: dict[str, int] = {}
    for attempt in attempts:
        if attempt.exit is None:
            deaths.update(set(attempt.in_flight))
            peak.update({t: max(peak.get(t, 0), attempt.counts.peak_bytes) for t in attempt.in_flight})
        elif attempt.preempted:
            preemptions.update(set(attempt.in_flight))
        for entry in attempt.entries:
            key = (entry.task_id, entry.data_type)
            if key not in entries or entry.outcome.settled or not entries[key].outcome.settled:
                entries[key] = entry
    return Fold(entries, deaths, preemptions, peak)


def failure(entry: Entry, error: RunnerError, **facts: Fact) -> Entry:
    """Return the entry as failed, with the cause and the worker exit that the cause calls for.

    >>> failure(Entry("t", "trades", Outcome.DONE), ConfigError("no plan")).facts["error"]
    'no plan'
    """
    return replace(entry, outcome=Outcome.FAILED, facts={"error": str(error), "exit": int(error.worker_exit), **facts})


def final(entry: Entry) -> bool:
    """Tell whether another attempt at the shard would change nothing about this entry.

    >>> final(Entry("t", "trades", Outcome.FAILED, {"exit": 75})), final(Entry("t", "trades", Outcome.EMPTY))
    (False, True)
    """
    return entry.outcome is not Outcome.FAILED or entry.facts.get("exit") == int(WorkerExit.TASKS_FAILED)


def poisoned(folded: Fold, task_id: str, run: str) -> RunnerError | None:
    """Return why a task must not be tried again in this run, or None.

    >>> str(poisoned(Fold(deaths={"t": 3}, peak_bytes={"t": 1 << 30}), "t", "r"))[:66]
    't: its worker was killed 3 times at it, peak memory 1024 MiB; with'
    """
    if (deaths := folded.deaths.get(task_id, 0)) >= DEATHS_FAILED:
        peak = folded.peak_bytes.get(task_id, 0) >> 20
        return PoisonError(
            f"{task_id}: its worker was killed {deaths} times at it, peak memory {peak} MiB; "
            f"with more memory: runner retry {run} (cluster: --memory SIZE)"
        )
    if (times := folded.preemptions.get(task_id, 0)) >= PREEMPTIONS_FAILED:
        return PoisonError(
            f"{task_id}: interrupted {times} times; on nodes that stay: runner retry {run} (cluster: --placement any)"
        )
    return None
