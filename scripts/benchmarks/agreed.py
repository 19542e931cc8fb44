"""What all programs of the bench agree on: the day, its bars, and the columns of them, composable in every section."""

from __future__ import annotations

START_US = 1_723_075_200_000_000
"""Midnight of 2024-08-08, the day of all rows but a few."""
TIMEFRAMES = {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "24h": 86_400}
LEVELS = [f"{s}s[{n}].{f}" for n in range(5) for s in ("ask", "bid") for f in ("price", "amount")]
"""The level columns of book_snapshot_5 as the files name them, in their order."""
OURS = {
    name: f"{name.split('s[')[0]}_{'price' if name.endswith('price') else 'volume'}_{int(name.split('[')[1][0]) + 1}"
    for name in LEVELS
}
"""What we call them."""

TRADE_COLUMNS = (
    "timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap", "buy_volume_sum", "sell_volume_sum",
    "delay_mean", "delay_max", "delay_min",
)  # fmt: skip
BOOK_COLUMNS = (
    "timestamp", "snapshot_timestamp", *LEVELS, "mid_price", "spread_abs", "spread_bps", "total_bid_volume",
    "total_ask_volume", "volume_imbalance", "bid_vwap", "ask_vwap",
)  # fmt: skip
