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
from runner.market.names import TIMEFRAMES, book_depth
from runner.stages import content
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
    return () if book_depth(data_type) is None else (data_type,)


def candle_keys(task: Task, data_type: str) -> dict[str, str]:
    """Return the key of each candle object of a (task, data type), by timeframe."""
    depth = book_depth(data_type)
    if depth is None:
        return {timeframe: layout.candles(task.day, timeframe, task.key) for timeframe in TIMEFRAMES}
    return {timeframe: layout.book_candles(task.day, depth, timeframe, task.key) for timeframe in TIMEFRAMES}


@dataclass(frozen=True, slots=True)
class Input:
    """One tick file; `info` is None where there is none, and no part of its identity."""

    data_type: str
    day: date
    state: str
    info: ObjectInfo | None = field(default=None, compare=False)

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
        return [{"data_type": f.data_type, "day": str(f.day), "state": f.state} for f in self.files]

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
        theirs = {(o.get("data_type"), o.get("day")): o.get("state") for o in other}
        ours = {(o["data_type"], o["day"]): o["state"] for o in self.document}
        known = {name: state for name, state in ours.items() if state != ABSENT}
        if any(theirs.get(name) != state for name, state in known.items()):
            return False
        return any(state not in (None, ABSENT) for name, state in theirs.items() if name not in known)


def inputs(task: Task, data_type: str, find: Find) -> Inputs:
    """Return what the candles of a (task, data type) would be made of now.

    The days beside are of interest only where the type is used on the day itself; a day outside the listing is settled.
    """
    return Inputs(tuple(_files(task, data_type, find)))


def _files(task: Task, data_type: str, find: Find) -> Iterator[Input]:
    for name in made_of(data_type):
        here = _input(task, name, task.day, find)
        if not here.used:
            yield here
            continue
        yield _input(task, name, task.day - timedelta(days=1), find)
        yield here
        yield _input(task, name, task.day + timedelta(days=1), find)


def _input(task: Task, data_type: str, day: date, find: Find) -> Input:
    info = find(layout.ticks(day, data_type, task.key))
    if info is not None:
        return Input(data_type, day, _state(info), info)
    return Input(data_type, day, ABSENT if _listed(task, day) else str(Outcome.NOT_AVAILABLE))


def _state(info: ObjectInfo) -> str:
    outcome = info.metadata.get("outcome")
    if outcome in content.OUTCOMES and outcome != Outcome.DONE:
        return str(outcome)
    # Another writer's file has no digest in its metadata: its bytes are its identity.
    return info.metadata.get("digest") or f"crc32c:{info.crc32c:08x}"


def _listed(task: Task, day: date) -> bool:
    source = task.source
    if source is None or (source.listed_from is not None and day < source.listed_from):
        return source is None
    return source.listed_to is None or day < source.listed_to
