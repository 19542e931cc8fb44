"""Option features against plain Python written from the contract, on chains made at random and by hand."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import IntegrityError
from runner.market.bars import Bars
from runner.market.options import OptionFeatures
from runner.market.schema import DATA_TYPES, OPTION_FEATURES

DAY = date(2024, 8, 8)
START = int(datetime(2024, 8, 8, tzinfo=UTC).timestamp()) * 1_000_000
S = 1_000_000
DAY_US = 86_400 * S
SECONDS = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "24h": 86_400}
FAR = START + 30 * DAY_US
VALUES = """
expiry skew_25d_put_call_ratio atm_mark_iv put_strike put_mark_iv call_strike call_mark_iv atm_strike
""".split()  # noqa: SIM905 a paragraph of names


@dataclass(frozen=True)
class Row:
    """A row of a chain; `at` is the local_timestamp as µs since midnight."""

    at: int
    symbol: str
    delta: float | None
    mark_iv: float | None
    strike: float = 100.0
    expiry: int = FAR

    @property
    def call(self) -> bool:
        return self.symbol.endswith("C")


def batch(rows: list[Row]) -> pa.RecordBatch:
    columns = {
        "local_timestamp": [START + row.at for row in rows],
        "symbol": [row.symbol for row in rows],
        "type": ["call" if row.call else "put" for row in rows],
        "strike_price": [row.strike for row in rows],
        "expiration": [row.expiry for row in rows],
        "delta": [row.delta for row in rows],
        "mark_iv": [row.mark_iv for row in rows],
    }
    types = {field.name: field.type for field in DATA_TYPES["options_chain"].ticks}
    return pa.record_batch([pa.array(values, types[name]) for name, values in columns.items()], list(columns))


def bars(listed_to: date | None = None) -> Bars:
    return Bars(DAY, "DERIBIT", "BTC-USD", False, "base", None, None, listed_to)  # noqa: FBT003 not inverse


def features(rows: list[Row], size: int = 10**9) -> dict[str, pa.Table]:
    sums = OptionFeatures(bars())
    for start in range(0, len(rows), size):
        sums.add(batch(rows[start : start + size]))
    tables = sums.finish()
    assert sums.rows_before + sums.rows_in + sums.rows_after == len(rows)
    return tables


def micros(value: datetime | None) -> int | None:
    return None if value is None else round(value.timestamp()) * S + value.microsecond


def values_of(table: pa.Table, bar: int) -> dict[str, float | None]:
    row = table.slice(bar, 1).to_pylist()[0]
    return {name: micros(row[name]) if name == "expiry" else row[name] for name in VALUES}


def naive(rows: list[Row], end: int) -> dict[str, float | None]:
    """Return the features of the bar that ends so many µs after midnight, by the words of the contract."""
    state: dict[str, Row] = {}
    for row in rows:
        if 0 <= row.at < end:
            state[row.symbol] = row
    eligible = [
        row
        for row in state.values()
        if end - row.at <= 900 * S
        and row.delta is not None
        and row.mark_iv is not None
        and row.mark_iv > 0
        and row.expiry > START + end
    ]
    found: dict[str, float | None] = dict.fromkeys(VALUES)
    if not eligible:
        return found
    expiry = min(row.expiry for row in eligible)
    found["expiry"] = expiry
    chain = [row for row in eligible if row.expiry == expiry]

    def nearest(options: list[Row], distance) -> Row | None:
        ranked = sorted(options, key=lambda row: (distance(row.delta), row.strike, not row.call))
        return ranked[0] if ranked and distance(ranked[0].delta) <= 0.10 else None

    put = nearest([row for row in chain if not row.call], lambda delta: abs(delta + 0.25))
    call = nearest([row for row in chain if row.call], lambda delta: abs(delta - 0.25))
    atm = nearest(chain, lambda delta: abs(abs(delta) - 0.5))
    for name, row in (("put", put), ("call", call), ("atm", atm)):
        if row is not None:
            found |= {f"{name}_strike": row.strike, f"{name}_mark_iv": row.mark_iv}
    if put is not None and call is not None:
        found["skew_25d_put_call_ratio"] = put.mark_iv / call.mark_iv
    return found


# By chance.

moments = st.one_of(
    st.integers(-20 * S, 1_000 * S),
    st.integers(0, 80).map(lambda n: n * 15 * S),
    st.integers(DAY_US - 60 * S, DAY_US + 5 * S),
)
names = st.builds(lambda k, r: f"BTC-K{k}-{r}", st.integers(1, 6), st.sampled_from("CP"))
deltas = st.none() | st.sampled_from([0.15, 0.25, 0.35, 0.3, 0.2, 0.5, 0.4, 0.6, 0.14999, 1.0, 0.0]) | st.floats(0, 1)
expiries = st.sampled_from([START + 30 * S, START + 600 * S, START + 8 * 3_600 * S, FAR])


@st.composite
def chains(draw: st.DrawFn) -> list[Row]:
    rows = []
    for at in sorted(draw(st.lists(moments, max_size=40))):
        symbol = draw(names)
        delta = draw(deltas)
        signed = delta if delta is None or symbol.endswith("C") else -delta
        iv = draw(st.none() | st.sampled_from([0.0, -1.0, 50.0]) | st.floats(1, 200))
        strike = float(symbol.split("K")[1][0])
        # An option's expiry is its own: here that of its strike.
        rows.append(Row(at, symbol, signed, iv, strike, draw(expiries)))
    return rows


@settings(max_examples=30, deadline=None)
@given(chains(), st.integers(1, 9))
def test_every_bar_is_what_plain_python_says(rows: list[Row], size: int) -> None:
    found = features(rows, size)["15s"]
    near = {max(0, min(5759, (row.at + away * S) // (15 * S))) for row in rows for away in (-15, 0, 15, 885, 900, 915)}
    for bar in {0, 1, 5759} | near:
        assert values_of(found, bar) == naive(rows, (bar + 1) * 15 * S), bar


def realistic(seed: int) -> list[Row]:
    rng = random.Random(seed)
    expiries = [START + 8 * 3_600 * S, START + 32 * 3_600 * S, FAR]
    strikes = [(e, 60_000.0 + 300 * (1 + e) * k) for e in range(3) for k in range(-5, 6)]
    options = [(f"BTC-E{e}K{strike:.0f}-{right}", strike, e) for e, strike in strikes for right in "CP"]
    rows, at = [], 0
    while at < DAY_US:
        at += int(rng.expovariate(1 / 10e6))
        symbol, strike, e = rng.choice(options)
        years = max(expiries[e] - START - at, S) / (365 * DAY_US)
        d1 = math.log(60_000 / strike) / (0.5 * math.sqrt(years))
        up = round((1 + math.erf(d1 / math.sqrt(2))) / 2, 5)
        delta = None if rng.random() < 0.02 else up if symbol.endswith("C") else round(up - 1, 5)
        rows.append(Row(at, symbol, delta, round(rng.uniform(40, 80), 2), strike, expiries[e]))
    return [row for row in rows if row.at < DAY_US]


@pytest.mark.parametrize("seed", range(2))
def test_a_realistic_day_is_what_plain_python_says_and_does_not_depend_on_batches(seed: int) -> None:
    rows = realistic(seed)
    found = features(rows, 997)
    assert all(found[name].equals(table) for name, table in features(rows, 64).items())
    sampled = [values_of(found["15s"], bar) for bar in range(0, 5760, 61)]
    assert sampled == [naive(rows, (bar + 1) * 15 * S) for bar in range(0, 5760, 61)]
    assert sum(each["skew_25d_put_call_ratio"] is not None for each in sampled) > 20


@pytest.mark.parametrize("timeframe", SECONDS)
def test_every_timeframe_has_all_its_bars_and_each_is_sampled_at_its_own_end(timeframe: str) -> None:
    rows = realistic(7)
    seconds, table = SECONDS[timeframe], features(rows)[timeframe]
    assert table.schema == OPTION_FEATURES
    assert table.num_rows == 86_400 // seconds
    opens = [micros(each) for each in table["timestamp"].to_pylist()]
    assert opens == [START + n * seconds * S for n in range(table.num_rows)]
    assert [micros(each) for each in table["timestamp_out"].to_pylist()] == [at + seconds * S + 200_000 for at in opens]
    for bar in range(0, table.num_rows, max(1, table.num_rows // 40)):
        assert values_of(table, bar) == naive(rows, (bar + 1) * seconds * S)


# By hand.

PUT, CALL = Row(S, "P-P", -0.25, 66.0, 90.0), Row(S, "C-C", 0.25, 60.0, 110.0)


def first(*rows: Row) -> dict[str, float | None]:
    return values_of(features(list(rows))["15s"], 0)


def test_skew_is_the_put_over_the_call() -> None:
    found = first(PUT, CALL)
    assert found["skew_25d_put_call_ratio"] == 66.0 / 60.0
    assert (found["put_strike"], found["put_mark_iv"], found["call_strike"], found["call_mark_iv"]) == (90, 66, 110, 60)
    assert (found["expiry"], found["atm_mark_iv"], found["atm_strike"]) == (FAR, None, None)


def test_a_row_at_exactly_the_end_belongs_to_the_next_bar() -> None:
    table = features([Row(15 * S, "P-P", -0.25, 66.0), Row(15 * S, "C-C", 0.25, 60.0)])["15s"]
    assert values_of(table, 0)["put_strike"] is None
    assert values_of(table, 1)["put_strike"] == 100
    before = features([Row(15 * S - 1, "P-P", -0.25, 66.0)])["15s"]
    assert values_of(before, 0)["put_strike"] == 100


def test_a_row_is_used_for_fifteen_minutes_and_no_longer() -> None:
    table = features([Row(0, "P-P", -0.25, 66.0), Row(S, "C-C", 0.25, 60.0)])["15s"]
    assert [values_of(table, bar)["put_strike"] for bar in (58, 59, 60)] == [100, 100, None]  # ends at 885, 900, 915 s
    assert [values_of(table, bar)["call_strike"] for bar in (59, 60)] == [100, None]
    assert values_of(features([Row(15 * S, "P-P", -0.25, 66.0)])["15m"], 0)["put_strike"] == 100


def test_the_expiry_must_be_after_the_end_of_the_bar() -> None:
    soon = START + 15 * S
    rows = [Row(S, "SOON-P", -0.25, 70.0, 80.0, soon), Row(S, "LATE-P", -0.25, 60.0, 90.0)]
    assert first(*rows)["expiry"] == FAR
    assert first(Row(S, "SOON-P", -0.25, 70.0, 80.0, soon + 1), rows[1])["expiry"] == soon + 1
    assert first(rows[0])["expiry"] is None


def test_the_smallest_expiry_is_taken_though_its_deltas_do_not_fit() -> None:
    found = first(Row(S, "NEAR-P", -0.9, 70.0, 80.0, FAR - S), PUT, CALL)
    assert (found["expiry"], found["put_strike"], found["skew_25d_put_call_ratio"]) == (FAR - S, None, None)


def test_the_smallest_expiry_is_that_of_an_eligible_option() -> None:
    assert first(Row(S, "NEAR-P", None, 70.0, 80.0, FAR - S), PUT, CALL)["expiry"] == FAR


@pytest.mark.parametrize(("delta", "iv"), [(None, 66.0), (-0.25, None), (-0.25, 0.0), (-0.25, -1.0)])
def test_without_delta_or_volatility_an_option_is_out(delta: float | None, iv: float | None) -> None:
    assert first(Row(S, "P-P", delta, iv), CALL)["put_strike"] is None


def test_the_last_row_counts_also_when_it_says_less() -> None:
    assert first(PUT, CALL, Row(2 * S, "P-P", None, 66.0))["put_strike"] is None


@pytest.mark.parametrize(("delta", "strike"), [(-0.35, 100), (-0.15, 100), (-0.1499, None), (-0.3501, None)])
def test_a_delta_is_near_up_to_a_tenth(delta: float, strike: float | None) -> None:
    assert first(Row(S, "P-P", delta, 66.0))["put_strike"] == strike


def test_equal_distances_go_to_the_lower_strike_and_then_to_the_call() -> None:
    twins = [Row(S, "HIGH-P", -0.2, 70.0, 95.0), Row(S, "LOW-P", -0.3, 60.0, 90.0)]
    assert abs(-0.2 + 0.25) == abs(-0.3 + 0.25)
    assert first(*twins)["put_strike"] == first(*reversed(twins))["put_strike"] == 90
    middle = [Row(S, "M-P", -0.5, 70.0, 100.0), Row(S, "M-C", 0.5, 60.0, 100.0)]
    assert first(*middle)["atm_mark_iv"] == first(*reversed(middle))["atm_mark_iv"] == 60
    assert first(Row(S, "L-P", -0.5, 70.0, 99.0), *middle)["atm_strike"] == 99


def test_of_rows_of_one_moment_the_last_in_the_file_counts() -> None:
    assert first(PUT, CALL, Row(S, "P-P", -0.3, 50.0, 90.0))["put_mark_iv"] == 50


def test_nothing_of_the_day_before_is_known_and_the_day_after_is_not_waited_for() -> None:
    sums = OptionFeatures(bars())
    sums.add(batch([Row(-1, "P-P", -0.25, 66.0), CALL, Row(DAY_US, "P-P", -0.25, 66.0)]))
    table = sums.finish()["15s"]
    assert (sums.rows_before, sums.rows_in, sums.rows_after) == (1, 1, 1)
    assert table["put_strike"].null_count == 5760
    assert table["call_strike"].null_count == 5760 - 60


def test_where_the_clock_goes_back_a_row_counts_at_the_latest_time_before_it() -> None:
    table = features([Row(16 * S, "C-C", 0.25, 60.0), Row(14 * S, "P-P", -0.25, 66.0)])["15s"]
    assert values_of(table, 0)["put_strike"] is None
    assert values_of(table, 1)["put_strike"] == 100


def test_what_comes_later_changes_nothing_before_it() -> None:
    rows = realistic(3)
    cut = len(rows) // 2
    bar = rows[cut].at // (15 * S)
    whole, half = features(rows)["15s"], features(rows[:cut])["15s"]
    assert whole.slice(0, bar).equals(half.slice(0, bar))


def test_a_day_without_rows_has_every_bar_and_no_value() -> None:
    table = features([])["1h"]
    assert table.num_rows == 24
    assert all(table[name].null_count == 24 for name in VALUES)
    assert set(table["underlying"].to_pylist()) == {"BTC-USD"}
    assert set(table["venue"].to_pylist()) == {"DERIBIT"}
    assert set(table["listed"].to_pylist()) == {True}
    assert set(OptionFeatures(bars(DAY)).finish()["1h"]["listed"].to_pylist()) == {False}


def test_a_row_without_a_time_is_refused() -> None:
    rows = batch([PUT])
    at = rows.schema.get_field_index("local_timestamp")
    with pytest.raises(IntegrityError, match="local_timestamp"):
        OptionFeatures(bars()).add(rows.set_column(at, "local_timestamp", pa.array([None], rows.column(at).type)))
