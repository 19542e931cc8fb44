"""A file on its way: ticks against a plain CSV reader, candles against plain Python, facts against a re-read."""

import csv
import gzip
import io
import json
import math
import random
import statistics
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner import layout
from runner.errors import IntegrityError
from runner.market.schema import DATA_TYPES, Digest
from runner.stages.convert import Conversion, Ticks, nothing
from runner.stages.derived import candle_object
from runner.stages.subject import Subject
from runner.task import Outcome, Source, Stage, Task

SAMPLES = Path(__file__).parents[3] / "runner" / "sandbox" / "data" / "binance"
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY = date(2024, 8, 8)
BARS = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "24h": 86_400}
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"


def subject_of(data_type: str, day: date = DAY, source: Source | None = None, key: str = KEY) -> Subject:
    return Subject(Task(Stage.DOWNLOAD, day, key, (data_type,)), data_type, source or Source("binance", "BTCUSDT"))


def sample(data_type: str, day: date = DAY) -> bytes:
    return (SAMPLES / data_type / f"{day:%Y/%m/%d}" / "BTCUSDT.csv.gz").read_bytes()


def chunks(body: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def convert(subject: Subject, body: bytes, path: Path, size: int = 1 << 16) -> Ticks:
    with Conversion(subject, path) as conversion:
        conversion.consume(chunks(body, size))
        return conversion.finish("0" * 32, len(body))


def rows_of(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(body).decode())))


def micros(value: datetime) -> int:
    return round(value.replace(microsecond=0).timestamp()) * 1_000_000 + value.microsecond


def footer(path: Path | io.BytesIO) -> dict[str, str]:
    found = pq.read_metadata(path).metadata
    return {k.decode(): v.decode() for k, v in found.items() if k != b"ARROW:schema"}


STORED = {  # CSV name to stored name, as the contract lists the columns
    "trades": {name: name for name in ("timestamp", "local_timestamp", "id", "side", "price", "amount")},
    "quotes": {
        name: name for name in ("timestamp", "local_timestamp", "ask_amount", "ask_price", "bid_price", "bid_amount")
    },
    "book_snapshot_5": {
        "timestamp": "timestamp",
        "local_timestamp": "local_timestamp",
        **{
            f"{side}s[{n}].{csv_name}": f"{side}_{stored}_{n + 1}"
            for n in range(5)
            for side in ("ask", "bid")
            for csv_name, stored in (("price", "price"), ("amount", "volume"))
        },
    },
}


@pytest.mark.parametrize("data_type", STORED)
@pytest.mark.parametrize("day", [date(2024, 8, 8), date(2024, 8, 9)])
def test_ticks_are_the_file_value_by_value_in_its_order(data_type: str, day: date, tmp_path: Path) -> None:
    body = sample(data_type, day)
    ticks = convert(subject_of(data_type, day), body, tmp_path / "t.parquet")
    stored, source = pq.read_table(ticks.path).to_pylist(), rows_of(body)
    assert list(stored[0]) == list(STORED[data_type].values())
    assert len(stored) == len(source)
    for there, here in zip(stored, source, strict=True):
        for csv_name, name in STORED[data_type].items():
            text, value = here[csv_name], there[name]
            if isinstance(value, datetime):
                assert value.tzinfo is not None
                assert micros(value) == int(text)
            elif isinstance(value, str):
                assert value == text
            else:
                assert value == (float(text) if text else None)


@pytest.mark.parametrize("data_type", STORED)
def test_the_footer_tells_what_the_file_is(data_type: str, tmp_path: Path) -> None:
    body = sample(data_type)
    ticks = convert(subject_of(data_type), body, tmp_path / "t.parquet")
    stamps = [int(row["timestamp"]) for row in rows_of(body)]
    known = footer(ticks.path)
    expected = {
        "day": "2024-08-08",
        "data_type": data_type,
        "venue": "BINANCE",
        "key": KEY,
        "rows": str(len(stamps)),
        "min_ts": str(min(stamps)),
        "max_ts": str(max(stamps)),
        "source_md5": "0" * 32,
        "schema": "1",
        "outcome": "done",
    }
    assert {name: known.get(name) for name in expected} == expected
    assert json.loads(known["inputs"]) == [f"tardis:binance/{data_type}/2024-08-08/BTCUSDT"]
    assert ticks.metadata["digest"] == known["digest"]
    assert len(json.dumps(dict(ticks.metadata)).encode()) < 8_192


def test_files_are_encoded_as_documented(tmp_path: Path) -> None:
    ticks = convert(subject_of("trades"), sample("trades"), tmp_path / "t.parquet")
    group = pq.read_metadata(ticks.path).row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert all(c.is_stats_set for c in columns.values())
    assert "DELTA_BINARY_PACKED" in columns["timestamp"].encodings
    assert "DELTA_BINARY_PACKED" in columns["local_timestamp"].encodings
    assert "DELTA_BYTE_ARRAY" in columns["id"].encodings
    assert all("RLE_DICTIONARY" in columns[name].encodings for name in ("side", "price", "amount"))
    assert not group.sorting_columns


def trades_csv(rows: list[tuple[int, int, str, float, float]]) -> bytes:
    lines = (f"binance,BTCUSDT,{t},{lt},{n},{side},{p!r},{a!r}\n" for n, (t, lt, side, p, a) in enumerate(rows))
    return gzip.compress((TRADES + "".join(lines)).encode(), 1)


def synthetic_trades(count: int, day: date, seed: int) -> list[tuple[int, int, str, float, float]]:
    """Rows in arrival order with late, early, equal and reordered exchange times, some of the days around."""
    rng = random.Random(seed)
    start = micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    arrivals = sorted(start + rng.randrange(86_400_000_000) for _ in range(count))
    rows = []
    for local in arrivals:
        exchange = local - rng.choice([0, 1_000, 90_000, 250_000, 5_000_000]) - rng.randrange(2_000)
        if rng.random() < 0.01:
            exchange = start - rng.randrange(1, 10_000_000)
        if rng.random() < 0.01:
            exchange = start + 86_400_000_000 + rng.randrange(5_000_000)
        side = rng.choice(["buy", "sell", "sell", "unknown"])
        rows.append((exchange, local, side, rng.randrange(1, 90_000) / 100, rng.randrange(1, 10_000) / 1_000))
    return rows


def test_row_groups_are_of_131072_rows_whatever_the_chunks(tmp_path: Path) -> None:
    body = trades_csv(synthetic_trades(270_000, DAY, 1))
    first = convert(subject_of("trades"), body, tmp_path / "a.parquet", size=1 << 20)
    second = convert(subject_of("trades"), body, tmp_path / "b.parquet", size=9_973)
    groups = pq.read_metadata(first.path)
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [131_072, 131_072, 7_856]
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.metadata == second.metadata
    assert all(first.candles[key].equals(second.candles[key]) for key in first.candles)


@pytest.mark.parametrize("data_type", STORED)
def test_the_digest_is_of_the_rows_and_not_of_how_they_are_packed(data_type: str, tmp_path: Path) -> None:
    ticks = convert(subject_of(data_type), sample(data_type), tmp_path / "t.parquet")
    table = pq.read_table(ticks.path)
    other = tmp_path / "other.parquet"
    pq.write_table(table, other, compression="none", row_group_size=100, use_dictionary=False)
    digest = Digest(table.schema.remove_metadata())
    digest.update(pq.read_table(other).replace_schema_metadata(None))
    assert digest.hexdigest() == ticks.metadata["digest"]
    swapped = Digest(table.schema.remove_metadata())
    swapped.update(table.take([1, 0, *range(2, len(table))]).replace_schema_metadata(None))
    assert swapped.hexdigest() != ticks.metadata["digest"]


def test_a_second_attempt_forgets_the_first(tmp_path: Path) -> None:
    body = sample("trades")
    other = trades_csv(synthetic_trades(200_000, DAY, 2))
    expected = convert(subject_of("trades"), body, tmp_path / "once.parquet")
    with Conversion(subject_of("trades"), tmp_path / "twice.parquet") as conversion:
        for damaged in (other[: len(other) * 9 // 10], body[:-4] + b"\0\0\0\0", body[:50]):
            with pytest.raises(IntegrityError):
                conversion.consume(chunks(damaged))
        conversion.consume(chunks(other))  # whole, and yet its answer was refused afterwards
        conversion.consume(chunks(body))
        found = conversion.finish("0" * 32, len(body))
    assert found.path.read_bytes() == expected.path.read_bytes()
    assert found.metadata == expected.metadata
    assert all(found.candles[key].equals(expected.candles[key]) for key in expected.candles)


def test_a_conversion_that_saw_nothing_cannot_be_finished(tmp_path: Path) -> None:
    with (
        Conversion(subject_of("trades"), tmp_path / "t.parquet") as conversion,
        pytest.raises(ValueError, match="noth"),
    ):
        conversion.finish("", 0)


@pytest.mark.parametrize("body", [gzip.compress(TRADES.encode()), gzip.compress(b"")], ids=["header", "nothing"])
def test_a_file_without_rows_is_empty_with_every_bar_of_the_day(body: bytes, tmp_path: Path) -> None:
    ticks = convert(subject_of("trades"), body, tmp_path / "t.parquet")
    assert (ticks.metadata["outcome"], ticks.metadata["rows"]) == ("empty", "0")
    assert (ticks.metadata["min_ts"], ticks.metadata["max_ts"]) == ("", "")
    stored = pq.read_table(ticks.path)
    assert stored.num_rows == 0
    assert stored.schema.remove_metadata() == DATA_TYPES["trades"].ticks
    assert [len(ticks.candles[layout.candles(DAY, tf, KEY)]) for tf in BARS] == [5760, 1440, 288, 96, 24, 6, 1]
    day = ticks.candles[layout.candles(DAY, "24h", KEY)].to_pylist()[0]
    assert (day["trade_count"], day["volume"], day["close"], day["vwap"]) == (0, 0.0, None, None)


@pytest.mark.parametrize("outcome", [Outcome.NOT_OFFERED, Outcome.NOT_AVAILABLE])
@pytest.mark.parametrize("data_type", STORED)
def test_what_the_source_does_not_have_is_a_file_that_says_so(outcome, data_type: str, tmp_path: Path) -> None:
    proof = {"status": 400, "code": 300, "message": "nó" * 2_000, "catalogue_disagrees": True}
    ticks = nothing(subject_of(data_type), tmp_path / "t.parquet", outcome, proof)
    stored = pq.read_table(ticks.path)
    assert stored.num_rows == 0
    assert stored.schema.remove_metadata() == DATA_TYPES[data_type].ticks
    known = footer(ticks.path)
    assert (known["outcome"], known["rows"], known["source_md5"]) == (str(outcome), "0", "")
    assert '"catalogue_disagrees": true' in known["proof"]
    assert len(json.dumps(dict(ticks.metadata)).encode()) < 8_192
    assert tuple(ticks.candles) == layout.outputs(DAY, data_type, KEY)[:-1]
    for key in ticks.candles:
        body, metadata = candle_object(ticks, key=key)
        assert pq.read_table(io.BytesIO(body)).num_rows == 0
        assert (metadata["outcome"], metadata["rows"], metadata["sealed"]) == (str(outcome), "0", "false")


def test_candle_objects_say_what_they_are_made_from(tmp_path: Path) -> None:
    subject = subject_of("trades")
    ticks = convert(subject, sample("trades"), tmp_path / "t.parquet")
    key = layout.candles(DAY, "1m", KEY)
    body, metadata = candle_object(ticks, key=key)
    table = pq.read_table(io.BytesIO(body))
    assert pq.read_metadata(io.BytesIO(body)).num_row_groups == 1
    assert table.replace_schema_metadata(None).equals(ticks.candles[key])
    known = footer(io.BytesIO(body))
    assert json.loads(known["inputs"]) == [
        {"data_type": "trades", "day": "2024-08-08", "digest": ticks.metadata["digest"]}
    ]
    assert (known["sealed"], known["rows"], known["object"]) == ("false", "1440", key)
    first = micros(datetime(2024, 8, 8, tzinfo=UTC))
    assert (known["min_ts"], known["max_ts"]) == (str(first), str(first + 1_439 * 60_000_000))
    digest = Digest(table.schema.remove_metadata())
    digest.update(table.replace_schema_metadata(None))
    assert digest.hexdigest() == known["digest"] == metadata["digest"]
    assert candle_object(ticks, key=key) == (body, metadata)


# Candles against the contract, in plain Python.


def naive_candles(rows: list[dict], source: Source, day: date, seconds: int) -> list[dict]:
    start = micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    bars: list[list[dict]] = [[] for _ in range(86_400 // seconds)]
    for row in rows:
        at = (row["t"] - start) // (seconds * 1_000_000)
        if 0 <= at < len(bars):
            bars[at].append(row)
    return [naive_bar(bar, source, start + n * seconds * 1_000_000, seconds) for n, bar in enumerate(bars)]


def naive_bar(bar: list[dict], source: Source, opens: int, seconds: int) -> dict:
    end = opens + seconds * 1_000_000
    out: dict = {"timestamp": opens, "timestamp_out": max([end, *(r["lt"] for r in bar)]) + 200_000}
    amount = math.fsum(r["a"] for r in bar)
    value = math.fsum(r["p"] * r["a"] for r in bar)
    base = math.fsum(r["a"] / r["p"] for r in bar)
    out |= {"volume": amount, "trade_count": len(bar)}
    out |= {f"{side}_volume_sum": math.fsum(r["a"] for r in bar if r["side"] == side) for side in ("buy", "sell")}
    size = source.contract_size
    out["volume_base"], out["volume_quote"] = {
        ("base", False): (amount, value),
        ("quote", True): (base, amount),
        ("contract", False): (size and amount * size, size and value * size),
        ("contract", True): (size and base * size, size and amount * size),
    }[source.amount_unit, source.inverse]
    prices = ("open", "high", "low", "close", "vwap", "price_vwap", "price_change", "price_change_pct", "is_green")
    times = ("latency_ms", "delay_mean", "delay_max", "delay_min", "delay_median")
    if not bar:
        return out | dict.fromkeys((*prices, *times, "size_avg"))
    first, last = bar[0]["p"], bar[-1]["p"]
    delays = [(r["lt"] - r["t"]) / 1_000 for r in bar]
    vwap = amount / base if source.inverse else value / amount
    return out | {
        "open": first,
        "close": last,
        "high": max(r["p"] for r in bar),
        "low": min(r["p"] for r in bar),
        "vwap": vwap,
        "price_vwap": vwap,
        "price_change": last - first,
        "price_change_pct": (last - first) / first * 100,
        "is_green": last > first,
        "size_avg": amount / len(bar),
        "latency_ms": math.fsum(delays) / len(delays),
        "delay_mean": math.fsum(delays) / len(delays),
        "delay_max": max(delays),
        "delay_min": min(delays),
        "delay_median": statistics.median(delays),
    }


def assert_candles(table: pa.Table, expected: list[dict], source: Source, day: date, seconds: int) -> None:
    found = table.to_pylist()
    assert len(found) == len(expected) == 86_400 // seconds
    listed = (source.listed_from or date.min) <= day < (source.listed_to or date.max)
    for there, here in zip(found, expected, strict=True):
        assert there["listed"] is listed
        for name, value in here.items():
            got = micros(there[name]) if isinstance(there[name], datetime) else there[name]
            if isinstance(value, float) and got is not None:
                assert got == pytest.approx(value, rel=1e-9, abs=1e-9), (name, here["timestamp"])
            else:
                assert got == value, (name, here["timestamp"])
        joined = [name for name in there if name not in here and name not in IDENTIFYING]
        assert len(joined) == 13
        assert all(there[name] is None for name in joined)


IDENTIFYING = ("venue", "instrument_key", "timeframe", "listed")
INSTRUMENTS = [
    Source("binance", "BTCUSDT"),
    Source("binance", "BTCUSDT", inverse=True, amount_unit="quote"),
    Source("binance", "BTCUSDT", amount_unit="contract", contract_size=0.01, listed_from=DAY),
    Source("binance", "BTCUSDT", inverse=True, amount_unit="contract", contract_size=100.0, listed_to=DAY),
    Source("binance", "BTCUSDT", inverse=True, amount_unit="contract"),
]


@pytest.mark.parametrize("source", INSTRUMENTS, ids=lambda s: f"{s.amount_unit}-{s.inverse}-{s.contract_size}")
@pytest.mark.parametrize("kind", ["real", "synthetic"])
def test_candles_are_those_of_a_naive_computation(source: Source, kind: str, tmp_path: Path) -> None:
    body = sample("trades") if kind == "real" else trades_csv(synthetic_trades(3_000, DAY, 7))
    ticks = convert(subject_of("trades", source=source), body, tmp_path / "t.parquet")
    rows = [
        {
            "t": int(r["timestamp"]),
            "lt": int(r["local_timestamp"]),
            "side": r["side"],
            "p": float(r["price"]),
            "a": float(r["amount"]),
        }
        for r in rows_of(body)
    ]
    for timeframe, seconds in BARS.items():
        table = ticks.candles[layout.candles(DAY, timeframe, KEY)]
        assert set(table["timeframe"].to_pylist()) == {timeframe}
        assert set(table["instrument_key"].to_pylist()) == {KEY}
        assert set(table["venue"].to_pylist()) == {"BINANCE"}
        assert_candles(table, naive_candles(rows, source, DAY, seconds), source, DAY, seconds)


@pytest.mark.parametrize("day", [DAY, DAY + timedelta(days=1)])
def test_book_candles_take_the_first_snapshot_that_arrived(day: date, tmp_path: Path) -> None:
    body = sample("book_snapshot_5", day)
    ticks = convert(subject_of("book_snapshot_5", day), body, tmp_path / "t.parquet")
    start = micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    for timeframe, seconds in BARS.items():
        first: dict[int, dict[str, str]] = {}
        for row in rows_of(body):
            first.setdefault((int(row["timestamp"]) - start) // (seconds * 1_000_000), row)
        found = ticks.candles[layout.book_candles(day, 5, timeframe, KEY)].to_pylist()
        assert len(found) == 86_400 // seconds
        for n, bar in enumerate(found):
            end = start + (n + 1) * seconds * 1_000_000
            row = first.get(n)
            if row is None:
                assert bar["snapshot_timestamp"] is bar["mid_price"] is bar["ask_price_1"] is None
                assert micros(bar["timestamp_out"]) == end + 200_000
                continue
            assert micros(bar["snapshot_timestamp"]) == int(row["timestamp"])
            assert micros(bar["timestamp_out"]) == max(end, int(row["local_timestamp"])) + 200_000
            for csv_name, name in list(STORED["book_snapshot_5"].items())[2:]:
                assert bar[name] == (float(row[csv_name]) if row[csv_name] else None)
            ask, bid = float(row["asks[0].price"]), float(row["bids[0].price"])
            assert bar["mid_price"] == pytest.approx((ask + bid) / 2, rel=1e-12)
            assert bar["spread_bps"] == pytest.approx((ask - bid) / ((ask + bid) / 2) * 1e4, rel=1e-9)
