"""Book candles against a computation of one bar at a time, which shares nothing with the code under test."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import IntegrityError
from runner.market.book import Bars, BookCandles
from runner.market.schema import DATA_TYPES, Digest, book_candles_schema

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = {
    5: ROOT / "runner/sandbox/data/binance/book_snapshot_5/2024/08/08/BTCUSDT.csv.gz",
    25: ROOT / "tests/data/tardis-csv/binance_book_snapshot_25_2024-08-08_BTCUSDT.csv.gz",
}
DAY = date(2024, 8, 8)
MIDNIGHT = 1_723_075_200_000_000
SECOND = 1_000_000
DAY_US = 86_400 * SECOND
SECONDS = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "24h": 86400}
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
BARS = Bars(
    day=DAY,
    venue="BINANCE",
    key=KEY,
    inverse=False,
    amount_unit="base",
    contract_size=None,
    listed_from=None,
    listed_to=None,
)

Number = float | None
Level = tuple[Number, Number]  # price, volume
Row = tuple[int, int, list[Level], list[Level]]  # timestamp, local_timestamp, asks, bids


def batch(rows: list[Row], depth: int) -> pa.RecordBatch:
    flat = [
        [at, local, *(x for pair in zip(asks, bids, strict=True) for x in (*pair[0], *pair[1]))]
        for at, local, asks, bids in rows
    ]
    schema = DATA_TYPES[f"book_snapshot_{depth}"].ticks
    columns = list(zip(*flat, strict=True)) or [[] for _ in schema]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def folded(rows: list[Row], depth: int = 5, cuts: list[int] | None = None) -> tuple[BookCandles, dict[str, pa.Table]]:
    candles = BookCandles(BARS, depth)
    for start, end in itertools.pairwise([0, *sorted(cuts or []), len(rows)]):
        candles.add(batch(rows[start:end], depth))
    return candles, candles.finish()


def divided(above: Number, below: Number) -> Number:
    return None if above is None or below is None or below == 0 else above / below


def less(left: Number, right: Number) -> Number:
    return None if left is None or right is None else left - right


def scaled(number: Number, factor: float) -> Number:
    return None if number is None else number * factor


def instant(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def naive_bar(row: Row | None, start: int, timeframe: str, depth: int) -> dict[str, object]:
    end = start + SECONDS[timeframe] * SECOND
    bar: dict[str, object] = dict.fromkeys(book_candles_schema(depth).names)
    bar |= {"venue": "BINANCE", "instrument_key": KEY, "timeframe": timeframe, "timestamp": instant(start)}
    bar |= {"listed": True, "timestamp_out": instant(end + 200_000)}
    if row is None:
        return bar
    timestamp, local, asks, bids = row
    bar |= {"snapshot_timestamp": instant(timestamp), "timestamp_out": instant(max(end, local) + 200_000)}
    best_bid, best_ask = bids[0][0], asks[0][0]
    mid = None if best_bid is None or best_ask is None else (best_bid + best_ask) / 2
    bar |= {"mid_price": mid, "spread_abs": less(best_ask, best_bid)}
    bar |= {"spread_bps": scaled(divided(less(best_ask, best_bid), mid), 1e4)}
    bar |= {"bid_ask_ratio": divided(bids[0][1], asks[0][1])}
    bar |= {"crossed": None if mid is None else best_bid > best_ask}
    totals, vwaps, filled = {}, {}, {}
    for side, levels in (("ask", asks), ("bid", bids)):
        both = [(p, v) for p, v in levels if p is not None and v is not None]
        totals[side] = sum((v for _, v in levels if v is not None), 0.0)
        vwaps[side] = divided(sum(p * v for p, v in both), sum(v for _, v in both))
        filled[side] = len(both)
        for n, (price, volume) in enumerate(levels, start=1):
            bar |= {f"{side}_price_{n}": price, f"{side}_volume_{n}": volume}
            bar |= {f"{side}_distance_{n}": scaled(divided(less(price, mid), mid), 1e4)}
            bar |= {f"{side}_volume_ratio_{n}": divided(volume, totals[side])}
        bar |= {
            f"total_{side}_volume": totals[side],
            f"{side}_vwap": vwaps[side],
            f"{side}_levels_filled": filled[side],
        }
    bar |= {"volume_imbalance": divided(totals["bid"] - totals["ask"], totals["bid"] + totals["ask"])}
    bar |= {"vwap_spread": less(vwaps["ask"], vwaps["bid"])}
    return bar | {"book_imbalance": (filled["bid"] - filled["ask"]) / depth}


def close(mine: object, theirs: object) -> bool:
    if isinstance(mine, float) and isinstance(theirs, float):
        return math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-9)
    return mine == theirs and type(mine) is type(theirs)


def assert_same(tables: dict[str, pa.Table], rows: list[Row], depth: int) -> None:
    """Compare every bar with a snapshot, the first and the last, and see that no other has one."""
    assert list(tables) == list(SECONDS)
    for timeframe, seconds in SECONDS.items():
        first: dict[int, Row] = {}
        for row in rows:
            first.setdefault((row[0] - MIDNIGHT) // (seconds * SECOND), row)
        count, table = 86_400 // seconds, tables[timeframe]
        assert table.schema == book_candles_schema(depth)
        assert table.num_rows == count
        present = {bar for bar in first if 0 <= bar < count}
        assert {n for n, at in enumerate(table.column("snapshot_timestamp").to_pylist()) if at} == present
        chosen = sorted(present | {0, count - 1})
        for bar, mine in zip(chosen, table.take(chosen).to_pylist(), strict=True):
            theirs = naive_bar(first.get(bar), MIDNIGHT + bar * seconds * SECOND, timeframe, depth)
            wrong = {n: (mine[n], theirs[n]) for n in table.column_names if not close(mine[n], theirs[n])}
            assert not wrong, (timeframe, mine["timestamp"], wrong)


def sample(depth: int) -> list[Row]:
    def level(row: dict[str, str], side: str, n: int) -> Level:
        return tuple(float(text) if (text := row[f"{side}[{n}].{what}"]) else None for what in ("price", "amount"))  # type: ignore[return-value]

    with gzip.open(SAMPLES[depth], "rt") as text:
        return [
            (
                int(row["timestamp"]),
                int(row["local_timestamp"]),
                [level(row, "asks", n) for n in range(depth)],
                [level(row, "bids", n) for n in range(depth)],
            )
            for row in csv.DictReader(text)
        ]


def side(levels: list[tuple[float, float]], depth: int = 5) -> list[Level]:
    return [*levels, *[(None, None)] * (depth - len(levels))]


def snapshot(asks: list[tuple[float, float]], bids: list[tuple[float, float]], at: int = 0, delay: int = 0) -> Row:
    return (MIDNIGHT + at, MIDNIGHT + at + delay, side(asks), side(bids))


def first_bar(row: Row) -> dict[str, object]:
    result: dict[str, object] = folded([row])[1]["15s"].to_pylist()[0]
    return result


@pytest.mark.parametrize("depth", [5, 25])
def test_real_snapshots_give_the_candles_of_a_naive_computation(depth: int) -> None:
    rows = sample(depth)
    candles, tables = folded(rows, depth)
    assert (candles.rows_before, candles.rows_in, candles.rows_after) == (0, len(rows), 0)
    assert_same(tables, rows, depth)


def test_a_disordered_day_gives_the_candles_of_a_naive_computation() -> None:
    rng = random.Random(4)
    rows: list[Row] = []
    for local in sorted(rng.randrange(MIDNIGHT, MIDNIGHT + DAY_US) for _ in range(3_000)):
        if 3_600 * SECOND < local - MIDNIGHT < 9_000 * SECOND:
            continue
        mid, levels = rng.uniform(0.5, 2.0), (rng.randrange(6), rng.randrange(6))
        asks = side([(mid + 0.01 * n, rng.expovariate(1)) for n in range(levels[0])])
        bids = side([(mid - 0.01 * n, rng.expovariate(1)) for n in range(levels[1])])
        rows.append((local - int(rng.lognormvariate(15, 2)), local, asks, bids))
    rows.append((MIDNIGHT + DAY_US, MIDNIGHT + DAY_US - 1, side([]), side([])))
    candles, tables = folded(rows, cuts=[1, 100, 100, 2_000])
    assert_same(tables, rows, 5)
    assert candles.rows_before > 0
    assert candles.rows_after == 1
    assert candles.rows_before + candles.rows_in + candles.rows_after == len(rows)


level = st.tuples(
    st.none() | st.integers(-1, 4).map(lambda n: n / 2), st.none() | st.integers(0, 4).map(lambda n: n / 2)
)
books = st.tuples(
    st.sampled_from([-1, 0, 1, 14, 15, 16, 59, 60, 3_599, 3_600, 86_399, 86_400]).map(lambda s: MIDNIGHT + s * SECOND),
    st.integers(-5, 90).map(lambda s: s * SECOND),
    st.lists(level, min_size=5, max_size=5),
    st.lists(level, min_size=5, max_size=5),
).map(lambda t: (t[0], t[0] + t[1], t[2], t[3]))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(books, max_size=12), data=st.data())
def test_any_small_day_in_any_batches_gives_the_candles_of_a_naive_computation(
    rows: list[Row], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    candles, tables = folded(rows, cuts=cuts)
    assert candles.rows_before + candles.rows_in + candles.rows_after == len(rows)
    assert_same(tables, rows, 5)


def test_a_full_book_gives_these_numbers() -> None:
    bar = first_bar(snapshot(asks=[(101.0, 1.0), (103.0, 3.0)], bids=[(99.0, 4.0), (97.0, 2.0), (95.0, 2.0)]))
    expected = {
        "mid_price": 100.0,
        "spread_abs": 2.0,
        "spread_bps": 200.0,
        "bid_ask_ratio": 4.0,
        "crossed": False,
        "bid_distance_2": -300.0,
        "ask_distance_2": 300.0,
        "ask_distance_3": None,
        "total_bid_volume": 8.0,
        "total_ask_volume": 4.0,
        "volume_imbalance": 4 / 12,
        "bid_volume_ratio_1": 0.5,
        "ask_volume_ratio_2": 0.75,
        "bid_vwap": 97.5,
        "ask_vwap": 102.5,
        "vwap_spread": 5.0,
        "bid_levels_filled": 3,
        "ask_levels_filled": 2,
        "book_imbalance": 0.2,
    }
    assert {name: bar[name] for name in expected} == expected


def test_the_first_snapshot_in_arrival_order_is_the_bars() -> None:
    early, late = snapshot([(2.0, 1.0)], [], at=9 * SECOND), snapshot([(3.0, 1.0)], [], at=1 * SECOND)
    tables = folded([early, late])[1]
    assert [tables[name].column("ask_price_1")[0].as_py() for name in SECONDS] == [2.0] * 7


def test_arrival_order_holds_across_finer_bars() -> None:
    early, late = snapshot([(2.0, 1.0)], [], at=20 * SECOND), snapshot([(3.0, 1.0)], [], at=1 * SECOND)
    tables = folded([early, late])[1]
    assert tables["15s"].column("ask_price_1").to_pylist()[:2] == [3.0, 2.0]
    assert tables["1m"].column("ask_price_1")[0].as_py() == 2.0


def test_nothing_is_carried_into_a_bar_without_a_snapshot() -> None:
    bars = folded([snapshot([(2.0, 1.0)], [(1.0, 1.0)])])[1]["15s"].to_pylist()
    given_anyway = {"venue", "instrument_key", "timeframe", "timestamp", "timestamp_out", "listed"}
    assert {name for name, value in bars[1].items() if value is not None} == given_anyway


def test_an_empty_side_has_total_zero_and_no_prices() -> None:
    bar = first_bar(snapshot([], [(10.0, 2.0)]))
    assert (bar["total_ask_volume"], bar["ask_levels_filled"], bar["volume_imbalance"]) == (0.0, 0, 1.0)
    for name in ("mid_price", "spread_abs", "crossed", "bid_distance_1", "ask_vwap", "vwap_spread", "bid_ask_ratio"):
        assert bar[name] is None, name
    assert (bar["bid_vwap"], bar["bid_volume_ratio_1"]) == (10.0, 1.0)


@pytest.mark.parametrize(("bid", "crossed"), [(10.0, False), (11.0, False), (12.0, True)])
def test_a_crossed_book_is_kept_and_flagged_and_a_locked_one_is_not_crossed(bid: float, *, crossed: bool) -> None:
    bar = first_bar(snapshot([(11.0, 1.0)], [(bid, 1.0)]))
    assert (bar["crossed"], bar["spread_abs"]) == (crossed, 11.0 - bid)


def test_a_late_snapshot_moves_when_its_bar_is_known() -> None:
    tables = folded([snapshot([], [], delay=20 * SECOND)])[1]
    outs = [tables[name].column("timestamp_out")[0].as_py() for name in ("15s", "1m")]
    assert outs == [instant(MIDNIGHT + 20_200_000), instant(MIDNIGHT + 60_200_000)]


def test_bars_outside_the_listing_say_so() -> None:
    candles = BookCandles(replace(BARS, listed_to=DAY), 5)
    assert set(candles.finish()["15s"].column("listed").to_pylist()) == {False}


def test_a_missing_time_is_refused_by_name() -> None:
    good = batch([snapshot([], [])], 5)
    bad = good.set_column(1, good.schema.field(1), pa.nulls(1, good.schema.field(1).type))
    with pytest.raises(IntegrityError, match="book snapshots of BINANCE:SPOT_PAIR:BTC-USDT on 2024-08-08"):
        BookCandles(BARS, 5).add(bad)


def test_batches_leave_no_trace_in_the_bits() -> None:
    def digest(cuts: list[int]) -> list[str]:
        found = []
        for table in folded(rows, cuts=cuts)[1].values():
            one = Digest(table.schema)
            one.update(table)
            found.append(one.hexdigest())
        return found

    rows = sample(5)
    assert digest([]) == digest(list(range(0, len(rows), 7)))
