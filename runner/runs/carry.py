"""Who carries runs out: the protocol that every command speaks, and its implementation on this machine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from runner import ledger
from runner.backends.local import Look, Supervisor, check_size, supervised, supervising
from runner.backends.sight import Sight
from runner.errors import Action, Exit, SpecError, action_for
from runner.run_record import RunRecord
from runner.runs import state
from runner.runs.state import CANCELLED, FINISHED, cancelled, ending, finish, verdict
from runner.runs.tail import LogQuery, LogText, StoreLogs
from runner.spec import RunSpec
from runner.store import Store

_CANCEL_LOOK_S = 1.0
_FOLLOW_S = 0.5
IDLE = Look()


def waited(seconds: float) -> bool:
    """Wait, and never tell to stop."""
    time.sleep(seconds)
    return False


class Carrier(Protocol):
    """Where runs are carried out: this machine, or a cluster. Every command works on either."""

    def placed(self, spec: RunSpec) -> RunSpec:
        """Return the spec with where it is carried out. Raises SpecError where that cannot be."""
        ...

    def place(self, spec: RunSpec) -> str:
        """Return where a placed spec is carried out, as the user is told before anything starts there."""
        ...

    def start(self, record: RunRecord, spec: RunSpec) -> bool:
        """Have a run begin; tell whether it goes on without this process, else it takes `carry_out`."""
        ...

    def carry_out(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Sight], None]
    ) -> Exit:
        """Bring a run to its end, or go along with whoever does; return its verdict, or INTERRUPTED after `stop()`."""
        ...

    def settle(self, record: RunRecord) -> Sight:
        """Return what is seen of a run now; where it has ended, its end is in the store afterwards."""
        ...

    def watching(self, record: RunRecord) -> AbstractContextManager[Callable[[], Sight]]:
        """Yield `settle` for being asked again and again."""
        ...

    def logs(
        self, record: RunRecord, query: LogQuery, pause: Callable[[float], bool] = waited
    ) -> Callable[[], Iterator[LogText]]:
        """Return a function that yields what is new in the logs at each call.

        `pause` waits between requests, from the second call on, and tells whether to stop.
        """
        ...

    def cancel(self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool]) -> None:
        """End a run whose end was asked for, its workers drained; return early after `stop()`."""
        ...

    def abandon(self, record: RunRecord) -> None:
        """Write the end of a run that can no longer be reached where it is; asks nobody there."""
        ...

    def clean(self, run: str) -> int:
        """Remove everything about a run that has ended, never data; return how many objects of the store."""
        ...


def follow(carrier: Carrier, record: RunRecord, stop: Callable[[], bool], look: Callable[[Sight], None]) -> bool:
    """Watch a run until nobody is at work on it; tell whether it came to that before `stop()`."""
    with carrier.watching(record) as sight:
        while (seen := sight()).alive:
            if stop():
                return False
            look(seen)
            time.sleep(_FOLLOW_S)
    return True


class OfStore(ABC):
    """What every carrier shares of whose runs the store alone tells: no other system is asked for logs or remains."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    def settle(self, record: RunRecord) -> Sight:
        """Return what is seen of a run now."""

    def place(self, spec: RunSpec) -> str:
        """Return nothing: there is no place to be told."""
        del spec
        return ""

    @contextmanager
    def watching(self, record: RunRecord) -> Iterator[Callable[[], Sight]]:
        """Yield `settle` of this run."""
        yield lambda: self.settle(record)

    def logs(
        self, record: RunRecord, query: LogQuery, pause: Callable[[float], bool] = waited
    ) -> Callable[[], Iterator[LogText]]:
        """Return a function that yields what is new in the logs of the store."""
        del pause
        return StoreLogs(self._store, record.id, query).new

    def clean(self, run: str) -> int:
        """Remove a run's objects."""
        return state.clean(self._store, run)


class Local(OfStore):
    """Runs on this machine. `directory` keeps the locks; `env` is what workers inherit."""

    def __init__(self, store: Store, directory: Path, env: Mapping[str, str]) -> None:
        super().__init__(store)
        self._directory, self._env = directory, env

    def placed(self, spec: RunSpec) -> RunSpec:
        """Return the spec as it is. Raises SpecError when no worker can be given one so long."""
        check_size(spec)
        return spec

    def start(self, record: RunRecord, spec: RunSpec) -> bool:
        """Begin nothing: runs of this machine need a process that supervises them."""
        del record, spec
        return False

    def settle(self, record: RunRecord) -> Sight:
        """Return whether anybody is at work on a run; its supervisor writes its end."""
        return Sight(alive=ending(self._store, record.id) is None and self.alive(record.id))

    def cancel(self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool]) -> None:
        """Wait for the supervisor to drain its workers; where there is none, write the run's end."""
        self.carry_out(record, spec, stop, lambda _: None)

    def abandon(self, record: RunRecord) -> None:
        """Refuse: a run of this machine is ended by cancelling it."""
        raise SpecError(f"flag --abandon is for runs on a cluster that is gone; runner cancel {record.id}")

    def alive(self, run: str) -> bool:
        """Tell whether a process of this machine is at work on the run."""
        return supervised(self._directory, self._store.url, run)

    def carry_out(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Look], None]
    ) -> Exit:
        """Bring a run to its end, resuming it where nobody is at work on it; return its verdict.

        `look` is called several times a second. Once `stop()` is true: our own workers are drained and the run stays
        unfinished; a run that another process supervises goes on.
        """
        while ending(self._store, record.id) is None:
            with supervising(self._directory, self._store.url, record.id) as mine:
                if mine and not self._supervise(record, spec, stop, look):
                    return Exit.INTERRUPTED
            if not mine:
                if stop():
                    return Exit.INTERRUPTED
                look(IDLE)
                time.sleep(_FOLLOW_S)
        return verdict(self._store, record)

    def _supervise(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Look], None]
    ) -> bool:
        """Run the shards that have not ended; tell whether the run has now."""
        if ending(self._store, record.id) is not None:
            return True
        cancel = _sometimes(lambda: cancelled(self._store, record.id))
        ended = {
            a.shard: int(a.exit)
            for a in ledger.read_counts(self._store, record.id, record.plan)
            if a.exit is not None and action_for(a.exit) in (Action.COMPLETE, Action.FAIL_SHARD)
        }
        rest = [shard for shard in range(record.shards) if shard not in ended]
        exits = Supervisor(record, spec, self._store, self._env).run(rest, lambda: stop() or cancel(), look)
        if cancelled(self._store, record.id):
            finish(self._store, record.id, CANCELLED, {**ended, **exits})
        elif stop():
            return False
        else:
            finish(self._store, record.id, FINISHED, {**ended, **exits})
        return True


def _sometimes(question: Callable[[], bool]) -> Callable[[], bool]:
    """Return a question that is asked at most once a second, and never again after a yes."""
    asked, answer = 0.0, False

    def ask() -> bool:
        nonlocal asked, answer
        if not answer and time.monotonic() - asked >= _CANCEL_LOOK_S:
            asked, answer = time.monotonic(), question()
        return answer

    return ask
