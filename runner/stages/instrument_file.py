"""The instrument table as a file: its fixed schema, bytes, and back."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runner.errors import ConflictError
from runner.market.digest import Digest
from runner.market.groups import Group
from runner.market.names import SCHEMA_VERSION
from runner.market.symbols import Instrument, Unparsed

_TIME = pa.timestamp("us", tz="UTC")

SCHEMA: pa.Schema = pa.schema(
    [
        ("instrument_key", pa.string()),
        ("venue", pa.string()),
        ("instrument_type", pa.string()),
        ("available_from", _TIME),
        ("available_to", _TIME),
        ("data_types", pa.list_(pa.string())),
        ("base_asset", pa.string()),
        ("quote_asset", pa.string()),
        ("settle_asset", pa.string()),
        ("exchange_raw_symbol", pa.string()),
        ("tardis_symbol", pa.string()),
        ("tardis_exchange", pa.string()),
        ("data_provider", pa.string()),
        ("venue_type", pa.string()),
        ("asset_class", pa.string()),
        ("inverse", pa.bool_()),
        ("symbol_type", pa.string()),
        ("contract_type", pa.string()),
        ("strike", pa.float64()),
        ("option_type", pa.string()),
        ("expiry", _TIME),
        ("contract_size", pa.float64()),
        ("amount_unit", pa.string()),
        ("multiplier", pa.int64()),
        ("tick_size", pa.float64()),
        ("settlement_type", pa.string()),
        ("underlying", pa.string()),
        ("min_size", pa.float64()),
        ("ccxt_symbol", pa.string()),
        ("ccxt_exchange", pa.string()),
    ]
)
"""One row per instrument, by key. Columns are the fields of `market.symbols.Instrument`, which says what they mean."""

_VALUES = attrgetter(*SCHEMA.names)
_TIMES = tuple(field.name for field in SCHEMA if field.type == _TIME)
_TYPES = SCHEMA.get_field_index("data_types")
_COMMA = ","
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTRUMENTS_KEPT = 1 << 16


@dataclass(frozen=True)
class InstrumentTable:
    """The instruments listed on a day, by key, symbols listed then that have no key, and grouped files offered then.

    `exported_until` has the exchanges that the table was made from, each with the first day that it had not exported
    at the time: a later day, or this one, is provisional.
    """

    day: date
    rows: tuple[Instrument, ...]
    exported_until: Mapping[str, date]
    unparsed: tuple[Unparsed, ...] = ()
    groups: tuple[Group, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Return the digest of the rows and groups, whatever file they are in."""
        return _digest(_arrow(self.rows), _groups_text(self.groups))

    def updated(self, newer: InstrumentTable) -> InstrumentTable:
        """Return this table with the exchanges of a newer one replaced, or added, by what that says of them."""
        ours, theirs = self.rows, newer.rows
        kept = tuple(row for row in ours if row.tardis_exchange not in newer.exported_until)
        reported = tuple(row for row in self.unparsed if row.exchange not in newer.exported_until)
        groups = tuple(group for group in self.groups if group.tardis_exchange not in newer.exported_until)
        return replace(
            self,
            rows=tuple(sorted(kept + theirs, key=lambda row: row.instrument_key)),
            exported_until=dict(sorted({**self.exported_until, **newer.exported_until}.items())),
            unparsed=tuple(sorted(reported + newer.unparsed, key=lambda row: (row.exchange, row.symbol))),
            groups=tuple(sorted(groups + newer.groups, key=lambda group: group.instrument_key)),
        )


def object_metadata(table: InstrumentTable) -> dict[str, str]:
    """Return what the store's listing tells of a table without opening it."""
    return {
        "day": str(table.day),
        "rows": str(len(table.rows)),
        "unparsed": str(len(table.unparsed)),
        "digest": table.digest,
        "schema": str(SCHEMA_VERSION),
        "exported_until": json.dumps({exchange: str(day) for exchange, day in table.exported_until.items()}),
    }


def told_of_exports(metadata: Mapping[str, str]) -> dict[str, date]:
    """Return what the metadata of a table says of exports; nothing where they are somebody else's."""
    try:
        return {e: date.fromisoformat(day) for e, day in json.loads(metadata["exported_until"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def table_bytes(table: InstrumentTable) -> bytes:
    """Return the Parquet file of a table; equal tables give equal bytes with one version of the library."""
    reported = json.dumps([astuple(row) for row in table.unparsed])
    facts = {**object_metadata(table), "unparsed": reported, "groups": _groups_text(table.groups)}
    rows = _arrow(table.rows).replace_schema_metadata(facts)
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", compression_level=1)
    return sink.getvalue()


def read_table(body: bytes, where: str, day: date) -> InstrumentTable:
    """Return the table of a day in a Parquet file, equal to the one written.

    Raises ConflictError naming `where` for another file, another day's, and one with other rows than were written.
    """
    try:
        # No thread of Arrow's: one that lets go of `body` while the interpreter ends aborts the process.
        rows = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False).read(use_threads=False)
        metadata = {name.decode(): text.decode() for name, text in (rows.schema.metadata or {}).items()}
        until = {exchange: date.fromisoformat(day) for exchange, day in json.loads(metadata["exported_until"]).items()}
        groups = json.loads(metadata.get("groups", "null"))
        return InstrumentTable(
            day=day,
            rows=_instruments(_proven(rows.cast(SCHEMA), metadata, day)),
            # A table from before groups were kept is made anew.
            exported_until={} if groups is None else until,
            unparsed=tuple(Unparsed(*row) for row in json.loads(metadata["unparsed"])),
            groups=tuple(_group(item) for item in groups or ()),
        )
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as e:
        again = f"runner submit instruments --start-date {day} --end-date {day} --select all"
        raise ConflictError(f"{where} is no instrument table of that day ({e}); make it anew: {again}") from e


def _proven(rows: pa.Table, metadata: Mapping[str, str], day: date) -> pa.Table:
    """Return the rows if they are the day's and all that were written. Raises ValueError."""
    if metadata["day"] != str(day):
        raise ValueError(f"it is the table of {metadata['day']}")
    if "groups" in metadata and metadata["digest"] != _digest(rows, metadata["groups"]):
        raise ValueError(f"its {rows.num_rows} rows are not the {metadata.get('rows')} that were written")
    return rows


def _digest(rows: pa.Table, groups: str) -> str:
    digest = Digest(SCHEMA)
    digest.update(rows)
    return hashlib.sha256(f"{digest.hexdigest()} {groups}".encode()).hexdigest()


def _groups_text(groups: tuple[Group, ...]) -> str:
    return json.dumps([{**asdict(g), "instrument_type": g.instrument_type} for g in groups], default=str)


def _group(item: Mapping[str, Any]) -> Group:
    since, to = item["available_from"], item["available_to"]
    return Group(
        tardis_exchange=item["tardis_exchange"],
        tardis_symbol=item["tardis_symbol"],
        data_types=tuple(item["data_types"]),
        available_from=datetime.fromisoformat(since),
        available_to=None if to is None else datetime.fromisoformat(to),
    )


# One for digest and bytes of a table; and of two days with the same instruments the second costs nothing.
@lru_cache(maxsize=1)
def _arrow(rows: tuple[Instrument, ...]) -> pa.Table:
    columns = zip(*map(_VALUES, rows), strict=True) if rows else ([] for _ in SCHEMA)
    return pa.table([pa.array(c, kind) for c, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def _instruments(rows: pa.Table) -> tuple[Instrument, ...]:
    # Times as numbers and types as one text: both are cheap to hand over and to hash, which is what most rows end with.
    rows = rows.set_column(_TYPES, "data_types", pc.binary_join(rows.column("data_types"), _COMMA))
    numbers = (column.cast(pa.int64()) if column.type == _TIME else column for column in rows.columns)
    return tuple(map(_instrument, *(column.to_pylist() for column in numbers)))


@lru_cache(maxsize=_INSTRUMENTS_KEPT)
def _instrument(*row: Any) -> Instrument:
    """Return the instrument of a row; equal rows, as most of any two days are, give one object."""
    values = dict(zip(SCHEMA.names, row, strict=True))
    times = {n: _EPOCH + timedelta(microseconds=values[n]) for n in _TIMES if values[n] is not None}
    types = values["data_types"].split(_COMMA) if values["data_types"] else ()
    return Instrument(**{**values, **times, "data_types": tuple(types)})
