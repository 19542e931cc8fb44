"""Are the peers' candles ours? Asserted before anything is compared in speed: a faster wrong answer does not count."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from agreed import BOOK_COLUMNS, OURS, TIMEFRAMES, TRADE_COLUMNS

RELATIVE = 1e-9
_ABSOLUTE = 1e-6


def refuse_other_candles(kind: str, ours: Path, theirs: Path, *, medians: bool = False) -> None:
    """End the program naming the first bar and column in which two folders of candles differ."""
    columns = TRADE_COLUMNS if kind == "trades" else BOOK_COLUMNS
    columns = (*columns, "delay_median") if medians else columns
    for name in TIMEFRAMES:
        mine = pl.read_parquet(ours / f"{name}.parquet")
        mine = mine.rename({own: peer for peer, own in OURS.items() if own in mine.columns})
        filled = "trade_count" if kind == "trades" else "mid_price"
        present = mine[filled].is_not_null() & (mine[filled] != 0)
        left = _plain(mine.filter(present).select(columns))
        right = _plain(
            pl.read_parquet(theirs / f"{name}.parquet").rename({"bar": "timestamp"}, strict=False).select(columns)
        )
        if left.height != right.height:
            raise SystemExit(f"bench: {theirs} {name}: {right.height} bars, ours has {left.height}")
        for column in columns:
            a, b = left[column], right[column]
            off = ((a - b).abs() > RELATIVE * b.abs() + _ABSOLUTE) | (a.is_null() != b.is_null())
            if off.any():
                at = off.arg_max()
                raise SystemExit(f"bench: {theirs} {name} {column} at bar {at}: {b[at]}, ours is {a[at]}")


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Return times as whole µs and all else as floats, bars in order."""
    times = [c for c in frame.columns if frame[c].dtype.is_temporal()]
    whole = frame.with_columns(pl.col(c).dt.epoch("us") for c in times)
    return whole.cast(pl.Float64).sort("timestamp")
