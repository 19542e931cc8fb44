"""The instrument table as a file: its fixed schema, bytes, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, date
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import ConflictError
from runner.market.digest import Digest
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


@dataclass(frozen=True)
class InstrumentTable:
    """The instruments listed on a day, by key, and symbols listed then that have no key.

    `exported_until` has the exchanges that the table was made from, each with the first day that it had not exported
    at the time: a later day, or this one, is provisional.
    """

    day: date
    rows: tuple[Instrument, ...]
    exported_until: Mapping[str, date]
    unparsed: tuple[Unparsed, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Return the digest of the rows, whatever file they are in."""
        digest = Digest(SCHEMA)
        digest.update(_arrow(self.rows))
        return digest.hexdigest()

    def updated(self, newer: InstrumentTable) -> InstrumentTable:
        """Return this table with the exchanges of a newer one replaced, or added, by what that says of them."""
        ours, theirs = self.rows, newer.rows
        kept = tuple(row for row in ours if row.tardis_exchange not in newer.exported_until)
        reported = tuple(row for row in self.unparsed if row.exchange not in newer.exported_until)
        return replace(
            self,
            rows=tuple(sorted(kept + theirs, key=lambda row: row.instrument_key)),
            exported_until=dict(sorted({**self.exported_until, **newer.exported_until}.items())),
            unparsed=tuple(sorted(reported + newer.unparsed, key=lambda row: (row.exchange, row.symbol))),
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


def table_bytes(table: InstrumentTable) -> bytes:
    """Return the Parquet file of a table; equal tables give equal bytes with one version of the library."""
    reported = json.dumps([astuple(row) for row in table.unparsed])
    rows = _arrow(table.rows).replace_schema_metadata({**object_metadata(table), "unparsed": reported})
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", compression_level=1)
    return sink.getvalue()


def read_table(body: bytes, where: str) -> InstrumentTable:
    """Return the table in a Parquet file, equal to the one written; raises ConflictError naming `where`."""
    try:
        # No thread of Arrow's: one that lets go of `body` while the interpreter ends aborts the process.
        rows = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False).read(use_threads=False)
        metadata = {name.decode(): text.decode() for name, text in (rows.schema.metadata or {}).items()}
        until = {exchange: date.fromisoformat(day) for exchange, day in json.loads(metadata["exported_until"]).items()}
        return InstrumentTable(
            day=date.fromisoformat(metadata["day"]),
            rows=tuple(_instrument(row) for row in rows.cast(SCHEMA).to_pylist()),
            exported_until=until,
            unparsed=tuple(Unparsed(*row) for row in json.loads(metadata["unparsed"])),
        )
    except (pa.ArrowException, KeyError, TypeError, ValueError) as e:
        raise ConflictError(f"{where} is no instrument table of this program ({e}); move it away and run again") from e


def _arrow(rows: tuple[Instrument, ...]) -> pa.Table:
    columns = [[getattr(row, name) for row in rows] for name in SCHEMA.names]
    return pa.table([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def _instrument(row: Mapping[str, Any]) -> Instrument:
    values = {f.name: row[f.name] for f in fields(Instrument)}
    times = {
        n: values[n].astimezone(UTC) for n in ("available_from", "available_to", "expiry") if values[n] is not None
    }
    return Instrument(**{**values, **times, "data_types": tuple(values["data_types"])})
