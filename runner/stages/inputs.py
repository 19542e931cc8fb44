"""What candles are made of: the ticks of the day and its neighbours, as the store has them; told from metadata alone.

An input is the digest of a tick file, the settled outcome of one without rows, or `absent`. Their list stands in the
footer of every candle object and its hash in the object's metadata: candles whose hash is not the one that the ticks
give now are stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

from runner import layout
from runner.ledger import canonical, sha256
from runner.market.names import OPTIONS_CHAIN, book_depth, is_group
from runner.stages import content
from runner.stages.split import parts_of
from runner.stages.subject import Subject
from runner.store import ObjectInfo
from runner.task import Outcome, Task

TRADES, TICKER, LIQUIDATIONS = "trades", "derivative_ticker", "liquidations"
ABSENT = "absent"
WITH_ROWS = frozenset({Outcome.DONE, Outcome.EMPTY})
"""Outcomes of a day file that the venue could have had rows in: the type is used, and so are the files beside it."""

Find = Callable[[str], ObjectInfo | None]
"""Looks an object up by its key: a request, or a listing read before."""


def made_of(data_type: str) -> tuple[str, ...]:
    """Return the data types that the candles of one are made of, its own first; none where no candles come of it.

    >>> made_of("trades"), made_of("book_snapshot_5"), made_of("quotes")
    (('trades', 'derivative_ticker', 'liquidations'), ('book_snapshot_5',), ())
    """
    if data_type == TRADES:
        return TRADES, TICKER, LIQUIDATIONS
    return (data_type,) if data_type == OPTIONS_CHAIN or book_depth(data_type) is not None else ()


def pieces(task: Task, data_type: str) -> tuple[Subject, ...]:
    """Return what has candles of its own in a (task, data type): an instrument, or each underlying of an options chain.

    None where no candles come of it, as of a group's trades.
    """
    if task.source is None or not made_of(data_type) or (is_group(task.key) and data_type != OPTIONS_CHAIN):
        return ()
    subject = Subject(task, data_type, task.source)
    return parts_of(subject) if data_type == OPTIONS_CHAIN else (subject,)


@dataclass(frozen=True, slots=True)
class Input:
    """One tick file; `info` is None where there is none, and no part of its identity."""

    data_type: str
    day: date
    state: str
    info: ObjectInfo | None = field(default=None, compare=False)

    @property
    def outcome(self) -> str:
        """Return the outcome that its metadata tells, `done` where they are another writer's."""
        told = self.info.metadata.get("outcome") if self.info is not None else self.state
        return told if told in content.OUTCOMES else str(Outcome.DONE)

    @property
    def settled(self) -> bool:
        """Tell whether nothing more is to come."""
        return self.state != ABSENT

    @property
    def has_rows(self) -> bool:
        """Tell whether there are rows to read."""
        return self.info is not None and self.state not in content.OUTCOMES

    @property
    def used(self) -> bool:
        """Tell whether the type is used on this day: there is a file that the venue could have had rows in."""
        return self.settled and (self.state not in content.OUTCOMES or self.state in WITH_ROWS)


@dataclass(frozen=True)
class Inputs:
    """The inputs of the candles of a (task, data type), type by type and day by day."""

    files: tuple[Input, ...]

    @cached_property
    def document(self) -> list[dict[str, str]]:
        """Return the list as JSON values."""
        return [
            {"data_type": f.data_type, "day": str(f.day), "digest" if f.has_rows else "outcome": f.state}
            for f in self.files
        ]

    @cached_property
    def hash(self) -> str:
        """Return the hash that the metadata of a candle object holds."""
        return sha256(canonical(self.document))

    @property
    def sealed(self) -> bool:
        """Tell whether every file of every type used is settled: the candles are final."""
        used = {f.data_type for f in self.files if f.used}
        return all(f.settled for f in self.files if f.data_type in used)

    def of(self, data_type: str) -> tuple[Input, ...]:
        """Return the files of one type, none where the type is not used."""
        files = tuple(f for f in self.files if f.data_type == data_type)
        return files if any(f.used for f in files) else ()

    def on(self, data_type: str, day: date) -> Input:
        """Return one file."""
        return next(f for f in self.files if (f.data_type, f.day) == (data_type, day))

    def within(self, other: Sequence[Mapping[str, str]]) -> bool:
        """Tell whether another list knows all that this one knows, and more."""
        theirs = {(o.get("data_type"), o.get("day")): o.get("digest") or o.get("outcome") for o in other}
        known = {(f.data_type, str(f.day)): f.state for f in self.files if f.settled}
        if any(theirs.get(name) != state for name, state in known.items()):
            return False
        return any(state not in (None, ABSENT) for name, state in theirs.items() if name not in known)


def inputs(subject: Subject, find: Find) -> Inputs:
    """Return what the candles of a subject would be made of now.

    The days beside are of interest only where the type is used on the day itself; a day outside the listing is settled.
    Option features go by the clock that day files are cut by: they are made of the day's own file alone.
    """
    if subject.data_type == OPTIONS_CHAIN:
        return Inputs((_own(subject, find),))
    return Inputs(tuple(_files(subject, find)))


def _own(subject: Subject, find: Find) -> Input:
    info, day = find(subject.ticks_key), subject.task.day
    return Input(OPTIONS_CHAIN, day, ABSENT if info is None else _content(info), info)


def _files(subject: Subject, find: Find) -> Iterator[Input]:
    day = subject.task.day
    for name in made_of(subject.data_type):
        here = _input(subject, name, day, find)
        if not here.used:
            yield here
            continue
        yield _input(subject, name, day - timedelta(days=1), find)
        yield here
        yield _input(subject, name, day + timedelta(days=1), find)


def _input(subject: Subject, data_type: str, day: date, find: Find) -> Input:
    info = find(layout.ticks(day, data_type, subject.key))
    if info is not None:
        return Input(data_type, day, _state(info), info)
    return Input(data_type, day, ABSENT if _listed(subject, day) else str(Outcome.NOT_AVAILABLE))


def _state(info: ObjectInfo) -> str:
    outcome = info.metadata.get("outcome")
    if outcome in content.OUTCOMES and outcome != Outcome.DONE:
        return str(outcome)
    return _content(info)


def _content(info: ObjectInfo) -> str:
    # Another writer's file has no digest in its metadata: its bytes are its identity.
    return info.metadata.get("digest") or f"crc32c:{info.crc32c:08x}"


def _listed(subject: Subject, day: date) -> bool:
    first, end = subject.source.listed_from, subject.source.listed_to
    return (first is None or first <= day) and (end is None or day < end)
