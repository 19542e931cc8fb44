"""Columns of everything stored: ticks by data type, candles, book candles.

One table drives CSV reading, tick storing and Parquet encodings: a new data type is one row of `_FIELDS`
(and its name in names.py). Columns are those of the vendor's files, in their order, without exchange and symbol.
Parquet key-value metadata is not part of a schema here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from runner.market.digest import Digest
from runner.market.names import DATA_TYPE_NAMES, DEFAULT_DATA_TYPES, SCHEMA_VERSION, TIMEFRAMES, book_depth

__all__ = [
    "CANDLES",
    "DATA_TYPES",
    "DEFAULT_DATA_TYPES",
    "OPTION_FEATURES",
    "SCHEMA_VERSION",
    "TICK_ROW_GROUP",
    "TIME",
    "TIMEFRAMES",
    "Column",
    "DataType",
    "Digest",
    "book_candles_schema",
    "book_depth",
    "encoding_of",
    "writer_options",
]

TICK_ROW_GROUP = 131_072
"""Rows of a row group of ticks: two slices of the aggregation."""

TIME = pa.timestamp("us", tz="UTC")
_NUMBER = pa.float64()
_COUNT = pa.int64()
_TEXT = pa.string()
_FLAG = pa.bool_()

DICTIONARY = "DICTIONARY"


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column: its name in the CSV header, its stored name, Arrow type and Parquet encoding."""

    csv: str
    name: str
    type: pa.DataType
    encoding: str


@dataclass(frozen=True, slots=True)
class DataType:
    """A kind of tick file: the whole CSV header in order, and what of it is stored."""

    name: str
    csv_columns: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def ticks(self) -> pa.Schema:
        """Return the schema of stored ticks.

        >>> DATA_TYPES["quotes"].ticks.names
        ['timestamp', 'local_timestamp', 'ask_amount', 'ask_price', 'bid_price', 'bid_amount']
        """
        return pa.schema([(column.name, column.type) for column in self.columns])

    @property
    def grouped(self) -> DataType:
        """Return the type as in the file of a group, where `symbol` tells rows apart and is stored.

        >>> DATA_TYPES["liquidations"].grouped.ticks.names[:4]
        ['timestamp', 'local_timestamp', 'symbol', 'id']
        """
        if any(column.name == "symbol" for column in self.columns):
            return self
        symbol = Column("symbol", "symbol", _TEXT, DICTIONARY)
        return replace(self, columns=(*self.columns[:2], symbol, *self.columns[2:]))


def encoding_of(name: str, kind: pa.DataType) -> str:
    """Return the Parquet encoding of a column: times are near each other, ids share prefixes, numbers and words repeat.

    >>> encoding_of("timestamp", TIME), encoding_of("id", pa.string()), encoding_of("price", pa.float64())
    ('DELTA_BINARY_PACKED', 'DELTA_BYTE_ARRAY', 'DICTIONARY')
    """
    if pa.types.is_timestamp(kind):
        return "DELTA_BINARY_PACKED"
    if name == "id":
        return "DELTA_BYTE_ARRAY"
    return "PLAIN" if pa.types.is_boolean(kind) else DICTIONARY


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the keyword arguments of `pyarrow.parquet.ParquetWriter` for a schema.

    >>> options = writer_options(DATA_TYPES["trades"].ticks)
    >>> options["use_dictionary"], options["compression"], options["compression_level"]
    (['side', 'price', 'amount'], 'zstd', 1)
    """
    encodings = {field.name: encoding_of(field.name, field.type) for field in schema}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name, encoding in encodings.items() if encoding == DICTIONARY],
        "column_encoding": {name: encoding for name, encoding in encodings.items() if encoding != DICTIONARY},
        "write_statistics": True,
        # Every type here is told by Parquet's own schema; Arrow's beside it is most of a small object's footer.
        "store_schema": False,
    }


_Field = tuple[str, str, pa.DataType]  # CSV name, stored name, type


def _same(**kinds: pa.DataType) -> tuple[_Field, ...]:
    return tuple((name, name, kind) for name, kind in kinds.items())


def _levels(depth: int) -> tuple[_Field, ...]:
    return tuple(
        (f"{side}s[{level}].{csv}", f"{side}_{stored}_{level + 1}", _NUMBER)
        for level in range(depth)
        for side in ("ask", "bid")
        for csv, stored in (("price", "price"), ("amount", "volume"))
    )


_TOP = _same(ask_amount=_NUMBER, ask_price=_NUMBER, bid_price=_NUMBER, bid_amount=_NUMBER)
_FILL = _same(id=_TEXT, side=_TEXT, price=_NUMBER, amount=_NUMBER)

# The table. Source of the headers: https://docs.tardis.dev/downloadable-csv-files (checked against real files).
_FIELDS: Mapping[str, tuple[_Field, ...]] = {
    "trades": _FILL,
    "quotes": _TOP,
    "book_ticker": _TOP,
    "book_snapshot_5": _levels(5),
    "book_snapshot_25": _levels(25),
    "incremental_book_L2": _same(is_snapshot=_FLAG, side=_TEXT, price=_NUMBER, amount=_NUMBER),
    "derivative_ticker": _same(
        funding_timestamp=TIME,
        funding_rate=_NUMBER,
        predicted_funding_rate=_NUMBER,
        open_interest=_NUMBER,
        last_price=_NUMBER,
        index_price=_NUMBER,
        mark_price=_NUMBER,
    ),
    "liquidations": _FILL,
    "options_chain": _same(
        symbol=_TEXT,
        type=_TEXT,
        strike_price=_NUMBER,
        expiration=TIME,
        **dict.fromkeys(("open_interest", "last_price", "bid_price", "bid_amount", "bid_iv"), _NUMBER),
        **dict.fromkeys(("ask_price", "ask_amount", "ask_iv", "mark_price", "mark_iv"), _NUMBER),
        underlying_index=_TEXT,
        underlying_price=_NUMBER,
        **dict.fromkeys(("delta", "gamma", "vega", "theta", "rho"), _NUMBER),
    ),
}


def _data_type(name: str) -> DataType:
    fields = _same(timestamp=TIME, local_timestamp=TIME) + _FIELDS[name]
    return DataType(
        name=name,
        csv_columns=("exchange", "symbol", *(csv for csv, _, _ in fields if csv != "symbol")),
        columns=tuple(Column(csv, stored, kind, encoding_of(stored, kind)) for csv, stored, kind in fields),
    )


DATA_TYPES: Mapping[str, DataType] = MappingProxyType({name: _data_type(name) for name in DATA_TYPE_NAMES})
"""Data type name to its columns."""

_BAR = (
    *((name, _TEXT) for name in ("venue", "instrument_key", "timeframe")),
    *((name, TIME) for name in ("timestamp", "timestamp_out")),
    ("listed", _FLAG),
)

CANDLES: pa.Schema = pa.schema(
    [
        *_BAR,
        *((name, _NUMBER) for name in ("open", "high", "low", "close", "volume", "volume_base", "volume_quote")),
        ("trade_count", _COUNT),
        *((name, _NUMBER) for name in ("vwap", "price_change", "price_change_pct")),
        ("is_green", _FLAG),
        *((name, _NUMBER) for name in ("latency_ms", "buy_volume_sum", "sell_volume_sum", "size_avg", "price_vwap")),
        *((name, _NUMBER) for name in ("delay_mean", "delay_max", "delay_min", "delay_median")),
        # From here on joined from other data types: null in candles of trades alone.
        *((name, _NUMBER) for name in ("liquidation_buy_volume", "liquidation_sell_volume")),
        ("liquidation_count", _COUNT),
        *((name, _NUMBER) for name in ("funding_rate", "predicted_funding_rate", "index_price", "mark_price")),
        *((name, _NUMBER) for name in ("open_interest", "oi_change")),
        *((name, _NUMBER) for name in ("liquidation_with_rising_oi", "liquidation_with_falling_oi")),
        *((name, _NUMBER) for name in ("skew_25d_put_call_ratio", "atm_mark_iv")),
    ]
)
"""One candle a row. Times in ms where a name says delay or latency; `timestamp` is the bar's open."""


OPTION_FEATURES: pa.Schema = pa.schema(
    [
        *((name, _TEXT) for name in ("venue", "underlying", "timeframe")),
        *((name, TIME) for name in ("timestamp", "timestamp_out")),
        ("listed", _FLAG),
        *((name, _NUMBER) for name in ("skew_25d_put_call_ratio", "atm_mark_iv")),
        ("expiry", TIME),
        *((name, _NUMBER) for name in ("put_strike", "put_mark_iv", "call_strike", "call_mark_iv", "atm_strike")),
    ]
)
"""One bar of an underlying a row, sampled at the bar's end; `market.options` says what the columns are."""


def _book_features(depth: int) -> Iterator[tuple[str, pa.DataType]]:
    levels = range(1, depth + 1)
    yield from ((name, _NUMBER) for name in ("mid_price", "spread_abs", "spread_bps", "bid_ask_ratio"))
    yield ("crossed", _FLAG)
    yield from ((f"{side}_distance_{level}", _NUMBER) for side in ("bid", "ask") for level in levels)
    yield from ((name, _NUMBER) for name in ("total_bid_volume", "total_ask_volume", "volume_imbalance"))
    yield from ((f"{side}_volume_ratio_{level}", _NUMBER) for side in ("bid", "ask") for level in levels)
    yield from ((name, _NUMBER) for name in ("bid_vwap", "ask_vwap", "vwap_spread"))
    yield from ((name, _COUNT) for name in ("bid_levels_filled", "ask_levels_filled"))
    yield ("book_imbalance", _NUMBER)


def book_candles_schema(depth: int) -> pa.Schema:
    """Return the schema of book candles of `depth` levels (level 1 is the best).

    >>> book_candles_schema(5).names[5:9]
    ['listed', 'snapshot_timestamp', 'ask_price_1', 'ask_volume_1']
    >>> len(book_candles_schema(25)) - len(book_candles_schema(5))
    160
    """
    stored = ((name, kind) for _, name, kind in _levels(depth))
    return pa.schema([*_BAR, ("snapshot_timestamp", TIME), *stored, *_book_features(depth)])
