"""Ticks put into a store by hand, and candles computed from them row by row, from the contract alone."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner.market.schema import DATA_TYPES
from runner.stages import candles
from runner.stages.commit import Mode
from runner.stages.tools import Tools
from runner.store import Store
from runner.task import Entry, Source, Stage, Task

KEY = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
BEFORE, DAY, AFTER = date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 9)
DAYS = (BEFORE, DAY, AFTER)
MIDNIGHT = 1_723_075_200_000_000
SECOND = 1_000_000
DAY_US = 86_400 * SECOND
SECONDS = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "24h": 86_400}
LINEAR = Source("binance-futures", "BTCUSDT")

Row = dict[str, Any]  # column to value, times in µs
Files = dict[tuple[str, date], list[Row]]  # (data type, day of the file) to its rows in order

TICKER_VALUES = ("funding_rate", "predicted_funding_rate", "index_price", "mark_price", "open_interest")


def start_of(day: date) -> int:
    return MIDNIGHT + (day - DAY).days * DAY_US


def path_of(day: date, data_type: str, key: str = KEY) -> str:
    return f"raw_tick_data/by_date/day-{day}/data_type-{data_type}/{key}.parquet"


def candle_path(timeframe: str, data_type: str = "trades", day: date = DAY) -> str:
    if data_type == "trades":
        return f"processed_candles/by_date/day-{day}/timeframe-{timeframe}/{KEY}.parquet"
    depth = data_type.rsplit("_", 1)[1]
    return f"processed_book_snapshots/by_date/day-{day}/depth-{depth}/timeframe-{timeframe}/{KEY}.parquet"


def put_ticks(  # noqa: PLR0913 options of a made-up file
    store: Store,
    data_type: str,
    day: date,
    rows: Sequence[Row] = (),
    *,
    outcome: str = "",
    row_group: int = 131_072,
) -> None:
    """Write a tick file as another program would, over whatever is there."""
    schema = DATA_TYPES[data_type].ticks
    columns = [
        pa.array([row.get(name) for row in rows], kind) for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, row_group_size=row_group)
    digest = hashlib.sha256(json.dumps([data_type, str(day), list(rows)], sort_keys=True).encode()).hexdigest()
    metadata = {
        "outcome": outcome or ("done" if rows else "empty"),
        "rows": str(len(rows)),
        "digest": digest,
        "schema": "1",
    }
    live = store.head(path_of(day, data_type))
    store.put(
        path_of(day, data_type), sink.getvalue(), if_generation=live.generation if live else "", metadata=metadata
    )


def put_all(store: Store, files: Files, *, row_group: int = 131_072) -> None:
    for (data_type, day), rows in files.items():
        put_ticks(store, data_type, day, rows, row_group=row_group)


def task_of(day: date = DAY, source: Source = LINEAR, data_types: tuple[str, ...] = ("trades",)) -> Task:
    return Task(Stage.CANDLES, day, KEY, data_types, source)


def tools_of(store: Store, *, mode: Mode = Mode.KEEP) -> Tools:
    return Tools(store, None, Path(), mode)  # type: ignore[arg-type]  # the source is never asked


def make(
    store: Store, data_type: str = "trades", *, source: Source = LINEAR, day: date = DAY, mode: Mode = Mode.KEEP
) -> Entry:
    return candles.run(task_of(day, source, (data_type,)), data_type, tools_of(store, mode=mode))


def table_of(store: Store, timeframe: str, data_type: str = "trades", day: date = DAY) -> list[Row]:
    rows: list[Row] = pq.read_table(io.BytesIO(store.get(candle_path(timeframe, data_type, day)))).to_pylist()
    return rows


def facts_of(store: Store, timeframe: str = "1h", data_type: str = "trades", day: date = DAY) -> Mapping[str, str]:
    info = store.head(candle_path(timeframe, data_type, day))
    assert info is not None
    return info.metadata


def inputs_of(
    store: Store, timeframe: str = "1h", data_type: str = "trades", day: date = DAY
) -> list[tuple[str, str, str]]:
    footer = pq.read_metadata(io.BytesIO(store.get(candle_path(timeframe, data_type, day)))).metadata
    listed = json.loads(footer[b"inputs"])
    return [(one["data_type"], one["day"], one.get("digest") or one["outcome"]) for one in listed]


@dataclass
class Dice:
    """Made-up rows: out of order, sharing times, with holes, and crossing both midnights both ways."""

    seed: int
    rows: int = 400
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def files(self, *data_types: str) -> Files:
        return {(data_type, day): self.file(data_type, day) for data_type in data_types for day in DAYS}

    def file(self, data_type: str, day: date) -> list[Row]:
        start, dice = start_of(day), self.random
        arrivals = sorted(dice.choice([dice.uniform(0, 86_400), dice.gauss(43_200, 40)]) for _ in range(self.rows))
        found = []
        for at in arrivals:
            local = start + int(min(max(at, 0), 86_399.9) * SECOND)
            found.append((local - int(dice.expovariate(1) * 30_000 * dice.choice([1, 1, 1, 300])), local))
        # The head of a file belongs to the day before, its tail to the day after (the venue's clock is ahead).
        for n in range(8):
            found[n] = (start - (8 - n) * 40_000, start + n * 1_000)
            found[-1 - n] = (start + DAY_US + (8 - n) * 30_000, start + DAY_US - 1 - n * 1_000)
        return [{"timestamp": ts, "local_timestamp": local, **self.values(data_type)} for ts, local in found]

    def values(self, data_type: str) -> Row:
        dice = self.random
        price = round(60_000 + dice.gauss(0, 50), 2)
        if data_type == "derivative_ticker":
            row: Row = {name: round(dice.uniform(1, 9), 4) if dice.random() > 0.3 else None for name in TICKER_VALUES}
            return row | {"last_price": price}
        if data_type.startswith("book_snapshot"):
            return self.book(int(data_type.rsplit("_", 1)[1]), price)
        return {
            "side": dice.choice(["buy", "sell", "unknown"]),
            "price": price,
            "amount": round(dice.uniform(0.001, 3), 3),
        }

    def book(self, depth: int, price: float) -> Row:
        dice, row = self.random, {}
        for side, sign in (("ask", 1), ("bid", -1)):
            levels = depth if dice.random() > 0.1 else dice.randrange(depth)
            at = price + sign * dice.uniform(-0.2, 2)
            for level in range(1, levels + 1):
                row[f"{side}_price_{level}"] = round(at + sign * level * 0.5, 2)
                row[f"{side}_volume_{level}"] = round(dice.uniform(0.01, 5), 3)
        return row


def rows_of(files: Files, data_type: str) -> list[Row] | None:
    """All rows of a type in arrival order; None where the type is not there on the day."""
    if (data_type, DAY) not in files:
        return None
    return [row for day in DAYS for row in files.get((data_type, day), [])]


def by_bar(rows: Iterable[Row], seconds: int) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault((row["timestamp"] - MIDNIGHT) // (seconds * SECOND), []).append(row)
    return found


@dataclass
class Bars:
    """Rows of a joined type by bar, for each length of a bar."""

    rows: list[Row]
    made: dict[int, dict[int, list[Row]]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[Row] | None) -> Bars | None:
        return None if rows is None else cls(rows)

    def bars(self, seconds: int) -> dict[int, list[Row]]:
        if seconds not in self.made:
            self.made[seconds] = by_bar(self.rows, seconds)
        return self.made[seconds]


def last_of(rows: Iterable[Row], name: str) -> Row | None:
    return next((row for row in reversed(list(rows)) if row[name] is not None), None)


def interest_before(base: dict[int, list[Row]], start_s: int) -> Row | None:
    """The last open interest of the newest 15-second bar before a bar, not further than the day before."""
    for bar in range(start_s // 15 - 1, -5_761, -1):
        if bar in base and (row := last_of(base[bar], "open_interest")):
            return row
    return None


def oracle(files: Files, timeframe: str, source: Source = LINEAR) -> list[Row]:
    """Candles of the day, one row at a time; `timestamp_out` in µs."""
    seconds = SECONDS[timeframe]
    trades = by_bar(rows_of(files, "trades") or [], seconds)
    tickers, liquidations = Bars.of(rows_of(files, "derivative_ticker")), Bars.of(rows_of(files, "liquidations"))
    found = []
    for bar in range(86_400 // seconds):
        out, used = trade_bar(trades.get(bar, []), source)
        for joined, rows in (
            ticker_bar(tickers, bar, seconds),
            liquidation_bar(liquidations, bar, seconds),
            directed_bar(tickers, liquidations, bar, seconds),
        ):
            out |= joined
            used = [*used, *rows]
        end = MIDNIGHT + (bar + 1) * seconds * SECOND
        out["timestamp_out"] = max([end, *(row["local_timestamp"] for row in used)]) + 200_000
        found.append(out)
    return found


def trade_bar(rows: list[Row], source: Source) -> tuple[Row, list[Row]]:
    amount = math.fsum(row["amount"] for row in rows)
    value = math.fsum(row["price"] * row["amount"] for row in rows)
    in_base = math.fsum(row["amount"] / row["price"] for row in rows)
    size = source.contract_size
    units: dict[str, tuple[float | None, float | None]] = {"base": (amount, value), "quote": (in_base, amount)}
    if source.amount_unit == "contract" and size is None:
        units["contract"] = (None, None)
    elif size is not None:
        units["contract"] = (in_base * size, amount * size) if source.inverse else (amount * size, value * size)
    out: Row = {"trade_count": len(rows), "volume": amount}
    out["volume_base"], out["volume_quote"] = units[source.amount_unit]
    for side in ("buy", "sell"):
        out[f"{side}_volume_sum"] = math.fsum(row["amount"] for row in rows if row["side"] == side)
    names = ("open", "high", "low", "close", "vwap", "price_vwap", "price_change", "price_change_pct", "is_green")
    names += ("size_avg", "latency_ms", "delay_mean", "delay_max", "delay_min", "delay_median")
    out |= dict.fromkeys(names)
    if not rows:
        return out, []
    prices = [row["price"] for row in rows]
    delays = [(row["local_timestamp"] - row["timestamp"]) / 1000 for row in rows]
    change, vwap = prices[-1] - prices[0], amount / in_base if source.inverse else value / amount
    out |= {"open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1]}
    out |= {"vwap": vwap, "price_vwap": vwap, "price_change": change, "price_change_pct": change / prices[0] * 100}
    out |= {"is_green": change > 0, "size_avg": amount / len(rows), "latency_ms": statistics.fmean(delays)}
    out |= {"delay_mean": statistics.fmean(delays), "delay_max": max(delays), "delay_min": min(delays)}
    return out | {"delay_median": statistics.median(delays)}, rows


def ticker_bar(tickers: Bars | None, bar: int, seconds: int) -> tuple[Row, list[Row]]:
    out: Row = dict.fromkeys([*TICKER_VALUES, "oi_change"])
    used: list[Row] = []
    if tickers is None:
        return out, used
    inside, base = tickers.bars(seconds).get(bar, []), tickers.bars(15)
    for name in TICKER_VALUES:
        if row := last_of(inside, name):
            out[name] = row[name]
            used.append(row)
    now, before = last_of(inside, "open_interest"), interest_before(base, bar * seconds)
    if now and before:
        out["oi_change"] = now["open_interest"] - before["open_interest"]
        used.append(before)
    return out, used


def liquidation_bar(liquidations: Bars | None, bar: int, seconds: int) -> tuple[Row, list[Row]]:
    names = ("liquidation_buy_volume", "liquidation_sell_volume", "liquidation_count")
    if liquidations is None:
        return dict.fromkeys(names), []
    rows = liquidations.bars(seconds).get(bar, [])
    volumes = [math.fsum(row["amount"] for row in rows if row["side"] == side) for side in ("buy", "sell")]
    return dict(zip(names, [*volumes, len(rows)], strict=True)), rows


def directed_bar(tickers: Bars | None, liquidations: Bars | None, bar: int, seconds: int) -> tuple[Row, list[Row]]:
    names = ("liquidation_with_rising_oi", "liquidation_with_falling_oi")
    if tickers is None or liquidations is None:
        return dict.fromkeys(names), []
    rising, falling, used = 0.0, 0.0, []
    by_15s = liquidations.bars(15)
    for small in range(bar * seconds // 15, (bar + 1) * seconds // 15):
        if small in by_15s:
            known, rows = ticker_bar(tickers, small, 15)
            amount = math.fsum(row["amount"] for row in by_15s[small])
            if known["oi_change"] is not None:
                used += rows
                rising += amount if known["oi_change"] > 0 else 0
                falling += amount if known["oi_change"] < 0 else 0
    return {names[0]: rising, names[1]: falling}, used


def micros(value: datetime) -> int:
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def differences(mine: list[Row], theirs: list[Row]) -> list[str]:
    """Name what differs; floats to one part in 10⁹."""
    assert len(mine) == len(theirs)
    found = []
    for bar, (ours, right) in enumerate(zip(mine, theirs, strict=True)):
        for name, value in right.items():
            other = micros(ours[name]) if isinstance(ours[name], datetime) else ours[name]
            if isinstance(other, float) and isinstance(value, float | int):
                same = math.isclose(other, value, rel_tol=1e-9, abs_tol=1e-9)
            else:
                same = other == value
            if not same:
                found.append(f"bar {bar} {name}: {other}, not {value}")
    return found
