"""The logs of a run's attempts as the store has them, read again and again for what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runner import layout, ledger, run_record
from runner.errors import Action, action_for
from runner.store import Store


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Whose logs: one shard's or all; `failed` leaves attempts that did not end well, those that died among them."""

    shard: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class LogText:
    """A piece of an attempt's log, whole lines."""

    shard: int
    attempt: str
    text: str


class StoreLogs:
    """The log objects of a run. Workers write them every few seconds and when they end."""

    def __init__(self, store: Store, run: str, query: LogQuery) -> None:
        run_record.get_run(store, run)
        self._store, self._run, self._query = store, run, query
        self._generations: dict[str, str] = {}
        self._chars: dict[str, int] = {}

    def new(self, without: frozenset[str] = frozenset()) -> Iterator[LogText]:
        """Yield what is new since the last call, shards ascending, attempts by age; none of the attempts `without`."""
        good = self._good() if self._query.failed else frozenset()
        prefix = f"{layout.run_prefix(self._run)}logs/"
        listed = ((layout.shard_and_attempt(info.key), info) for info in self._store.list(prefix))
        found = [(*of, info) for of, info in listed if of is not None]
        for shard, attempt, info in sorted(found, key=lambda item: (item[0], item[2].updated, item[1])):
            wanted = self._query.shard in (None, shard) and attempt not in good and attempt not in without
            if not wanted or self._generations.get(info.key) == info.generation:
                continue
            text = self._store.get(info.key).decode(errors="replace")
            seen = self._chars.get(info.key, 0)
            self._generations[info.key], self._chars[info.key] = info.generation, len(text)
            # A log that became shorter has lost its beginning: where the new part starts cannot be told.
            yield LogText(shard, attempt, text[seen:] if len(text) >= seen else text)

    def _good(self) -> frozenset[str]:
        return frozenset(
            a.attempt
            for a in ledger.read_counts(self._store, self._run)
            if a.exit is not None and action_for(a.exit) is Action.COMPLETE
        )
