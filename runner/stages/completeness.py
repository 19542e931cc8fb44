"""Whether completeness records still hold, and what days lack by them: what a pipeline goes by, and what its gate asks.

A record is believed as long as the catalogue offers the same and every object is the one that was judged. Records are
over all that a venue offers; what a day lacks is told for a request's selection.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from runner import layout
from runner.ledger import canonical, sha256
from runner.spec import RunSpec
from runner.spec.resolve import place_words
from runner.stages import expected, outputs, sealing
from runner.stages.expected import Day
from runner.stages.inputs import made_of
from runner.stages.validate import completeness_record, generations, held, ticks_of
from runner.store import Store
from runner.task import Outcome

_BEGINNING = ("runner submit ", "runner pipeline ")
"""How commands begin that begin runs; a retry knows where its run was, and validate looks from here."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a (day, venue, data type) does not count as whole: how many keys, the first of them, and what mends it.

    `is_pending` tells that nothing is wrong but that the source has not exported it; `is_stale` that the store or the
    catalogue has changed since it was judged.
    """

    day: date
    venue: str
    data_type: str
    keys: int
    key: str
    reason: str
    command: str
    is_pending: bool = False
    is_stale: bool = False


def consumed(data_types: Iterable[str]) -> tuple[str, ...]:
    """Return those of some data types that the candles of any of them are made of.

    >>> consumed(("trades", "quotes", "liquidations"))
    ('trades', 'liquidations')
    """
    asked = tuple(data_types)
    used = {name for data_type in asked for name in made_of(data_type)}
    return tuple(name for name in asked if name in used)


def lacks(spec: RunSpec, store: Store, day: Day) -> Iterator[Lack]:
    """Yield what the records of a day say, or can no longer say, of each (venue, data type) that a request selects."""
    yield from _lacks(spec, store, day, spec.data_types, ticks_alone=False)


def gate(spec: RunSpec, store: Store, day: Day) -> Iterator[Lack]:
    """Yield what candles of a day must wait for: every (venue, data type) that they consume and that is not whole.

    Ticks alone are compared with what was judged: making candles does not shut the gate behind itself.
    """
    yield from _lacks(spec, store, day, consumed(spec.data_types), ticks_alone=True)


def candle_lacks(store: Store, day: Day) -> Iterator[Lack]:
    """Yield each (venue, data type) with candles that are not made of the ticks as they are now."""
    behind: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for task in sealing.missing(store, sealing.candle_tasks(store, [day])):
        for data_type in task.data_types:
            behind[_venue(task.key), data_type].append(task.key)
    for (venue, data_type), keys in behind.items():
        command = f"runner submit candles {_asked(day.day, venue, data_type, store)}"
        reason = "its candles are not made of the ticks as they are now"
        yield Lack(day.day, venue, data_type, len(keys), keys[0], reason, command)


def placed(lack: Lack, spec: RunSpec) -> Lack:
    """Return a lack whose command, where that begins a run, says where runs of this request are carried out.

    Records are the same wherever they were made, so the commands in them do not.
    """
    words = place_words(spec.model_dump(mode="json", by_alias=True), anew=True)
    if not words or not lack.command.startswith(_BEGINNING):
        return lack
    return replace(lack, command=f"{lack.command} {shlex.join(words)}")


def _lacks(spec: RunSpec, store: Store, day: Day, data_types: Iterable[str], *, ticks_alone: bool) -> Iterator[Lack]:
    selected: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for task in day.tasks:
        for data_type in task.data_types:
            selected[_venue(task.key), data_type].append(task.key)
    records: dict[str, Mapping[str, Any]] = {}
    for data_type in data_types:
        found = outputs.live(store, day.day, data_type)
        for venue in spec.venues:
            if not (keys := selected.get((venue, data_type))):
                continue
            if venue not in records:
                records[venue] = _record(store, day.day, venue)
            verdict = records[venue].get(data_type)
            tasks = tuple(expected.offered(day.table, data_type, venue))
            objects = held(tasks, data_type, found)
            now = _Now(
                sha256(canonical(tuple(task.key for task in tasks))),
                generations(ticks_of(day.day, data_type, objects) if ticks_alone else objects.values()),
                "ticksDigest" if ticks_alone else "generationsDigest",
            )
            yield from _lack((day.day, venue, data_type), keys, verdict, now, store)


@dataclass(frozen=True, slots=True)
class _Now:
    """What a verdict must have been of, to be believed: the digest of what is expected, and `name`, that of objects."""

    expected: str
    objects: str
    name: str


def _lack(
    what: tuple[date, str, str], keys: list[str], verdict: Mapping[str, Any] | None, now: _Now, store: Store
) -> Iterator[Lack]:
    again = f"runner validate {_asked(*what, store)}"
    if verdict is None:
        yield Lack(*what, len(keys), keys[0], "never validated", again)
    elif verdict.get("expectedDigest") != now.expected:
        yield Lack(*what, len(keys), keys[0], "the catalogue has changed since it was validated", again, is_stale=True)
    elif verdict.get(now.name) != now.objects:
        yield Lack(*what, len(keys), keys[0], "objects have changed since it was validated", again, is_stale=True)
    elif missing := [each for each in verdict["missing"] if each["key"] in set(keys)]:
        # What is wrong comes before what is only late.
        first = min(missing, key=_is_pending)
        reason, command = str(first["reason"]), str(first.get("command", again))
        pending = all(map(_is_pending, missing))
        yield Lack(*what, len(missing), str(first["key"]), reason, command, is_pending=pending)


def _is_pending(missing: Mapping[str, Any]) -> bool:
    return missing.get("outcome") == Outcome.PENDING


def _record(store: Store, day: date, venue: str) -> Mapping[str, Any]:
    key = layout.completeness(day, venue)
    if store.head(key) is None:
        return {}
    found: Mapping[str, Any] = completeness_record(store, key)["dataTypes"]
    return found


def _asked(day: date, venue: str, data_type: str, store: Store) -> str:
    return f"--start-date {day} --end-date {day} --venues {venue} --data-types {data_type} --store {store.url}"


def _venue(key: str) -> str:
    return key.split(":", 1)[0]
