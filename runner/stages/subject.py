"""What a tick file is of: its place at the source and in the store, and the facts that its objects carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from runner import layout
from runner.ledger import canonical, sha256
from runner.market.candles import Bars
from runner.market.groups import UNPARSED
from runner.market.names import OPTIONS_CHAIN, TIMEFRAMES, is_group
from runner.market.schema import DATA_TYPES, SCHEMA_VERSION, DataType, Digest
from runner.task import Source, Task


@dataclass(frozen=True, slots=True)
class Subject:
    """The (task, data type) at hand, and where its instrument is at the source. `part` is the underlying, if split."""

    task: Task
    data_type: str
    source: Source
    part: str = ""

    @property
    def origin(self) -> str:
        """Return the name of the file at the source: the one input of these ticks."""
        return f"tardis:{self.source.exchange}/{self.data_type}/{self.task.day}/{self.source.symbol}"

    @property
    def venue(self) -> str:
        """Return the venue of the instrument key."""
        return self.task.key.split(":", 1)[0]

    @property
    def key(self) -> str:
        """Return the instrument key, or what stands for it in the names of a part."""
        return layout.part_key(self.task.key, self.part) if self.part else self.task.key

    @property
    def columns(self) -> DataType:
        """Return what the ticks consist of; those of a group tell the symbol of each row."""
        data_type = DATA_TYPES[self.data_type]
        return data_type.grouped if is_group(self.task.key) else data_type

    @property
    def ticks_key(self) -> str:
        """Return the key of the ticks object."""
        return layout.ticks(self.task.day, self.data_type, self.key)

    @property
    def derived(self) -> Mapping[str, str]:
        """Return the keys of the objects derived from these ticks, by timeframe; none where none come of them."""
        if self.part == UNPARSED:
            return {}
        parts = (self.part,) if self.part else ()
        keys = layout.outputs(self.task.day, self.data_type, self.task.key, parts)[:-1]
        return dict(zip(TIMEFRAMES, keys, strict=True)) if keys else {}

    @property
    def bars(self) -> Bars:
        """Return what candles must know of the instrument."""
        s = self.source
        return Bars(
            day=self.task.day,
            venue=self.venue,
            key=(self.part or s.symbol) if self.data_type == OPTIONS_CHAIN else self.task.key,
            inverse=s.inverse,
            amount_unit=s.amount_unit,
            contract_size=s.contract_size,
            listed_from=s.listed_from,
            listed_to=s.listed_to,
        )


@dataclass(slots=True)
class Span:
    """Rows seen so far and the span of their `timestamp`, both ends included, µs."""

    rows: int = 0
    min_ts: int | None = None
    max_ts: int | None = None

    def add(self, table: pa.Table) -> None:
        """Take in a table."""
        if not table.num_rows:
            return
        span = pc.min_max(table["timestamp"].cast(pa.int64()))
        low, high = span["min"].as_py(), span["max"].as_py()
        self.rows += table.num_rows
        self.min_ts = low if self.min_ts is None else min(self.min_ts, low)
        self.max_ts = high if self.max_ts is None else max(self.max_ts, high)


def facts_of(rows: Digest, span: Span, inputs: object, own: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of an object: what its rows are, the hash of their inputs, and what else is its own."""
    return {
        "rows": str(span.rows),
        "min_ts": "" if span.min_ts is None else str(span.min_ts),
        "max_ts": "" if span.max_ts is None else str(span.max_ts),
        "source_md5": "",
        "inputs": sha256(canonical(inputs)),
        "digest": rows.hexdigest(),
        "schema": str(SCHEMA_VERSION),
        **own,
    }


def footer_of(subject: Subject, metadata: Mapping[str, str], inputs: object) -> dict[str, str]:
    """Return the file's own key-value metadata: the object's facts, what the file is of, and the inputs in full.

    `object` is the key of the ticks, so that a file in another's place is found.
    """
    own = {
        "day": str(subject.task.day),
        "data_type": subject.data_type,
        "venue": subject.venue,
        "key": subject.key,
        "object": subject.ticks_key,
    }
    return {**metadata, **own, "inputs": canonical(inputs).decode()}
