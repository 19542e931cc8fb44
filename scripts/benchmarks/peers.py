"""The peers' programs: ticks to Parquet and candles of seven timeframes, each as its users would write it well.

All bucket by exchange time, take open and close in file order, and leave out bars without rows. Rolled up: 15-second
bars from the ticks, coarser ones from those; direct: seven group-bys of the ticks, which medians need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agreed import LEVELS, START_US, TIMEFRAMES

_END_US = START_US + 86_400_000_000
_FILL = ("id", "side", "price", "amount")
_SUMS = ("volume", "value", "trade_count", "buy_volume_sum", "sell_volume_sum", "delay_sum")


def polars(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Lazy polars: one streaming pass writes the ticks, another sums the bars."""
    import polars as pl

    text = {"exchange": pl.String, "symbol": pl.String, "timestamp": pl.Int64, "local_timestamp": pl.Int64}
    own = {"id": pl.String, "side": pl.String} if kind == "trades" else {}
    numbers = dict.fromkeys(("price", "amount") if kind == "trades" else LEVELS, pl.Float64)
    ticks = pl.scan_csv(source, schema={**text, **own, **numbers}).drop("exchange", "symbol")
    times = [pl.col(c).cast(pl.Datetime("us", "UTC")) for c in ("timestamp", "local_timestamp")]
    ticks.with_columns(times).sink_parquet(out / "ticks.parquet", compression="zstd", compression_level=1)
    # Scanning what was just written is cheaper than unpacking and parsing the day a second time.
    written = pl.scan_parquet(out / "ticks.parquet", row_index_name="n")
    numbered = written.with_columns(pl.col(c).cast(pl.Int64) for c in ("timestamp", "local_timestamp"))
    if kind == "trades":
        _polars_trades(pl, numbered, out, direct=direct)
    else:
        _polars_book(pl, numbered, out)


def _polars_bars(pl: Any, rows: Any, seconds: int, sums: Sequence[Any]) -> Any:
    bar_us = seconds * 1_000_000
    bar = pl.col("timestamp") - pl.col("timestamp") % bar_us
    return rows.with_columns(bar.alias("timestamp")).group_by("timestamp", maintain_order=True).agg(sums)


def _polars_trades(pl: Any, ticks: Any, out: Path, *, direct: bool) -> None:
    c = pl.col
    inside = ticks.filter(c("timestamp").is_between(START_US, _END_US, closed="left"))
    rows = inside.with_columns(delay=(c("local_timestamp") - c("timestamp")) / 1_000)
    first = [
        c("price").first().alias("open"), c("price").max().alias("high"), c("price").min().alias("low"),
        c("price").last().alias("close"), c("amount").sum().alias("volume"),
        (c("price") * c("amount")).sum().alias("value"), pl.len().cast(pl.Int64).alias("trade_count"),
        c("amount").filter(c("side") == "buy").sum().alias("buy_volume_sum"),
        c("amount").filter(c("side") == "sell").sum().alias("sell_volume_sum"),
        c("delay").sum().alias("delay_sum"), c("delay").max().alias("delay_max"), c("delay").min().alias("delay_min"),
        c("n").first().alias("n0"), c("n").last().alias("n1"),
    ]  # fmt: skip
    # Trades arrive out of order: a bar's last one may lie in any of its parts.
    again = [
        c("open").get(c("n0").arg_min()), c("high").max(), c("low").min(), c("close").get(c("n1").arg_max()),
        c("n0").min(), c("n1").max(), c("delay_max").max(), c("delay_min").min(), *(c(name).sum() for name in _SUMS),
    ]  # fmt: skip
    ratios = [(c("value") / c("volume")).alias("vwap"), (c("delay_sum") / c("trade_count")).alias("delay_mean")]
    if direct:
        first = [*first, c("delay").median().alias("delay_median")]
        kept = rows.collect()
        for name, seconds in TIMEFRAMES.items():
            _polars_write(pl, _polars_bars(pl, kept, seconds, first).with_columns(ratios), out, name)
        return
    base = _polars_bars(pl, rows, 15, first).collect(engine="streaming")
    for name, seconds in TIMEFRAMES.items():
        bars = _polars_bars(pl, base, seconds, again).with_columns(ratios).drop("n0", "n1")
        _polars_write(pl, bars, out, name)


def _polars_book(pl: Any, ticks: Any, out: Path) -> None:
    c = pl.col
    rows = ticks.filter(c("timestamp").is_between(START_US, _END_US, closed="left"))
    rows = rows.with_columns(snapshot_timestamp=c("timestamp"))
    first = [c(name).first() for name in ("snapshot_timestamp", *LEVELS)]
    base = _polars_bars(pl, rows, 15, first).collect(engine="streaming")
    for name, seconds in TIMEFRAMES.items():
        bars = _polars_bars(pl, base, seconds, first)
        best = {s: c(f"{s}s[0].price") for s in ("ask", "bid")}
        total = {s: sum((c(f"{s}s[{n}].amount") for n in range(5)), pl.lit(0.0)) for s in ("ask", "bid")}
        value = {s: sum((c(f"{s}s[{n}].price") * c(f"{s}s[{n}].amount") for n in range(5)), pl.lit(0.0)) for s in total}
        mid = (best["ask"] + best["bid"]) / 2
        features = {
            "mid_price": mid,
            "spread_abs": best["ask"] - best["bid"],
            "spread_bps": (best["ask"] - best["bid"]) / mid * 10_000,
            "total_bid_volume": total["bid"],
            "total_ask_volume": total["ask"],
            "volume_imbalance": (total["bid"] - total["ask"]) / (total["bid"] + total["ask"]),
            "bid_vwap": value["bid"] / total["bid"],
            "ask_vwap": value["ask"] / total["ask"],
        }
        _polars_write(pl, bars.with_columns(**features), out, name)


def _polars_write(pl: Any, bars: Any, out: Path, name: str) -> None:
    stamped = bars.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    stamped.write_parquet(out / f"{name}.parquet", compression="zstd", compression_level=1)


def duckdb(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """DuckDB's SQL: ticks by COPY, then bars from what was written, numbered so that first and last mean arrival."""
    import duckdb as db

    sql = db.connect()
    sql.execute("SET preserve_insertion_order = true")
    own = {"id": "VARCHAR", "side": "VARCHAR"} if kind == "trades" else {}
    numbers = dict.fromkeys(("price", "amount") if kind == "trades" else LEVELS, "DOUBLE")
    text = {"exchange": "VARCHAR", "symbol": "VARCHAR", "timestamp": "BIGINT", "local_timestamp": "BIGINT"}
    columns = ", ".join(f"'{name}': '{kind_}'" for name, kind_ in {**text, **own, **numbers}.items())
    kept = ", ".join(f'"{name}"' for name in (*own, *numbers))
    times = "make_timestamptz(timestamp) AS timestamp, make_timestamptz(local_timestamp) AS local_timestamp"
    ticks = out / "ticks.parquet"
    sql.execute(
        f"COPY (SELECT {times}, {kept} FROM read_csv('{source}', header=true, columns={{{columns}}}, quote='')) "
        f"TO '{ticks}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    )
    rows = (
        f"(SELECT * REPLACE (epoch_us(timestamp) AS timestamp, epoch_us(local_timestamp) AS local_timestamp), "
        f"file_row_number AS n FROM read_parquet('{ticks}', file_row_number=true))"
    )
    inside = f"timestamp >= {START_US} AND timestamp < {_END_US}"
    if kind == "trades":
        _duckdb_trades(sql, rows, inside, out, direct=direct)
    else:
        _duckdb_book(sql, rows, inside, out)


def _duckdb_bars(sql: Any, rows: str, seconds: int, sums: str) -> str:
    bar_us = seconds * 1_000_000
    name = f"bars_{seconds}"
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT timestamp - timestamp % {bar_us} AS bar, {sums} "
        f"FROM {rows} GROUP BY bar ORDER BY bar"
    )
    return name


def _duckdb_trades(sql: Any, rows: str, inside: str, out: Path, *, direct: bool) -> None:
    delay = "(local_timestamp - timestamp) / 1000.0"
    first = (
        "arg_min(price, n) AS open, max(price) AS high, min(price) AS low, arg_max(price, n) AS close, min(n) AS n0, "
        "max(n) AS n1, sum(amount) AS volume, sum(price * amount) AS value, count(*) AS trade_count, "
        "coalesce(sum(amount) FILTER (side = 'buy'), 0) AS buy_volume_sum, "
        "coalesce(sum(amount) FILTER (side = 'sell'), 0) AS sell_volume_sum, "
        f"sum({delay}) AS delay_sum, max({delay}) AS delay_max, min({delay}) AS delay_min"
    )
    sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
    again = (
        "arg_min(open, n0) AS open, max(high) AS high, min(low) AS low, arg_max(close, n1) AS close, min(n0) AS n0, "
        f"max(n1) AS n1, {sums}, max(delay_max) AS delay_max, min(delay_min) AS delay_min"
    )
    ratios = "value / volume AS vwap, delay_sum / trade_count AS delay_mean"
    source, what = f"(SELECT * FROM {rows} WHERE {inside})", first
    if direct:
        what = f"{first}, median({delay}) AS delay_median"
    for name, seconds in TIMEFRAMES.items():
        bars = _duckdb_bars(sql, source, seconds, what)
        _duckdb_write(sql, f"SELECT * EXCLUDE (n0, n1), {ratios} FROM {bars}", out, name)
        if not direct:
            source, what = f"(SELECT bar AS timestamp, * EXCLUDE (bar) FROM {bars})", again


def _duckdb_book(sql: Any, rows: str, inside: str, out: Path) -> None:
    levels = ", ".join(f'arg_min("{name}", n) AS "{name}"' for name in LEVELS)
    first = f"min(n) AS n, arg_min(timestamp, n) AS snapshot_timestamp, {levels}"
    again = f"min(n) AS n, arg_min(snapshot_timestamp, n) AS snapshot_timestamp, {levels}"

    def total(side: str, *, priced: bool) -> str:
        amounts = (f'"{side}s[{n}].amount"' + (f' * "{side}s[{n}].price"' if priced else "") for n in range(5))
        return f"({' + '.join(amounts)})"

    ask, bid = '"asks[0].price"', '"bids[0].price"'
    features = (
        f"({ask} + {bid}) / 2 AS mid_price, {ask} - {bid} AS spread_abs, "
        f"({ask} - {bid}) / (({ask} + {bid}) / 2) * 10000 AS spread_bps, "
        f"{total('bid', priced=False)} AS total_bid_volume, {total('ask', priced=False)} AS total_ask_volume, "
        "(total_bid_volume - total_ask_volume) / (total_bid_volume + total_ask_volume) AS volume_imbalance, "
        f"{total('bid', priced=True)} / total_bid_volume AS bid_vwap, "
        f"{total('ask', priced=True)} / total_ask_volume AS ask_vwap"
    )
    source, what = f"(SELECT * FROM {rows} WHERE {inside})", first
    for name, seconds in TIMEFRAMES.items():
        bars = _duckdb_bars(sql, source, seconds, what)
        _duckdb_write(sql, f"SELECT * EXCLUDE (n), {features} FROM {bars}", out, name)
        source, what = f"(SELECT bar AS timestamp, * EXCLUDE (bar) FROM {bars})", again


def _duckdb_write(sql: Any, select: str, out: Path, name: str) -> None:
    sql.execute(
        f"COPY (SELECT * REPLACE (make_timestamptz(bar) AS bar) FROM ({select})) TO '{out / name}.parquet' "
        "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    )


def pandas(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Vectorised pandas as its manual teaches it: the day in memory, seven group-bys, Parquet by default (snappy)."""
    import pandas as pd

    ticks = pd.read_csv(source)
    for name in ("timestamp", "local_timestamp"):
        ticks[name] = pd.to_datetime(ticks[name], unit="us", utc=True)
    ticks.drop(columns=["exchange", "symbol"]).to_parquet(out / "ticks.parquet", index=False)
    start, end = (pd.to_datetime(at, unit="us", utc=True) for at in (START_US, _END_US))
    inside = ticks[(ticks["timestamp"] >= start) & (ticks["timestamp"] < end)]
    delay = (inside["local_timestamp"] - inside["timestamp"]).dt.total_seconds() * 1_000
    for name, seconds in TIMEFRAMES.items():
        bar = inside["timestamp"].dt.floor(f"{seconds}s").rename("bar")
        _pandas_write(_pandas_bars(kind, inside, bar, delay, median=direct), out, name)


def pandas_tuned(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Do the same with the columns and types named beforehand and times as whole numbers."""
    import pandas as pd

    own = {"id": "str", "side": "str"} if kind == "trades" else {}
    numbers = dict.fromkeys(("price", "amount") if kind == "trades" else LEVELS, "float64")
    names = ["timestamp", "local_timestamp", *own, *numbers]
    ticks = pd.read_csv(
        source, usecols=names, dtype={"timestamp": "int64", "local_timestamp": "int64", **own, **numbers}
    )
    stamped = ticks.assign(
        timestamp=pd.to_datetime(ticks["timestamp"], unit="us", utc=True),
        local_timestamp=pd.to_datetime(ticks["local_timestamp"], unit="us", utc=True),
    )
    stamped.to_parquet(out / "ticks.parquet", index=False)
    inside = ticks[(ticks["timestamp"] >= START_US) & (ticks["timestamp"] < _END_US)]
    delay = (inside["local_timestamp"] - inside["timestamp"]) / 1_000
    for name, seconds in TIMEFRAMES.items():
        bar_us = seconds * 1_000_000
        bar = (inside["timestamp"] - inside["timestamp"] % bar_us).rename("bar")
        bars = _pandas_bars(kind, inside, bar, delay, median=direct)
        _pandas_write(bars.set_index(pd.to_datetime(bars.index, unit="us", utc=True)), out, name)


def _pandas_bars(kind: str, rows: Any, bar: Any, delay: Any, *, median: bool) -> Any:
    return _pandas_trades(rows, bar, delay, median=median) if kind == "trades" else _pandas_book(rows, bar)


def _pandas_write(bars: Any, out: Path, name: str) -> None:
    bars.rename_axis("timestamp").reset_index().to_parquet(out / f"{name}.parquet", index=False)


def _pandas_trades(rows: Any, bar: Any, delay: Any, *, median: bool) -> Any:
    amount = rows["amount"]
    wide = rows.assign(
        value=rows["price"] * amount,
        buy=amount.where(rows["side"] == "buy", 0.0),
        sell=amount.where(rows["side"] == "sell", 0.0),
        delay=delay,
    )
    found = wide.groupby(bar).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"), close=("price", "last"),
        volume=("amount", "sum"), value=("value", "sum"), trade_count=("price", "size"),
        buy_volume_sum=("buy", "sum"), sell_volume_sum=("sell", "sum"),
        delay_mean=("delay", "mean"), delay_max=("delay", "max"), delay_min=("delay", "min"),
        **({"delay_median": ("delay", "median")} if median else {}),
    )  # fmt: skip
    return found.assign(vwap=found["value"] / found["volume"])


def _pandas_book(rows: Any, bar: Any) -> Any:
    found = rows.assign(snapshot_timestamp=rows["timestamp"]).groupby(bar)[["snapshot_timestamp", *LEVELS]].first()
    price = {s: [found[f"{s}s[{n}].price"] for n in range(5)] for s in ("ask", "bid")}
    amount = {s: [found[f"{s}s[{n}].amount"] for n in range(5)] for s in ("ask", "bid")}
    total = {s: sum(amount[s]) for s in amount}
    value = {s: sum(p * a for p, a in zip(price[s], amount[s], strict=True)) for s in amount}
    mid, gap = (price["ask"][0] + price["bid"][0]) / 2, price["ask"][0] - price["bid"][0]
    return found.assign(
        mid_price=mid,
        spread_abs=gap,
        spread_bps=gap / mid * 10_000,
        total_bid_volume=total["bid"],
        total_ask_volume=total["ask"],
        volume_imbalance=(total["bid"] - total["ask"]) / (total["bid"] + total["ask"]),
        bid_vwap=value["bid"] / total["bid"],
        ask_vwap=value["ask"] / total["ask"],
    )
