"""Carry out a run on this machine: supervise it, or follow whoever does, and return what it deserves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from runner import ledger
from runner.backends.local import Look, Supervisor, supervised, supervising
from runner.errors import Action, Exit, action_for
from runner.ledger import RunRecord
from runner.runs.state import CANCELLED, FINISHED, cancelled, ending, finish, verdict
from runner.spec import RunSpec
from runner.store import Store

_CANCEL_LOOK_S = 1.0
_FOLLOW_S = 0.5
IDLE = Look(running={}, waiting={}, ended={})


class Local:
    """Runs on this machine. `directory` keeps the locks; `env` is what workers inherit."""

    def __init__(self, store: Store, directory: Path, env: Mapping[str, str]) -> None:
        self._store, self._directory, self._env = store, directory, env

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
            for a in ledger.read_counts(self._store, record.id)
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
