"""Trade candles against a computation of one row at a time, which shares nothing with the code under test."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from runner.errors import ConfigError, IntegrityError
from runner.market.candles import Bars, TradeCandles
from runner.market.schema import CANDLES, DATA_TYPES, Digest

SAMPLES = Path(__file__).resolve().parents[3] / "runner" / "sandbox" / "data" / "binance" / "trades" / "2024" / "08"
DAY = date(2024, 8, 8)
MIDNIGHT = 1_723_075_200_000_000
SECOND = 1_000_000
SECONDS = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "24h": 86400}
LINEAR = Bars(
    day=DAY,
    venue="BINANCE",
    key="BINANCE:SPOT_PAIR:BTC-USDT",
    inverse=False,
    amount_unit="base",
    contract_size=None,
    listed_from=None,
    listed_to=None,
)
INVERSE = replace(LINEAR, inverse=True, amount_unit="quote")

Row = tuple[int, int, str, float, float]  # timestamp, local_timestamp, side, price, amount


def batch(rows: list[Row]) -> pa.RecordBatch:
    timestamp, local, side, price, amount = zip(*rows, strict=True) if rows else ((),) * 5
    time = pa.timestamp("us", tz="UTC")
    columns = [pa.array(timestamp, time), pa.array(local, time), pa.array([""] * len(rows), pa.string())]
    columns += [pa.array(side, pa.string()), pa.array(price, pa.float64()), pa.array(amount, pa.float64())]
    return pa.record_batch(columns, schema=DATA_TYPES["trades"].ticks)


def folded(rows: list[Row], bars: Bars, cuts: list[int] | None = None) -> tuple[TradeCandles, dict[str, pa.Table]]:
    candles = TradeCandles(bars)
    edges = [0, *sorted(cuts or []), len(rows)]
    for start, end in itertools.pairwise(edges):
        candles.add(batch(rows[start:end]))

    def times() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), 1000):
            part = rows[start : start + 1000]
            yield np.array([r[0] for r in part]), np.array([r[1] for r in part])

    return candles, candles.finish(times)


def product(number: float | None, size: float | None) -> float | None:
    return None if number is None or size is None else number * size


def naive_bar(rows: list[Row], bars: Bars, start: int, seconds: int) -> dict[str, object]:
    """One candle from the rows in it, in arrival order."""
    prices, amounts = [r[3] for r in rows], [r[4] for r in rows]
    values = [p * a for _, _, _, p, a in rows]
    bases = None if 0 in prices else [a / p for _, _, _, p, a in rows]
    base = None if bases is None else math.fsum(bases)
    volume, value, size = math.fsum(amounts), math.fsum(values), bars.contract_size
    units = {
        "base": (volume, value),
        "quote": (base, volume),
        "contract": (product(base, size), product(volume, size))
        if bars.inverse
        else (product(volume, size), product(value, size)),
    }
    above, below = (volume, base) if bars.inverse else (value, volume)
    vwap = above / below if below else None
    end = start + seconds * SECOND
    out = max([end, *(r[1] for r in rows)]) + 200_000
    delays = [(r[1] - r[0]) / 1000 for r in rows]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    bar: dict[str, object] = dict.fromkeys(CANDLES.names)
    bar |= {
        "venue": "BINANCE",
        "instrument_key": "BINANCE:SPOT_PAIR:BTC-USDT",
        "listed": True,
        "timestamp": epoch + timedelta(microseconds=start),
        "timestamp_out": epoch + timedelta(microseconds=out),
        "volume": volume,
        "volume_base": units[bars.amount_unit][0],
        "volume_quote": units[bars.amount_unit][1],
        "trade_count": len(rows),
        "buy_volume_sum": math.fsum([r[4] for r in rows if r[2] == "buy"]),
        "sell_volume_sum": math.fsum([r[4] for r in rows if r[2] == "sell"]),
    }
    if rows:
        change = prices[-1] - prices[0]
        bar |= {"open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1]}
        bar |= {"price_change": change, "price_change_pct": change / prices[0] * 100 if prices[0] else None}
        bar |= {"vwap": vwap, "price_vwap": vwap, "is_green": prices[-1] > prices[0], "size_avg": volume / len(rows)}
        bar |= {"latency_ms": statistics.fmean(delays), "delay_mean": statistics.fmean(delays)}
        bar |= {"delay_max": max(delays), "delay_min": min(delays), "delay_median": statistics.median(delays)}
    return bar


def close(mine: object, theirs: object) -> bool:
    if isinstance(mine, float) and isinstance(theirs, float):
        return math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-9)
    return mine == theirs and type(mine) is type(theirs)


def assert_same(tables: dict[str, pa.Table], rows: list[Row], bars: Bars, *, only_traded: bool = False) -> None:
    """Compare every bar, or those with trades, the first and the last (and see that no other has any)."""
    assert list(tables) == list(SECONDS)
    midnight = MIDNIGHT + (bars.day - DAY).days * 86_400 * SECOND
    for timeframe, seconds in SECONDS.items():
        table, count = tables[timeframe], 86400 // seconds
        inside: dict[int, list[Row]] = {}
        for row in rows:
            inside.setdefault((row[0] - midnight) // (seconds * SECOND), []).append(row)
        traded = {bar for bar in inside if 0 <= bar < count}
        assert table.schema == CANDLES
        assert table.num_rows == count
        assert {bar for bar, n in enumerate(table.column("trade_count").to_pylist()) if n} == traded
        chosen = sorted(traded | {0, count - 1}) if only_traded else list(range(count))
        for bar, mine in zip(chosen, table.take(chosen).to_pylist(), strict=True):
            theirs = naive_bar(inside.get(bar, []), bars, midnight + bar * seconds * SECOND, seconds)
            theirs["timeframe"] = timeframe
            wrong = {n: (mine[n], theirs[n]) for n in CANDLES.names if not close(mine[n], theirs[n])}
            assert not wrong, (timeframe, mine["timestamp"], wrong)


def sample(day: str) -> list[Row]:
    with gzip.open(SAMPLES / day / "BTCUSDT.csv.gz", "rt") as text:
        return [
            (int(r["timestamp"]), int(r["local_timestamp"]), r["side"], float(r["price"]), float(r["amount"]))
            for r in csv.DictReader(text)
        ]


def busy_day(rows: int, seed: int = 7) -> list[Row]:
    """Trades in arrival order with reordering, ties, an empty stretch, and rows of both neighbouring days."""
    rng = random.Random(seed)
    arrivals = sorted(rng.randrange(0, 86_400 * SECOND) for _ in range(rows))
    trades: list[Row] = []
    for arrival in arrivals:
        if 3_600 * SECOND < arrival < 9_000 * SECOND:
            continue
        local = MIDNIGHT + arrival // 1000 * 1000
        delay = int(rng.lognormvariate(9, 1.5)) if rng.random() < 0.98 else rng.randrange(-SECOND, 40 * SECOND)
        side = rng.choice(["buy", "sell", "sell", "unknown"])
        trades.append((local - delay, local, side, round(rng.uniform(5, 60_000), 2), round(rng.expovariate(1), 5)))
    trades.insert(0, (MIDNIGHT - 1, MIDNIGHT + 5, "buy", 1e6, 1e6))
    trades.append((MIDNIGHT + 86_400 * SECOND, MIDNIGHT + 86_400 * SECOND - 1, "buy", 1e6, 1e6))
    return trades


@pytest.mark.parametrize("day", [8, 9])
def test_real_trades_give_the_candles_of_a_naive_computation(day: int) -> None:
    rows = sample(f"{day:02}")
    bars = replace(LINEAR, day=date(2024, 8, day))
    candles, tables = folded(rows, bars)
    assert (candles.rows_before, candles.rows_in, candles.rows_after) == (0, len(rows), 0)
    assert_same(tables, rows, bars, only_traded=True)


def test_another_days_file_gives_no_trades() -> None:
    rows = sample("09")
    candles, tables = folded(rows, LINEAR)
    assert (candles.rows_before, candles.rows_in, candles.rows_after) == (0, 0, len(rows))
    assert_same(tables, [], LINEAR)


@pytest.mark.parametrize("bars", [LINEAR, INVERSE, replace(LINEAR, amount_unit="contract", contract_size=0.01)])
def test_a_disordered_day_gives_the_candles_of_a_naive_computation(bars: Bars) -> None:
    rows = busy_day(4_000)
    candles, tables = folded(rows, bars)
    assert_same(tables, rows, bars, only_traded=True)
    before = sum(row[0] < MIDNIGHT for row in rows)
    after = sum(row[0] >= MIDNIGHT + 86_400 * SECOND for row in rows)
    assert (candles.rows_before, candles.rows_in, candles.rows_after) == (before, len(rows) - before - after, after)
    assert before > 0
    assert after > 0


# Few instants, few values: collisions, edges, disorder, zeros and negative prices are common. Sums are exact in binary.
instants = st.one_of(
    st.integers(-2, 2).map(lambda us: us),
    st.integers(-30, 86_430).map(lambda s: s * SECOND),
    st.sampled_from([15, 60, 300, 3600, 14_400, 86_400]).flatmap(
        lambda s: st.integers(-1, 1).map(lambda us: s * SECOND + us)
    ),
)
trades = st.tuples(
    instants.map(lambda us: MIDNIGHT + us),
    st.integers(-2_000, 2_000) | st.sampled_from([86_400 * SECOND, -86_400 * SECOND]),
    st.sampled_from(["buy", "sell", "unknown"]),
    st.integers(-2, 8).map(lambda n: n / 4),
    st.integers(0, 8).map(lambda n: n / 8),
).map(lambda t: (t[0], t[0] + t[1], *t[2:]))
instruments = st.builds(
    lambda inverse, unit, size: replace(LINEAR, inverse=inverse, amount_unit=unit, contract_size=size),
    st.booleans(),
    st.sampled_from(["base", "quote", "contract"]),
    st.sampled_from([None, 0.25, 10.0]),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(trades, max_size=40), bars=instruments, data=st.data())
def test_any_small_day_in_any_batches_gives_the_candles_of_a_naive_computation(
    rows: list[Row], bars: Bars, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    candles, tables = folded(rows, bars, cuts)
    assert candles.rows_before + candles.rows_in + candles.rows_after == len(rows)
    assert_same(tables, rows, bars, only_traded=True)


def digests(tables: dict[str, pa.Table]) -> list[str]:
    found = []
    for table in tables.values():
        digest = Digest(CANDLES)
        digest.update(table)
        found.append(digest.hexdigest())
    return found


@pytest.fixture(scope="module")
def many() -> pa.RecordBatch:
    """200,000 trades, more than three slices, with sums whose bits depend on the order of addition."""
    rng = np.random.default_rng(3)
    count = 200_000
    local = np.sort(rng.integers(MIDNIGHT, MIDNIGHT + 86_400 * SECOND, count))
    local[:100_000] //= 64_000_000
    local[:100_000] *= 64_000_000  # half of the day in bursts
    local.sort()
    timestamp = local - rng.integers(0, 3 * SECOND, count)
    time = pa.timestamp("us", tz="UTC")
    side = pa.array(["buy", "sell"]).take(pa.array(rng.integers(0, 2, count)))
    ids = pa.array([""] * count)
    amounts = rng.lognormal(0, 3, count)
    prices = rng.uniform(0.001, 70_000, count)
    columns = [pa.array(timestamp, time), pa.array(local, time), ids, side, pa.array(prices), pa.array(amounts)]
    return pa.record_batch(columns, schema=DATA_TYPES["trades"].ticks)


def fold_many(many: pa.RecordBatch, sizes: list[int]) -> list[str]:
    candles, at, turn = TradeCandles(INVERSE), 0, 0
    while at < many.num_rows:
        candles.add(many.slice(at, sizes[turn % len(sizes)]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    timestamp, local = (many.column(i).view(pa.int64()).to_numpy() for i in (0, 1))
    return digests(candles.finish(lambda: iter([(timestamp, local)])))


@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1_000, 150_000) | st.sampled_from([65_535, 65_536, 65_537]), min_size=1, max_size=4))
def test_candles_have_the_same_bits_whatever_the_batches(many: pa.RecordBatch, sizes: list[int]) -> None:
    assert fold_many(many, sizes) == fold_many(many, [many.num_rows])


@pytest.mark.parametrize("shuffled", [False, True], ids=["nearly ordered", "shuffled"])
def test_bars_that_span_slices_agree_with_polars(many: pa.RecordBatch, *, shuffled: bool) -> None:
    rows = many.take(np.random.default_rng(1).permutation(many.num_rows)) if shuffled else many
    candles = TradeCandles(INVERSE)
    candles.add(rows)
    timestamp, local = (rows.column(i).view(pa.int64()).to_numpy() for i in (0, 1))
    tables = candles.finish(lambda: iter([(timestamp, local)]))
    price, amount = pl.col("price"), pl.col("amount")
    delay = (pl.col("local_timestamp") - pl.col("timestamp")).dt.total_microseconds() / 1000
    ticks = pl.from_arrow(rows).filter(pl.col("timestamp").dt.date() == DAY)
    for timeframe, seconds in SECONDS.items():
        expected = ticks.group_by(pl.col("timestamp").dt.truncate(f"{seconds}s"), maintain_order=True).agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=amount.sum(),
            volume_base=(amount / price).sum(),
            vwap=amount.sum() / (amount / price).sum(),
            buy_volume_sum=amount.filter(pl.col("side") == "buy").sum(),
            delay_mean=delay.mean(),
            delay_median=delay.median(),
            trade_count=pl.len().cast(pl.Int64),
        )
        mine = pl.from_arrow(tables[timeframe]).filter(pl.col("trade_count") > 0)
        assert_frame_equal(mine.select(expected.columns), expected.sort("timestamp"), rel_tol=1e-9, abs_tol=1e-9)


def test_sums_are_taken_over_slices_of_65536_rows(many: pa.RecordBatch) -> None:
    amount = many.column("amount").to_numpy()
    rows = many.set_column(
        0, many.schema.field(0), pa.array(np.full(many.num_rows, MIDNIGHT)).cast(pa.timestamp("us", tz="UTC"))
    )
    candles = TradeCandles(LINEAR)
    candles.add(rows)
    timestamp, local = (rows.column(i).view(pa.int64()).to_numpy() for i in (0, 1))
    volume = candles.finish(lambda: iter([(timestamp, local)]))["15s"].column("volume")[0].as_py()
    expected = 0.0
    for at in range(0, len(amount), 65_536):
        expected += float(np.add.reduceat(amount[at : at + 65_536], [0])[0])
    assert volume == expected != float(np.add.reduceat(amount, [0])[0])


def test_dictionary_encoded_sides_give_the_same_candles() -> None:
    rows = sample("08")
    plain = batch(rows)
    encoded = plain.set_column(3, "side", plain.column("side").dictionary_encode())
    candles = TradeCandles(LINEAR)
    candles.add(encoded)
    times = (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
    assert digests(candles.finish(lambda: iter([times]))) == digests(folded(rows, LINEAR)[1])


def day_bar(rows: list[Row], bars: Bars) -> dict[str, object]:
    result: dict[str, object] = folded(rows, bars)[1]["24h"].to_pylist()[0]
    return result


def trade(price: float, amount: float, side: str = "buy", at: int = 0, delay: int = 0) -> Row:
    return (MIDNIGHT + at, MIDNIGHT + at + delay, side, price, amount)


@pytest.mark.parametrize(
    ("changes", "base", "quote", "vwap"),
    [
        # Two trades: 3 at 2 and 1 at 4. Σa 4, Σpa 10, Σ(a/p) 1.75
        ({}, 4.0, 10.0, 2.5),
        ({"inverse": True, "amount_unit": "quote"}, 1.75, 4.0, 4 / 1.75),
        ({"amount_unit": "contract", "contract_size": 0.5}, 2.0, 5.0, 2.5),
        ({"amount_unit": "contract", "contract_size": None}, None, None, 2.5),
        ({"inverse": True, "amount_unit": "contract", "contract_size": 100.0}, 175.0, 400.0, 4 / 1.75),
        ({"inverse": True, "amount_unit": "contract", "contract_size": None}, None, None, 4 / 1.75),
    ],
)
def test_volumes_and_vwap_follow_the_unit_of_amounts(
    changes: dict[str, object], base: float | None, quote: float | None, vwap: float
) -> None:
    bar = day_bar([trade(2.0, 3.0), trade(4.0, 1.0)], replace(LINEAR, **changes))
    assert (bar["volume"], bar["volume_base"], bar["volume_quote"], bar["vwap"]) == (4.0, base, quote, vwap)
    assert bar["price_vwap"] == bar["vwap"]


def test_open_and_close_go_by_arrival_even_across_finer_bars() -> None:
    late = [trade(7.0, 1.0, at=20 * SECOND), trade(5.0, 1.0, at=1 * SECOND)]
    tables = folded(late, LINEAR)[1]
    minute = tables["1m"].to_pylist()[0]
    assert (minute["open"], minute["close"], minute["is_green"]) == (7.0, 5.0, False)
    assert [bar["open"] for bar in tables["15s"].to_pylist()[:2]] == [5.0, 7.0]


def test_candle_excludes_its_right_edge() -> None:
    bars = folded([trade(1.0, 1.0, at=15 * SECOND - 1), trade(2.0, 1.0, at=15 * SECOND)], LINEAR)[1]["15s"].to_pylist()
    assert [bar["trade_count"] for bar in bars[:3]] == [1, 1, 0]


def test_a_day_without_trades_has_every_bar_with_zero_sums_and_null_prices() -> None:
    tables = folded([], LINEAR)[1]
    assert [table.num_rows for table in tables.values()] == [5760, 1440, 288, 96, 24, 6, 1]
    bar = tables["24h"].to_pylist()[0]
    zero = {name for name, value in bar.items() if value in (0, 0.0) and value is not False}
    assert zero == {"volume", "volume_base", "volume_quote", "trade_count", "buy_volume_sum", "sell_volume_sum"}
    given_anyway = {"venue", "instrument_key", "timeframe", "timestamp", "timestamp_out", "listed"}
    assert {name for name, value in bar.items() if value is None} == set(CANDLES.names) - zero - given_anyway
    assert bar["timestamp_out"] == datetime(2024, 8, 9, 0, 0, 0, 200_000, tzinfo=UTC)


def test_volumes_of_an_empty_bar_are_null_where_the_contract_size_is_unknown() -> None:
    bar = day_bar([], replace(LINEAR, amount_unit="contract"))
    assert (bar["volume"], bar["volume_base"], bar["volume_quote"]) == (0.0, None, None)


def test_a_late_row_moves_when_its_bar_is_known_and_no_other() -> None:
    tables = folded([trade(1.0, 1.0, at=1, delay=70 * SECOND), trade(1.0, 1.0, at=61 * SECOND)], LINEAR)[1]
    outs = [bar["timestamp_out"].timestamp() - MIDNIGHT / 1e6 for bar in tables["1m"].to_pylist()[:2]]
    assert outs == pytest.approx([70.2, 120.2], abs=1e-4)
    assert tables["5m"].to_pylist()[0]["timestamp_out"].timestamp() - MIDNIGHT / 1e6 == pytest.approx(300.2)


def test_a_bar_is_never_known_before_its_end() -> None:
    bar = day_bar([trade(1.0, 1.0, delay=-5 * SECOND)], LINEAR)
    assert bar["timestamp_out"] == datetime(2024, 8, 9, 0, 0, 0, 200_000, tzinfo=UTC)
    assert bar["delay_min"] == -5000.0


@pytest.mark.parametrize(
    ("start", "end", "listed"),
    [
        (None, None, True),
        (DAY, None, True),
        (date(2024, 8, 9), None, False),
        (None, DAY, False),
        (None, date(2024, 8, 9), True),
        (date(2024, 8, 1), DAY, False),
    ],
)
def test_bars_are_listed_from_the_first_day_to_before_the_last(
    start: date | None, end: date | None, *, listed: bool
) -> None:
    tables = folded([trade(1.0, 1.0)], replace(LINEAR, listed_from=start, listed_to=end))[1]
    assert {flag for table in tables.values() for flag in table.column("listed").to_pylist()} == {listed}


def test_amounts_of_zero_make_no_average_price_but_a_candle() -> None:
    bar = day_bar([trade(3.0, 0.0)], LINEAR)
    assert (bar["close"], bar["trade_count"], bar["volume"], bar["size_avg"]) == (3.0, 1, 0.0, 0.0)
    assert bar["vwap"] is None
    assert day_bar([trade(3.0, 0.0)], INVERSE)["vwap"] is None


def test_a_price_of_zero_makes_inverse_sums_null_and_linear_ones_not() -> None:
    rows = [trade(0.0, 2.0), trade(4.0, 2.0, "sell")]
    inverse, linear = day_bar(rows, INVERSE), day_bar(rows, LINEAR)
    assert (inverse["vwap"], inverse["volume_base"], inverse["volume_quote"]) == (None, None, 4.0)
    assert (linear["vwap"], linear["price_change"], linear["price_change_pct"]) == (2.0, 4.0, None)


def test_negative_prices_are_prices() -> None:
    bar = day_bar([trade(-4.0, 1.0), trade(-2.0, 1.0)], LINEAR)
    assert (bar["low"], bar["high"], bar["vwap"], bar["price_change_pct"]) == (-4.0, -2.0, -3.0, -50.0)


def test_an_unknown_side_counts_in_neither_volume() -> None:
    bar = day_bar([trade(1.0, 1.0, "unknown"), trade(1.0, 2.0, "sell"), trade(1.0, 4.0, "sell")], LINEAR)
    assert (bar["volume"], bar["buy_volume_sum"], bar["sell_volume_sum"]) == (7.0, 0.0, 6.0)


@pytest.mark.parametrize("column", ["timestamp", "local_timestamp", "price", "amount"])
def test_a_missing_number_is_refused_by_name(column: str) -> None:
    good = batch([trade(1.0, 1.0)])
    at = good.schema.get_field_index(column)
    bad = good.set_column(at, good.schema.field(at), pa.nulls(1, good.schema.field(at).type))
    with pytest.raises(IntegrityError, match=f"BTC-USDT on 2024-08-08: a row without {column};"):
        TradeCandles(LINEAR).add(bad)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("of", [3, 4])
def test_what_is_not_a_number_is_refused(of: int, wrong: float) -> None:
    row = list(trade(1.0, 0.0))
    row[of] = wrong
    with pytest.raises(IntegrityError, match="not a number"):
        folded([tuple(row)], LINEAR)  # type: ignore[list-item]


def test_a_few_absurd_arrival_times_do_not_wrap_the_mean_delay() -> None:
    rows = [trade(1.0, 1.0, delay=-MIDNIGHT) for _ in range(6_000)]
    bar = day_bar(rows, LINEAR)
    assert (bar["delay_mean"], bar["delay_median"]) == (-MIDNIGHT / 1000, -MIDNIGHT / 1000)


def test_an_unknown_unit_of_amounts_is_refused() -> None:
    with pytest.raises(ConfigError, match="'contracts' is none of base, quote, contract"):
        replace(LINEAR, amount_unit="contracts")
