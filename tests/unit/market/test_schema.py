"""The schema table against the vendor's real headers and the stored columns written out by hand."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.market import names
from runner.market.schema import (
    CANDLES,
    DATA_TYPES,
    DEFAULT_DATA_TYPES,
    TIMEFRAMES,
    Digest,
    book_candles_schema,
    writer_options,
)

ROOT = Path(__file__).resolve().parents[3]
SANDBOX = ROOT / "runner" / "sandbox" / "data" / "binance"
BOOK_25 = ROOT / "tests" / "data" / "tardis-csv" / "binance_book_snapshot_25_2024-08-08_BTCUSDT.csv.gz"

HEADERS = {
    "trades": "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
    "quotes": "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
    "book_ticker": "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
    "incremental_book_L2": "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount",
    "derivative_ticker": "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,"
    "predicted_funding_rate,open_interest,last_price,index_price,mark_price",
    "liquidations": "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
    "options_chain": "exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest,last_price,"
    "bid_price,bid_amount,bid_iv,ask_price,ask_amount,ask_iv,mark_price,mark_iv,underlying_index,underlying_price,"
    "delta,gamma,vega,theta,rho",
}


def header(path: Path) -> tuple[str, ...]:
    with gzip.open(path, "rt") as text:
        return tuple(next(csv.reader(text)))


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_the_documented_ones(name: str) -> None:
    assert ",".join(DATA_TYPES[name].csv_columns) == HEADERS[name]


@pytest.mark.parametrize("name", ["trades", "quotes", "book_snapshot_5"])
def test_headers_are_those_of_real_files(name: str) -> None:
    for path in (SANDBOX / name).rglob("*.csv.gz"):
        assert DATA_TYPES[name].csv_columns == header(path)


def test_the_header_of_25_levels_is_that_of_a_real_file() -> None:
    assert DATA_TYPES["book_snapshot_25"].csv_columns == header(BOOK_25)


def test_ticks_of_trades_have_these_columns_and_types() -> None:
    time = pa.timestamp("us", tz="UTC")
    columns = [("timestamp", time), ("local_timestamp", time), ("id", pa.string()), ("side", pa.string())]
    assert DATA_TYPES["trades"].ticks == pa.schema([*columns, ("price", pa.float64()), ("amount", pa.float64())])


OPTIONS_CHAIN_COLUMNS = """
timestamp local_timestamp symbol type strike_price expiration open_interest last_price bid_price bid_amount bid_iv
ask_price ask_amount ask_iv mark_price mark_iv underlying_index underlying_price delta gamma vega theta rho
"""


def test_options_chain_keeps_the_symbol_of_each_row_and_words_beside_numbers() -> None:
    schema = DATA_TYPES["options_chain"].ticks
    assert schema.names == OPTIONS_CHAIN_COLUMNS.split()
    others = {"timestamp", "local_timestamp", "expiration", "symbol", "type", "underlying_index"}
    assert {field.name for field in schema if field.type != pa.float64()} == others


@pytest.mark.parametrize(("name", "depth"), [("book_snapshot_5", 5), ("book_snapshot_25", 25)])
def test_book_levels_are_counted_from_one_and_each_goes_ask_then_bid(name: str, depth: int) -> None:
    expected = ["timestamp", "local_timestamp"]
    for n in range(1, depth + 1):
        expected += [f"ask_price_{n}", f"ask_volume_{n}", f"bid_price_{n}", f"bid_volume_{n}"]
    assert DATA_TYPES[name].ticks.names == expected
    assert names.book_depth(name) == depth


def test_every_stored_column_names_its_column_of_the_file() -> None:
    for data_type in DATA_TYPES.values():
        assert tuple(c.csv for c in data_type.columns if c.csv != "symbol") == data_type.csv_columns[2:]
    pairs = {column.csv: column.name for column in DATA_TYPES["book_snapshot_5"].columns}
    assert (pairs["asks[0].price"], pairs["bids[4].amount"]) == ("ask_price_1", "bid_volume_5")


def test_timeframes_divide_the_day_and_each_other() -> None:
    assert [86_400 // seconds for seconds in TIMEFRAMES.values()] == [5760, 1440, 288, 96, 24, 6, 1]
    assert set(DEFAULT_DATA_TYPES) <= set(DATA_TYPES) == set(names.DATA_TYPE_NAMES)


CANDLE_COLUMNS = """
venue instrument_key timeframe timestamp timestamp_out listed open high low close volume volume_base volume_quote
trade_count vwap price_change price_change_pct is_green latency_ms buy_volume_sum sell_volume_sum size_avg price_vwap
delay_mean delay_max delay_min delay_median liquidation_buy_volume liquidation_sell_volume liquidation_count
funding_rate predicted_funding_rate index_price mark_price open_interest oi_change liquidation_with_rising_oi
liquidation_with_falling_oi skew_25d_put_call_ratio atm_mark_iv
"""
BOOK_CANDLE_COLUMNS_OF_TWO_LEVELS = """
venue instrument_key timeframe timestamp timestamp_out listed snapshot_timestamp
ask_price_1 ask_volume_1 bid_price_1 bid_volume_1 ask_price_2 ask_volume_2 bid_price_2 bid_volume_2
mid_price spread_abs spread_bps bid_ask_ratio crossed
bid_distance_1 bid_distance_2 ask_distance_1 ask_distance_2 total_bid_volume total_ask_volume volume_imbalance
bid_volume_ratio_1 bid_volume_ratio_2 ask_volume_ratio_1 ask_volume_ratio_2
bid_vwap ask_vwap vwap_spread bid_levels_filled ask_levels_filled book_imbalance
"""


def test_candles_have_every_column_of_the_contract() -> None:
    assert CANDLES.names == CANDLE_COLUMNS.split()


def test_book_candles_have_every_column_of_the_contract() -> None:
    assert book_candles_schema(2).names == BOOK_CANDLE_COLUMNS_OF_TWO_LEVELS.split()


@pytest.mark.parametrize("schema", [*(t.ticks for t in DATA_TYPES.values()), CANDLES, book_candles_schema(5)])
def test_every_schema_is_written_with_the_promised_encodings_and_read_back(tmp_path: Path, schema: pa.Schema) -> None:
    rows = pa.table(
        [pa.array([0] * 50).cast(pa.bool_() if pa.types.is_boolean(f.type) else f.type) for f in schema], schema
    )
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
        writer.write_table(rows)
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        for at, field in enumerate(schema):
            column = group.column(at)
            assert column.compression == "ZSTD"
            assert column.is_stats_set
            wanted = "DELTA_BINARY_PACKED" if pa.types.is_timestamp(field.type) else "RLE_DICTIONARY"
            wanted = {"id": "DELTA_BYTE_ARRAY"}.get(field.name, "PLAIN" if field.type == pa.bool_() else wanted)
            assert wanted in column.encodings, (field.name, column.encodings)
        written, read = Digest(schema), Digest(schema)
        written.update(rows)
        read.update(file.read())
        assert file.schema_arrow == schema
    assert written.hexdigest() == read.hexdigest()


def test_names_come_without_pyarrow() -> None:
    code = "import sys, runner.market.names; sys.exit('pyarrow' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
