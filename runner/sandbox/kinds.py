"""The instrument type that the source gives a symbol, told from exchange and symbol alone."""

from __future__ import annotations

import re

_GROUPS = {"SPOT": "spot", "FUTURES": "future", "PERPETUALS": "perpetual", "OPTIONS": "option", "COMBOS": "combo"}
_OPTION = re.compile(r"-\d{1,2}[A-Z]{3}\d{2}-[0-9d.]+-[CP](-[A-Z]+)?$|-\d{6}-[0-9d.]+-[CP]$")
_COMBO = re.compile(r"^[A-Z0-9_]+-(FS|[A-Z]*(CS|PS|CAL|DIAG|CBUT|PBUT|STRG|STRD|ICOND|REV|BOX|JR|RR|SPR)[A-Z]*)-")
_FUTURE = re.compile(r"[-_]\d{6}$|[-_]\d{1,2}[A-Z]{3}\d{2}$|(USD|USDT|USDC|XBT|ETH)[FGHJKMNQUVXZ]\d{2}$")
_PERPETUAL = re.compile(r"PERP(ETUAL)?$|-SWAP$")

# Exchanges whose symbols without a date are perpetuals; `-futures`, `-swap`, `-perpetual` in a name say so too.
_DERIVATIVES = frozenset(
    {"bitmex", "bybit", "deribit", "cryptofacilities", "delta", "dydx", "dydx-v4", "ftx", "hyperliquid", "phemex"}
    | {
        "ascendex",
        "binance-delivery",
        "bitfinex-derivatives",
        "bitnomial",
        "coinbase-international",
        "coinflex",
        "woo-x",
    }
)
_DERIVATIVE_NAME = re.compile(r"-(futures|swap|perpetuals?|delivery|derivatives|dm)\b")


def symbol_type(exchange: str, symbol: str) -> str:
    """Return spot, perpetual, future, option or combo.

    >>> [symbol_type("deribit", each) for each in ("BTC-PERPETUAL", "BTC_USDC", "BTC-29DEC23")]
    ['perpetual', 'spot', 'future']
    >>> [symbol_type("bybit", each) for each in ("BTCUSDT", "BTCPERP", "BTCUSDM25", "BTCUSDT-29DEC23")]
    ['perpetual', 'perpetual', 'future', 'future']
    >>> symbol_type("deribit", "XRP_USDC-29DEC23-0d5-C"), symbol_type("binance-futures", "BTCUSDT_231229")
    ('option', 'future')
    """
    if symbol in _GROUPS:
        return _GROUPS[symbol]
    if exchange.endswith("-options") or _OPTION.search(symbol):
        return "option"
    if exchange == "deribit" and _COMBO.search(symbol):
        return "combo"
    if exchange == "okex-futures" or _FUTURE.search(symbol):
        return "future"
    if exchange == "deribit" and not _PERPETUAL.search(symbol):
        return "spot"
    is_derivative = exchange in _DERIVATIVES or _DERIVATIVE_NAME.search(exchange)
    return "perpetual" if is_derivative else "spot"
