"""Exact medians: small limits force every way of solving a bar; statistics.median says what is right."""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from runner.market.medians import Delays, medians

MIDNIGHT = 1_723_075_200_000_000
BASE_US = 15_000_000
DAY_US = 86_400_000_000
BARS = {"15s": 5760, "1m": 1440, "5m": 288, "15m": 96, "1h": 24, "4h": 6, "24h": 1}


def counted(timestamp: np.ndarray, local: np.ndarray) -> Delays:
    rows, least, greatest = (np.zeros(5760, np.int64) for _ in range(3))
    for at, delay in zip(((timestamp - MIDNIGHT) // BASE_US).tolist(), (local - timestamp).tolist(), strict=True):
        if 0 <= at < 5760:
            least[at] = min(delay, least[at]) if rows[at] else delay
            greatest[at] = max(delay, greatest[at]) if rows[at] else delay
            rows[at] += 1
    return Delays(MIDNIGHT, rows, least, greatest)


def naive(timestamp: np.ndarray, local: np.ndarray) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for name, bars in BARS.items():
        within: dict[int, list[int]] = {}
        for at, delay in zip(timestamp.tolist(), (local - timestamp).tolist(), strict=True):
            bar = (at - MIDNIGHT) // (DAY_US // bars)
            if 0 <= bar < bars:
                within.setdefault(bar, []).append(delay)
        found[name] = {bar: statistics.median(delays) for bar, delays in within.items()}
    return found


def solved(timestamp: np.ndarray, local: np.ndarray, chunk_rows: int) -> tuple[dict[str, dict[int, float]], int]:
    passes = 0

    def times() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal passes
        passes += 1
        for start in range(0, len(timestamp), 777):
            yield timestamp[start : start + 777], local[start : start + 777]

    found = medians(counted(timestamp, local), times, chunk_rows=chunk_rows)
    assert {name: len(values) for name, values in found.items()} == BARS
    with_rows = {n: {b: float(m) for b, m in enumerate(v) if not np.isnan(m)} for n, v in found.items()}
    return with_rows, passes


def ticks(rows: int, spread_us: float, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    local = np.sort(MIDNIGHT + rng.integers(0, DAY_US, rows))
    local[rows // 3 : rows // 2] = local[rows // 2]  # a burst: more rows in one bar of 15 s than the small limits allow
    return local - (rng.lognormal(0, 1.5, rows) * spread_us).astype(np.int64) + 300, local


@pytest.mark.parametrize("spread_us", [1, 10_000, 30_000_000])
@pytest.mark.parametrize("chunk_rows", [1, 40, 600, 100_000])
def test_medians_are_exact_whichever_way_a_bar_is_solved(chunk_rows: int, spread_us: int) -> None:
    timestamp, local = ticks(3_000, spread_us)
    found, passes = solved(timestamp, local, chunk_rows)
    assert found == naive(timestamp, local)
    assert passes < 200


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_medians_of_a_handful_of_rows_are_exact(rows: int) -> None:
    timestamp, local = np.full(rows, MIDNIGHT), MIDNIGHT + np.array([5, 1, 4][:rows], dtype=np.int64)
    assert solved(timestamp, local, 10)[0] == naive(timestamp, local)


def test_a_nearly_ordered_day_takes_three_passes_and_a_small_one_takes_one() -> None:
    timestamp, local = ticks(20_000, 10_000)
    assert solved(timestamp, local, 8_000)[1] <= 3
    assert solved(timestamp, local, 20_000)[1] == 1


def test_a_shuffled_file_costs_passes_and_not_exactness() -> None:
    timestamp, local = ticks(6_000, 10_000)
    order = np.random.default_rng(5).permutation(6_000)
    found, passes = solved(timestamp[order], local[order], 300)
    assert found == naive(timestamp, local)
    assert 3 < passes < 40


@pytest.mark.parametrize("chunk_rows", [2, 1_000])
def test_absurd_arrival_times_do_not_break_the_arithmetic(chunk_rows: int) -> None:
    timestamp, local = ticks(500, 10_000)
    local[::7] = 0
    local[3::7] = 2**53
    assert solved(timestamp, local, chunk_rows)[0] == naive(timestamp, local)


def test_other_rows_than_were_counted_are_an_error_and_not_an_endless_loop() -> None:
    timestamp, local = ticks(100, 10_000)
    delays = counted(timestamp, local)
    for other in (timestamp[:-1], timestamp + 15_000_000):
        with pytest.raises(ValueError, match="other rows were read back"):
            medians(delays, lambda other=other: iter([(other, local[: len(other)])]))


def test_memory_does_not_grow_with_the_rows() -> None:
    timestamp, local = ticks(2_000_000, 10_000)
    inside = timestamp >= MIDNIGHT
    timestamp, local = timestamp[inside], local[inside]
    bucket = (timestamp - MIDNIGHT) // BASE_US
    least, greatest = np.full(5760, 2**62), np.full(5760, -(2**62))
    np.minimum.at(least, bucket, local - timestamp)
    np.maximum.at(greatest, bucket, local - timestamp)
    delays = Delays(MIDNIGHT, np.bincount(bucket, minlength=5760), least, greatest)
    tracemalloc.start()
    try:
        starts = range(0, len(timestamp), 100_000)
        views = lambda: ((timestamp[at : at + 100_000], local[at : at + 100_000]) for at in starts)  # noqa: E731  (short)
        medians(delays, views, chunk_rows=10_000)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16_000_000  # one column of the rows
