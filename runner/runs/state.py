"""What is true of a run: how it ended, how far it is, what failed, what it deserves. Read from the store alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

from runner import layout, ledger, run_record
from runner.backends.sight import Cause, Sight
from runner.errors import Action, Exit, NotFoundError, PreconditionError, SpecError, WorkerExit, action_for
from runner.ledger import Attempt
from runner.run_record import RunRecord
from runner.runs.outcomes import outcomes
from runner.runs.settled import read_settled
from runner.store import Store
from runner.task import Outcome

FINISHED, CANCELLED = "finished", "cancelled"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run's supervisor ended it: `state` is finished or cancelled; the last exit code of each shard.

    `causes` are what the backend said of the end, which it may have forgotten since.
    """

    state: str
    exits: Mapping[int, int]
    causes: tuple[Cause, ...] = ()


def cancel(store: Store, run: str) -> bool:
    """Ask for a run's end; tell whether it was still running. Its supervisor drains the workers when it sees this."""
    run_record.get_run(store, run)
    if ending(store, run) is not None:
        return False
    with suppress(PreconditionError):
        store.put(layout.cancellation(run), b"{}")
    return True


def cancelled(store: Store, run: str) -> bool:
    """Tell whether someone asked for the run's end."""
    return store.head(layout.cancellation(run)) is not None


def finish(store: Store, run: str, state: str, exits: Mapping[int, int], causes: Iterable[Cause] = ()) -> None:
    """Write how the run ended, once; the first word stands."""
    codes = {str(shard): code for shard, code in exits.items()}
    why = [asdict(cause) for cause in causes]
    body = ledger.canonical({"apiVersion": ledger.API_VERSION, "state": state, "exits": codes, "causes": why})
    with suppress(PreconditionError):
        store.put(layout.ending(run), body)


def ending(store: Store, run: str) -> Ending | None:
    """Return how a run was ended, or None while it is not."""
    if store.head(layout.ending(run)) is None:
        return None
    try:
        document = json.loads(store.get(layout.ending(run)))
        causes = tuple(Cause(**{**cause, "shards": tuple(cause["shards"])}) for cause in document.get("causes", ()))
        return Ending(document["state"], {int(shard): code for shard, code in document["exits"].items()}, causes)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise run_record.unreadable(store, layout.ending(run), run, e) from e


def verdict(store: Store, record: RunRecord) -> Exit:
    """Return the exit code that a run deserves, from its size, folded ledgers and ending.

    A ledger whose metadata says that every row of its shard is settled is not opened. The plan is, where entries may be
    others than its rows.
    """
    how = ending(store, record.id)
    settled = read_settled(store, record)
    rest = {shard: size.rows for shard, size in enumerate(record.sizes) if settled.rows.get(shard, 0) < size.rows}
    found = dict(outcomes(store, record, how.exits if how else {}, rest)) if rest else {}
    if doubtful := [n for n in found if n in settled.strange or len(found[n]) != rest[n]]:
        from runner import plan  # noqa: PLC0415 - Arrow: only where a plan must be read

        rows = plan.rows(store, record)
        found |= {n: {row: found[n][row] for row in rows[n] if row in found[n]} for n in doubtful}
        rest |= {n: len(rows[n]) for n in doubtful}
    known = all(len(found.get(shard, ())) == count for shard, count in rest.items())
    if known and all(entry.outcome.settled for entries in found.values() for entry in entries.values()):
        return Exit.DONE
    if how is not None and how.state == CANCELLED:
        return Exit.INTERRUPTED
    if how is not None and WorkerExit.NOT_ALLOWED in how.exits.values():
        return Exit.NOT_ALLOWED
    return Exit.INCOMPLETE if known else Exit.FAILED


class ShardState(StrEnum):
    """What a shard does."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    DONE = "done"
    FAILED = "failed"


class RunState(StrEnum):
    """What a run does. STOPPED is unfinished with nobody at work on it: the next submit resumes it."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """How far a shard is: tasks by state, bytes received by its newest attempt, tries so far.

    `pending` of the done tasks wait for the source, which told the worker to wait until `parked_until`, if it did.
    """

    shard: int
    state: ShardState
    done: int
    failed: int
    total: int
    received_bytes: int
    predicted_bytes: int
    attempts: int
    pending: int = 0
    parked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A (task, data type) without a settled outcome, and why."""

    shard: int
    task_id: str
    data_type: str
    error: str


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Everything a view shows of a run; `causes` and `logs` are what its backend says of it."""

    id: str
    state: RunState
    shards: tuple[ShardStatus, ...]
    failures: tuple[Failure, ...]
    started: datetime | None
    updated: datetime | None
    predicted_bytes: int
    causes: tuple[Cause, ...] = ()
    logs: str = ""

    @property
    def done(self) -> int:
        """Return how many tasks are settled or pending."""
        return sum(shard.done for shard in self.shards)

    @property
    def failed(self) -> int:
        """Return how many tasks have failed."""
        return sum(shard.failed for shard in self.shards)

    @property
    def pending(self) -> int:
        """Return how many of the done tasks wait for the source."""
        return sum(shard.pending for shard in self.shards)

    @property
    def total(self) -> int:
        """Return how many tasks the run has."""
        return sum(shard.total for shard in self.shards)

    @property
    def received_bytes(self) -> int:
        """Return the bytes that the newest attempts received."""
        return sum(shard.received_bytes for shard in self.shards)


class Watch:
    """Reads a run's status again and again; each look costs two listings, and the ledgers of shards with failures."""

    def __init__(self, store: Store, record: RunRecord) -> None:
        self._store, self._record = store, record

    def status(self, sight: Sight, *, with_failures: bool = True) -> RunStatus:
        """Return the status now. `sight` is what the run's backend sees of it."""
        record = self._record
        how = ending(self._store, record.id)
        by_shard: dict[int, list[Attempt]] = {}
        for attempt in ledger.read_counts(self._store, record.id, record.plan):
            by_shard.setdefault(attempt.shard, []).append(attempt)
        alive = sight.alive and how is None
        shards = tuple(
            self._shard(shard, sorted(by_shard.get(shard, ()), key=_age), how, alive=alive and sight.runs(shard))
            for shard in range(record.shards)
        )
        failed = frozenset(s.shard for s in shards if s.failed or s.state is ShardState.FAILED)
        failures = self._failures(how, failed) if with_failures and failed else ()
        seen = [a.updated for attempts in by_shard.values() for a in attempts if a.updated is not None]
        state = _run_state(how, shards, alive=alive)
        updated = max(seen, default=record.created)
        return RunStatus(
            id=record.id,
            state=state,
            shards=shards,
            failures=failures,
            started=record.created,
            updated=updated,
            predicted_bytes=record.predicted_bytes,
            causes=(*sight.causes, *_parked(record.id, shards)),
            logs=sight.logs,
        )

    def _shard(self, shard: int, attempts: list[Attempt], how: Ending | None, *, alive: bool) -> ShardStatus:
        size = self._record.sizes[shard]
        newest = attempts[-1] if attempts else Attempt(shard, "")
        return ShardStatus(
            shard=shard,
            state=_shard_state(attempts, how, given_up=how is not None and shard in how.exits, alive=alive),
            done=newest.counts.done,
            failed=newest.counts.failed,
            total=size.tasks,
            received_bytes=newest.counts.received_bytes,
            predicted_bytes=size.predicted_bytes,
            attempts=len(attempts),
            pending=newest.counts.pending,
            parked_until=until if (until := _instant(newest.counts.parked_until_us)) > datetime.now(UTC) else None,
        )

    def _failures(self, how: Ending | None, of: frozenset[int]) -> tuple[Failure, ...]:
        found = outcomes(self._store, self._record, how.exits if how else {}, of)
        failures = (
            Failure(shard, entry.task_id, entry.data_type, str(entry.facts.get("error", "")))
            for shard, entries in found.items()
            for entry in entries.values()
            if entry.outcome is Outcome.FAILED
        )
        return tuple(sorted(failures, key=lambda each: (each.task_id, each.data_type)))


def _instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def _parked(run: str, shards: Sequence[ShardStatus]) -> Iterator[Cause]:
    """Yield why shards do not move whose workers the source told to wait."""
    parked = {s.shard: s.parked_until for s in shards if s.state is ShardState.RUNNING and s.parked_until}
    if parked:
        until, first = max(parked.values()), min(parked)
        message = f"the source told to wait until {until:%Y-%m-%d %H:%M} UTC at the latest, then it goes on by itself"
        yield Cause("parked", message, f"runner logs {run} --shard {first}", tuple(sorted(parked)))


def _age(attempt: Attempt) -> float:
    return attempt.updated.timestamp() if attempt.updated else 0.0


def _shard_state(attempts: list[Attempt], how: Ending | None, *, given_up: bool, alive: bool) -> ShardState:
    if not attempts:
        # None of its workers lived long enough to write a word.
        return ShardState.FAILED if given_up else ShardState.WAITING
    code = attempts[-1].exit
    if code is None:
        return ShardState.RUNNING if alive else ShardState.FAILED if how else ShardState.WAITING
    action = action_for(code)
    if action is Action.RETRY:
        return ShardState.FAILED if how else ShardState.RETRYING
    return ShardState.DONE if action is Action.COMPLETE else ShardState.FAILED


def _run_state(how: Ending | None, shards: tuple[ShardStatus, ...], *, alive: bool) -> RunState:
    if how is None:
        return RunState.RUNNING if alive else RunState.STOPPED
    if how.state == CANCELLED:
        return RunState.CANCELLED
    return RunState.DONE if all(shard.state is ShardState.DONE for shard in shards) else RunState.FAILED


def clean(store: Store, run: str, *, is_readable: bool = True) -> int:
    """Delete everything about a run, never data; return how many objects. Raises SpecError while it is not ended.

    The record goes last, so a clean that was cut off can be repeated; a run whose plan is gone or whose record cannot
    be read can only be cleaned.
    """
    keys = [info.key for info in store.list(layout.run_prefix(run))]
    if not keys:
        raise NotFoundError(f"no run {run} in {store.url}; see them all: runner list")
    if is_readable and {layout.run_record(run), layout.plan(run)} <= set(keys) and layout.ending(run) not in keys:
        raise SpecError(f"run {run} is not ended; first: runner cancel {run}")
    last = (layout.ending(run), layout.run_record(run))
    for key in sorted(keys, key=lambda key: (last.index(key) + 1 if key in last else 0, key)):
        store.delete(key)
    return len(keys)
