"""Candles drawn in a terminal with block characters: a picture that shows at a glance whether a day looks real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from runner.logs import escape

_WICK, _BODY, _DOJI, _NONE = "│", "█", "┼", " "
_FALLING = "▒"


class Candle(NamedTuple):
    """Prices of one bar. All None where nothing traded."""

    open: float | None
    high: float | None
    low: float | None
    close: float | None


def chart(candles: Sequence[Candle], *, caption: str, width: int = 72, height: int = 12) -> str:
    """Return a chart at most `width` columns wide: one column a bar, `height` lines, prices at the right, a caption.

    Rising bodies are full, falling ones shaded, so that no colour is needed. Too many bars are merged, in order.
    """
    bars = _merged(candles, max(8, width - 14))
    lows, highs = [b.low for b in bars if b.low is not None], [b.high for b in bars if b.high is not None]
    if not lows or not highs:
        return f"(no trades)\n{escape(caption)}"
    bottom, top = min(lows), max(highs)
    step = (top - bottom) / height or 1.0
    lines = []
    for line in range(height):
        low, high = top - (line + 1) * step, top - line * step
        label = f" {_price(high, step)}" if line % 4 == 0 else f" {_price(bottom, step)}" if line == height - 1 else ""
        lines.append("".join(_mark(bar, low, high) for bar in bars) + label)
    return "\n".join([*lines, escape(caption)])


def _mark(bar: Candle, low: float, high: float) -> str:
    if bar.open is None or bar.close is None or bar.high is None or bar.low is None:
        return _NONE
    if bar.high < low or bar.low > high:
        return _NONE
    body_low, body_high = min(bar.open, bar.close), max(bar.open, bar.close)
    if body_high < low or body_low > high:
        return _WICK
    if body_low == body_high:
        return _DOJI
    return _BODY if bar.close > bar.open else _FALLING


def _merged(candles: Sequence[Candle], columns: int) -> list[Candle]:
    each = max(1, -(-len(candles) // columns))
    return [_merge(candles[start : start + each]) for start in range(0, len(candles), each)]


def _merge(candles: Sequence[Candle]) -> Candle:
    opens = [c.open for c in candles if c.open is not None]
    highs = [c.high for c in candles if c.high is not None]
    lows = [c.low for c in candles if c.low is not None]
    closes = [c.close for c in candles if c.close is not None]
    if not (opens and highs and lows and closes):
        return Candle(None, None, None, None)
    return Candle(opens[0], max(highs), min(lows), closes[-1])


def _price(value: float, step: float) -> str:
    digits = 0
    while step < 1 and digits < 8:  # noqa: PLR2004 the finest price step there is
        step, digits = step * 10, digits + 1
    return f"{value:,.{digits}f}"
