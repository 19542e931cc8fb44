"""The CSV reader against polars on real files, against every way a file can be wrong, and against mutations of both."""

from __future__ import annotations

import csv as plain_csv
import gzip
import io
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner.sandbox
from runner.errors import IntegrityError
from runner.market.schema import DATA_TYPES
from runner.tardis import csv

SHIPPED = Path(runner.sandbox.__file__).parent / "data/binance"
REAL = {
    **{
        (name, day): SHIPPED / f"{name}/2024/08/{day}/BTCUSDT.csv.gz"
        for name in ("trades", "quotes", "book_snapshot_5")
        for day in ("08", "09")
    },
    ("book_snapshot_25", "08"): Path(__file__).parents[2]
    / "data/tardis-csv/binance_book_snapshot_25_2024-08-08_BTCUSDT.csv.gz",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = 1723161540086000
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
GOOD = f"binance,BTCUSDT,{T},{T + 1},7,buy,61717.64,0.06402\n"


def pieces(data, size):
    return (data[start : start + size] for start in range(0, len(data), size))


def read(raw, name="trades", *, chunk=1 << 16, **options):
    batches = list(csv.read(pieces(raw, chunk), DATA_TYPES[name], exchange="binance", symbol="BTCUSDT", **options))
    return pa.Table.from_batches(batches, DATA_TYPES[name].ticks)


def read_text(text, name="trades", **options):
    return read(gzip.compress(text.encode() if isinstance(text, str) else text), name, **options)


# Stored names of book columns, written down from the contract, not taken from the table under test.
LEVEL = {"asks": "ask", "bids": "bid", "price": "price", "amount": "volume"}


def stored_name(column):
    if "[" not in column:
        return column
    side, level, field = column.replace("[", " ").replace("].", " ").split()
    return f"{LEVEL[side]}_{LEVEL[field]}_{int(level) + 1}"


@pytest.mark.parametrize(("name", "day"), REAL)
def test_real_files_are_read_as_polars_reads_them(name, day):
    raw = REAL[name, day].read_bytes()
    ours = read(raw, name)
    kept = [c for c in gzip.decompress(raw).split(b"\n", 1)[0].decode().split(",") if c not in ("exchange", "symbol")]
    types = {c: pl.Int64 if "timestamp" in c else pl.String if c in ("id", "side") else pl.Float64 for c in kept}
    theirs = pl.read_csv(gzip.decompress(raw), columns=kept, schema_overrides=types)
    assert ours.schema.equals(DATA_TYPES[name].ticks)
    assert ours.column_names == [stored_name(c) for c in kept]
    assert ours.num_rows == theirs.height > 400
    for column in kept:
        column_ours = ours[stored_name(column)]
        if "timestamp" in column:
            assert column_ours.type == pa.timestamp("us", tz="UTC")
            column_ours = column_ours.cast(pa.int64())
        assert column_ours.to_pylist() == theirs[column].to_list(), column


def test_real_trades_are_read_as_plain_python_reads_them():
    raw = REAL["trades", "08"].read_bytes()
    rows = plain_csv.DictReader(io.StringIO(gzip.decompress(raw).decode()))
    expected = [
        {
            "timestamp": EPOCH + timedelta(microseconds=int(row["timestamp"])),
            "local_timestamp": EPOCH + timedelta(microseconds=int(row["local_timestamp"])),
            "id": row["id"],
            "side": row["side"],
            "price": float(row["price"]),
            "amount": float(row["amount"]),
        }
        for row in rows
    ]
    assert read(raw).to_pylist() == expected


@pytest.mark.parametrize("name", ["trades", "quotes", "book_snapshot_5"])
@pytest.mark.parametrize("block_bytes", [1, 2, 79, 4096, 1 << 30])
def test_blocks_of_any_size_hold_the_same_rows(name, block_bytes):
    raw = REAL[name, "08"].read_bytes()
    batches = list(
        csv.read(iter([raw]), DATA_TYPES[name], exchange="binance", symbol="BTCUSDT", block_bytes=block_bytes)
    )
    assert all(batch.schema.equals(DATA_TYPES[name].ticks) for batch in batches)
    assert pa.Table.from_batches(batches).combine_chunks().equals(read(raw, name).combine_chunks())
    assert len(batches) == 1 if block_bytes == 1 << 30 else len(batches) > 5


@pytest.mark.parametrize("chunk", [1, 2, 17, 1000, 1 << 20])
def test_chunks_of_any_size_hold_the_same_rows(chunk):
    raw = REAL["trades", "08"].read_bytes()
    assert read(raw, chunk=chunk).equals(read(raw))


def test_members_may_end_anywhere():
    raw = REAL["trades", "08"].read_bytes()
    text = gzip.decompress(raw)
    members = gzip.compress(b"") + b"".join(gzip.compress(part) for part in pieces(text, 7001)) + gzip.compress(b"")
    for chunk in (1, 5000, 1 << 20):
        assert read(members, chunk=chunk).equals(read(raw))


@pytest.mark.parametrize("text", ["", TRADES])
def test_a_day_without_rows_yields_nothing(text):
    raw = gzip.compress(text.encode())
    assert list(csv.read(iter([raw]), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT")) == []


def test_exchange_is_lower_and_symbol_upper_case_whatever_was_asked():
    raw = gzip.compress((TRADES + GOOD).encode())
    (batch,) = csv.read(iter([raw]), DATA_TYPES["trades"], exchange="Binance", symbol="btcusdt")
    assert batch.num_rows == 1


@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
@pytest.mark.parametrize("written", ["XRP_USDC-9AUG24-0d5-C", "XRP_USDC-9AUG24-0D5-C"])
def test_a_symbol_is_in_capitals_or_as_the_venue_writes_it(written, block_bytes):
    def rows_of(*symbols):
        text = TRADES + "".join(f"deribit,{symbol},{T},{T + 1},7,buy,1.5,2\n" for symbol in symbols)
        asked = {"exchange": "deribit", "symbol": "XRP_USDC-9AUG24-0d5-C", "block_bytes": block_bytes}
        return sum(
            batch.num_rows for batch in csv.read(iter([gzip.compress(text.encode())]), DATA_TYPES["trades"], **asked)
        )

    assert rows_of(written, written) == 2
    for other in ("XRP_USDC-9AUG24-0d6-C", "xrp_usdc-9aug24-0d5-c", written.swapcase()):
        with pytest.raises(IntegrityError, match="line 3: not a row of deribit,XRP_USDC"):
            rows_of(written, other)


def test_ids_stay_text():
    ids = ["9007199254740993", "007", "", "1e5", "nan", "8a0f-GUID", "0xff", "0XFF", '"quoted"', "a b", "ä"]
    rows = "".join(f"binance,BTCUSDT,{T},{T},{each},unknown,1,2\n" for each in ids)
    assert read_text(TRADES + rows)["id"].to_pylist() == ids


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-8", 1e-8), ("1E5", 1e5), ("0", 0.0), ("-0.5", -0.5), ("123456789.123456789", 123456789.123456789)],
)
def test_numbers_are_the_nearest_double(text, value):
    assert read_text(TRADES + GOOD.replace("61717.64", text))["price"].to_pylist() == [value]


def test_absent_levels_are_null():
    header = gzip.decompress(REAL["book_snapshot_5", "08"].read_bytes()).split(b"\n", 1)[0].decode()
    row = f"binance,BTCUSDT,{T},{T}," + ",".join(["1.5", "2", "", ""] * 5)
    table = read_text(f"{header}\n{row}\n", "book_snapshot_5")
    assert table["ask_price_3"].to_pylist() == [1.5]
    assert table["bid_price_3"].to_pylist() == [None]
    assert table["bid_volume_5"].to_pylist() == [None]


def test_further_types_need_nothing_more():
    ticker = (
        "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,predicted_funding_rate,"
        f"open_interest,last_price,index_price,mark_price\nbinance,BTCUSDT,{T},{T},,0.0001,,5,6,7,8\n"
        f"binance,BTCUSDT,{T},{T},{T + 5},,,,,,\n"
    )
    table = read_text(ticker, "derivative_ticker")
    assert table["funding_timestamp"].cast(pa.int64()).to_pylist() == [None, T + 5]
    assert table["funding_rate"].to_pylist() == [0.0001, None]
    book = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"
    row = "binance,BTCUSDT,{0},{0},{1},{2},1,0\n"
    table = read_text(book + row.format(T, "true", "bid") + row.format(T, "false", "ask"), "incremental_book_L2")
    assert table["is_snapshot"].to_pylist() == [True, False]
    assert table["side"].to_pylist() == ["bid", "ask"]
    for flag, side in (("1", "bid"), ("True", "bid"), ("", "bid"), ("true", "buy")):
        with pytest.raises(IntegrityError, match="line 2"):
            read_text(book + row.format(T, flag, side), "incremental_book_L2")


def changed(field, value):
    fields = GOOD.rstrip("\n").split(",")
    fields[TRADES.rstrip("\n").split(",").index(field)] = value
    return ",".join(fields) + "\n"


@pytest.mark.parametrize("before", [0, 1, 57, 5000])
@pytest.mark.parametrize(
    ("row", "why"),
    [
        (GOOD.replace(",buy", ""), "columns"),
        (GOOD.replace("\n", ",\n"), "columns"),
        ("\n", ""),
        (changed("price", "nan"), "price is not a finite number"),
        (changed("price", "NaN"), ""),
        (changed("price", "inf"), "price is not a finite number"),
        (changed("amount", "-Infinity"), "amount is not a finite number"),
        (changed("amount", "1e999"), "amount is not a finite number"),
        (changed("price", "cheap"), "cheap"),
        (changed("price", "NULL"), "NULL"),
        (changed("price", " 1"), "blanks"),
        (changed("price", "1 "), "blanks"),
        (changed("price", "1_0"), "1_0"),
        (changed("price", '"1"'), ""),
        (changed("price", ""), "price is empty"),
        (changed("amount", ""), "amount is empty"),
        (changed("amount", "\t1"), "blanks"),
        (changed("amount", "1\t"), "blanks"),
        (changed("amount", "1\0"), "NUL"),
        (changed("id", "\0"), "NUL"),
        (GOOD.replace("\n", "\r\n"), "carriage return"),
        (changed("id", "a\rb"), "carriage return"),
        (changed("side", "BUY"), "side is none of"),
        (changed("side", ""), "side is none of"),
        (changed("side", "bid"), "side is none of"),
        (changed("exchange", "bybit"), "not a row of binance,BTCUSDT"),
        (changed("exchange", "Binance"), "not a row of"),
        (changed("symbol", "ETHUSDT"), "not a row of"),
        (changed("symbol", "BTCUSDT2"), "not a row of"),
        (changed("symbol", "btcusdt"), "not a row of"),
        (changed("timestamp", ""), "timestamp is empty"),
        (changed("local_timestamp", ""), "local_timestamp is empty"),
        (changed("local_timestamp", str(T // 1000)), "local_timestamp is no time in microseconds"),
        (changed("local_timestamp", str(T * 1000)), "local_timestamp is no time in microseconds"),
        (changed("timestamp", str(T // 1_000_000)), "timestamp is no time in microseconds"),
        (changed("timestamp", "0"), "timestamp is no time"),
        (changed("timestamp", str(-T)), "timestamp is no time"),
        (changed("timestamp", str(2**63)), ""),
        (changed("timestamp", "2024-08-08T23:59:00Z"), "2024-08-08"),
        (changed("timestamp", f"{T}.5"), ""),
        (changed("timestamp", f"+{T}"), ""),
        (changed("timestamp", hex(T)), "hexadecimal"),
        (changed("local_timestamp", hex(T).upper()), "hexadecimal"),
        (TRADES, "not a row of"),
        (b"binance,BTCUSDT,%d,%d,\xff,buy,1,1\n" % (T, T), "UTF8"),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, str | bytes) else str(value),
)
def test_a_wrong_row_is_named_by_its_line(before, row, why):
    text = (TRADES + GOOD * before).encode() + (row.encode() if isinstance(row, str) else row) + GOOD.encode() * 3
    with pytest.raises(IntegrityError, match=rf"^line {before + 2}: .*{why}") as caught:
        read_text(text, block_bytes=10_000)
    assert "\n" not in str(caught.value)


DAY_US = 86_400_000_000
MIDNIGHT_US = 1723075200000000  # 2024-08-08T00:00:00Z


@pytest.mark.parametrize("arrival_us", [MIDNIGHT_US - DAY_US, MIDNIGHT_US + 2 * DAY_US - 1])
def test_a_row_may_have_arrived_a_day_off_and_its_exchange_time_may_be_any(arrival_us):
    row = changed("local_timestamp", str(arrival_us)).replace(str(T), str(T - 400 * DAY_US), 1)
    table = read_text(TRADES + row, day=date(2024, 8, 8))
    assert table["local_timestamp"].cast(pa.int64()).to_pylist() == [arrival_us]


@pytest.mark.parametrize("arrival_us", [MIDNIGHT_US - DAY_US - 1, MIDNIGHT_US + 2 * DAY_US])
def test_a_row_that_arrived_more_than_a_day_off_is_refused(arrival_us):
    row = changed("local_timestamp", str(arrival_us))
    assert read_text(TRADES + row).num_rows == 1, "no day, no judgement"
    with pytest.raises(IntegrityError, match="line 3: local_timestamp is more than a day off 2024-08-08"):
        read_text(TRADES + GOOD + row + GOOD, day=date(2024, 8, 8))


@pytest.mark.parametrize(
    "header",
    [
        "\ufeff" + TRADES,
        TRADES.replace("\n", "\r\n"),
        TRADES.replace("price,amount", "amount,price"),
        TRADES.replace(",amount", ""),
        TRADES.replace("amount", "amount,extra"),
        TRADES.upper(),
        " " + TRADES,
        GOOD,
        "\n",
    ],
)
def test_a_wrong_header_is_line_one(header):
    for text in (header, header + GOOD):
        with pytest.raises(IntegrityError, match=r"^line 1: the header is not that of trades"):
            read_text(text)


@pytest.mark.parametrize("text", [TRADES[:-1], TRADES + GOOD[:-1], TRADES + GOOD + "b", TRADES + GOOD + "\0"])
def test_a_last_line_that_is_not_ended_is_refused(text):
    with pytest.raises(IntegrityError, match="last line is not ended"):
        read_text(text)


def test_a_line_without_end_does_not_fill_the_memory():
    taken = []

    def endless():
        member = gzip.compress(b"x" * 1_000_000)
        for n in range(1000):
            taken.append(n)
            yield member

    with pytest.raises(IntegrityError, match="a line of more than"):
        list(csv.read(endless(), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT"))
    assert len(taken) < 20


def test_every_cut_of_a_real_file_is_found():
    raw = REAL["quotes", "08"].read_bytes()
    for end in [*range(40), *range(40, len(raw), 61), *range(len(raw) - 20, len(raw))]:
        with pytest.raises(IntegrityError):
            read(raw[:end], "quotes")


@pytest.mark.parametrize("damaged", range(-8, 0))
def test_a_damaged_trailer_is_found(damaged):
    raw = bytearray(REAL["quotes", "08"].read_bytes())
    raw[damaged] ^= 1
    with pytest.raises(IntegrityError, match="damaged gzip stream"):
        read(bytes(raw), "quotes")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty body"),
        (b"<!DOCTYPE html>\n<p>Just a moment...", r"an HTML page: '<!DOCTYPE html> <p>Just"),
        (b"\n <html>", "an HTML page"),
        ((TRADES + GOOD).encode(), "not gzip but something else: 'exchange,symbol"),
        (b'{"code": 1}', "something else"),
        (b"\x1f", "cut"),
        (b"\x1fzzzzzzzzzzzzzzzzzzzzzzzz", "not gzip"),
        (gzip.compress((TRADES + GOOD).encode()) + b"more", "garbage after"),
        (gzip.compress((TRADES + GOOD).encode()) + b"\0" * 8, "garbage after"),
        (gzip.compress((TRADES + GOOD).encode()) + b"\x1f", "cut"),
        (gzip.compress((TRADES + GOOD).encode()) + gzip.compress(GOOD.encode())[:-1], "cut"),
    ],
)
def test_what_is_not_a_gzip_file_says_what_it_looks_like(raw, why):
    with pytest.raises(IntegrityError, match=why):
        read(raw)


class _LostError(Exception):
    """What a source raises."""


def test_errors_of_the_source_pass_through():
    def chunks():
        yield REAL["trades", "08"].read_bytes()[:1000]
        raise _LostError

    with pytest.raises(_LostError):
        list(csv.read(chunks(), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT"))


SMALL = b"".join(gzip.decompress(REAL["trades", "08"].read_bytes()).splitlines(keepends=True)[:40])
SMALL_GZ = gzip.compress(SMALL)


@st.composite
def mutations(draw, data):
    """Return real bytes with some replaced, removed, doubled or inserted."""
    mutated = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(mutated)))
        end = draw(st.integers(start, min(len(mutated), start + 30)))
        kind = draw(st.sampled_from(["replace", "repeat", "move"]))
        if kind == "replace":
            mutated[start:end] = draw(
                st.one_of(st.binary(max_size=8), st.sampled_from(list(b',\n\r\0"0.-eE nN')).map(lambda b: bytes([b])))
            )
        elif kind == "repeat":
            mutated[start:end] = mutated[start:end] * 2
        else:
            mutated[0:0], mutated[start:end] = mutated[start:end], b""
    return bytes(mutated)


def independently(text):
    """Return the rows that plain Python reads, strictly; None where the file is not sound."""
    try:
        lines = text.decode().split("\n")
        if lines.pop() != "" or lines[0] != TRADES[:-1]:
            return None
        rows = [line.split(",") for line in lines[1:]]
        return [
            (int(t), int(local), each, side, float(price), float(amount))
            for _, _, t, local, each, side, price, amount in rows
        ]
    except ValueError:
        return None


@settings(max_examples=400, deadline=None)
@given(mutated=mutations(SMALL), block_bytes=st.sampled_from([1, 100, 1 << 20]))
def test_mutated_rows_are_refused_or_read_as_they_stand(mutated, block_bytes):
    try:
        table = read_text(mutated, block_bytes=block_bytes)
    except IntegrityError:
        return
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in table.columns]
    ours = list(zip(*(c.to_pylist() for c in columns), strict=True))
    assert ours == (independently(mutated) if mutated else [])


@settings(max_examples=300, deadline=None)
@given(mutated=mutations(SMALL_GZ))
def test_mutated_gzip_is_refused_or_harmless(mutated):
    try:
        table = read(mutated)
    except IntegrityError:
        return
    # the name, time and system fields of a gzip head may change without harm, and members may be doubled or lost
    assert table.num_rows in (0, 39)
