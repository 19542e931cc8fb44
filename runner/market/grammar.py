"""How each exchange writes its symbols: text to parts, and back. No units, no listing, no table.

Every reader has its writer, and `read` accepts a symbol only if the writer gives the same text again: two spellings
can therefore never share a key.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from runner.market.reference import quote_of

SPOT_PAIR, PERPETUAL, FUTURE, OPTION = "SPOT_PAIR", "PERPETUAL", "FUTURE", "OPTION"
TYPES: Mapping[str, str] = {"spot": SPOT_PAIR, "perpetual": PERPETUAL, "future": FUTURE, "option": OPTION}
"""Tardis's type to the TYPE of a key."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# One letter a month, January first: the code of futures exchanges that Bybit uses for its quarterlies.
_MONTH_CODES = "FGHJKMNQUVXZ"
_CENTURY = 2000
_FRIDAY = 4
_DMY = re.compile(r"([1-9]|[12][0-9]|3[01])([A-Z]{3})([0-9]{2})")
_YMD = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})")
_CODED = re.compile(r"(.+)USD([FGHJKMNQUVXZ])([0-9]{2})")
_SYMBOL_CHARS = 100
_STRIKE = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")


class UnreadableError(ValueError):
    """A symbol or key is not written as its exchange writes them; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a symbol says. `expiry` is a UTC date, `strike` decimal text, `right` CALL or PUT."""

    kind: str
    base: str
    quote: str
    expiry: date | None = None
    strike: str = ""
    right: str = ""

    @property
    def symbol(self) -> str:
        """Return the SYMBOL of a key.

        >>> Parts(FUTURE, "BTC", "USD", date(2023, 12, 29)).symbol
        'BTC-USD-231229'
        """
        expiry = f"{self.expiry:%y%m%d}" if self.expiry else ""
        return "-".join(part for part in (self.base, self.quote, expiry, self.strike, self.right) if part)


def parts_of(kind: str, symbol: str) -> Parts:
    """Return the parts of the TYPE and SYMBOL of a key.

    Raises UnreadableError where the text is none.

    >>> parts_of(OPTION, "XRP-USDC-231229-0.5-CALL").strike
    '0.5'
    """
    pieces = symbol.split("-")
    if len(pieces) != {SPOT_PAIR: 2, PERPETUAL: 2, FUTURE: 3, OPTION: 5}.get(kind):
        raise UnreadableError(f"{symbol!r} is not the symbol of a {kind} key")
    expiry = _ymd(pieces[2]) if kind in (FUTURE, OPTION) else None
    return Parts(kind, pieces[0], pieces[1], expiry, *pieces[3:])


def read(exchange: str, symbol: str, kind: str) -> Parts:
    """Return the parts of a symbol as an exchange writes it.

    Raises UnreadableError with the reason.

    >>> read("deribit", "BTC-2JUN23-1850-P", OPTION).symbol
    'BTC-USD-230602-1850-PUT'
    """
    codec = _codec(exchange, kind)
    if len(symbol) > _SYMBOL_CHARS:
        raise UnreadableError(f"it has {len(symbol)} characters, at most {_SYMBOL_CHARS} make the name of an object")
    parts = codec.read(symbol)
    if not _is_asset(parts.base) or not _is_asset(parts.quote.replace("_", "")):
        raise UnreadableError(f"base {parts.base!r} or quote {parts.quote!r} is not upper-case letters and digits")
    again = codec.write(parts)
    if symbol not in (again, again.upper()):  # files are named in capitals
        raise UnreadableError(f"it would share the key of {again!r}, which is how {exchange} writes {parts.symbol}")
    return parts


def write(exchange: str, parts: Parts) -> str:
    """Return the symbol that an exchange gives to these parts: the inverse of `read`.

    Raises UnreadableError where the exchange has no such symbol.

    >>> write("bybit", Parts(FUTURE, "BTC", "USD", date(2025, 6, 27)))
    'BTCUSDM25'
    """
    symbol = _codec(exchange, parts.kind).write(parts)
    if read(exchange, symbol, parts.kind) != parts:
        raise UnreadableError(f"{exchange} would read {symbol!r} as another instrument than {parts.symbol}")
    return symbol


@dataclass(frozen=True, slots=True)
class _Codec:
    read: Callable[[str], Parts]
    write: Callable[[Parts], str]


def _codec(exchange: str, kind: str) -> _Codec:
    codec = _CODECS.get((exchange, kind))
    if codec is None:
        raise UnreadableError(f"{exchange} has no {kind} instruments in this program")
    return codec


def _is_asset(text: str) -> bool:
    # Binance lists coins with Chinese names, so letters of any script; NFKC keeps look-alikes of one name apart.
    return text.isalnum() and text == text.upper() and text == unicodedata.normalize("NFKC", text)


def _pieces(symbol: str, separator: str, count: int, form: str) -> list[str]:
    pieces = symbol.split(separator)
    if len(pieces) != count:
        raise UnreadableError(f"it is not written like {form}")
    return pieces


def _without(symbol: str, suffix: str) -> str:
    if not symbol.endswith(suffix):
        raise UnreadableError(f"it does not end with {suffix}")
    return symbol.removesuffix(suffix)


def _day(year: int, month: int, day: int, text: str) -> date:
    try:
        return date(_CENTURY + year, month, day)
    except ValueError as e:
        raise UnreadableError(f"{text!r} is not a date") from e


def _ymd(text: str) -> date:
    if not (found := _YMD.fullmatch(text)):
        raise UnreadableError(f"{text!r} is not a date written YYMMDD")
    year, month, day = map(int, found.groups())
    return _day(year, month, day, text)


def _dmy(text: str) -> date:
    found = _DMY.fullmatch(text)
    if not found or found[2] not in _MONTHS:
        raise UnreadableError(f"{text!r} is not a date written like 2JUN23")
    return _day(int(found[3]), _MONTHS.index(found[2]) + 1, int(found[1]), text)


def _dmy_text(parts: Parts) -> str:
    day = _expiry(parts)
    return f"{day.day}{_MONTHS[day.month - 1]}{day:%y}"


def _ymd_text(parts: Parts) -> str:
    return f"{_expiry(parts):%y%m%d}"


def _expiry(parts: Parts) -> date:
    if parts.expiry is None:
        raise UnreadableError(f"a {parts.kind} needs an expiry")
    return parts.expiry


def _last_friday(year: int, month: int) -> date:
    last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - _FRIDAY) % 7)


# Pairs written in one piece: binance, bybit.


def _unglue(exchange: str, glued: str) -> tuple[str, str]:
    quote = quote_of(exchange, glued)
    if quote is None:
        raise UnreadableError(f"{glued!r} ends with no quote asset listed for {exchange}")
    return glued.removesuffix(quote), quote


def _glued(exchange: str, kind: str, suffix: str = "") -> _Codec:
    def read(symbol: str) -> Parts:
        return Parts(kind, *_unglue(exchange, _without(symbol, suffix)))

    return _Codec(read, lambda parts: f"{parts.base}{parts.quote}{suffix}")


def _glued_dated(exchange: str) -> _Codec:
    def read(symbol: str) -> Parts:
        pair, day = _pieces(symbol, "_", 2, "BTCUSDT_231229")
        return Parts(FUTURE, *_unglue(exchange, pair), _ymd(day))

    return _Codec(read, lambda parts: f"{parts.base}{parts.quote}_{_ymd_text(parts)}")


def _read_bybit_perpetual(symbol: str) -> Parts:
    # BTCPERP settles in USDC; PERPUSDT is a coin called PERP.
    if symbol.endswith("PERP"):
        return Parts(PERPETUAL, symbol.removesuffix("PERP"), "USDC")
    return Parts(PERPETUAL, *_unglue("bybit", symbol))


def _write_bybit_perpetual(parts: Parts) -> str:
    return f"{parts.base}PERP" if parts.quote == "USDC" else f"{parts.base}{parts.quote}"


def _read_bybit_future(symbol: str) -> Parts:
    if "-" in symbol:
        left, day = _pieces(symbol, "-", 2, "BTC-29DEC23 or BTCUSDT-29DEC23")
        base = left.removesuffix("USDT")
        return Parts(FUTURE, base, "USDC" if base == left else "USDT", _dmy(day))
    if not (found := _CODED.fullmatch(symbol)):
        raise UnreadableError("it is not written like BTC-29DEC23, BTCUSDT-29DEC23 or BTCUSDM25")
    expiry = _last_friday(_CENTURY + int(found[3]), _MONTH_CODES.index(found[2]) + 1)
    return Parts(FUTURE, found[1], "USD", expiry)


def _write_bybit_future(parts: Parts) -> str:
    if parts.quote == "USD":
        day = _expiry(parts)
        return f"{parts.base}USD{_MONTH_CODES[day.month - 1]}{day:%y}"
    pair = parts.base if parts.quote == "USDC" else f"{parts.base}{parts.quote}"
    return f"{pair}-{_dmy_text(parts)}"


# Deribit: BTC stands for BTC in USD, BTC_USDC for BTC in USDC.


def _deribit_pair(text: str) -> tuple[str, str]:
    base, underscore, quote = text.partition("_")
    return base, quote if underscore else "USD"


def _deribit_text(parts: Parts) -> str:
    return parts.base if parts.quote == "USD" else f"{parts.base}_{parts.quote}"


def _read_deribit_spot(symbol: str) -> Parts:
    base, quote = _pieces(symbol, "_", 2, "BTC_USDC")
    return Parts(SPOT_PAIR, base, quote)


def _read_deribit_perpetual(symbol: str) -> Parts:
    return Parts(PERPETUAL, *_deribit_pair(_without(symbol, "-PERPETUAL")))


def _read_deribit_future(symbol: str) -> Parts:
    pair, day = _pieces(symbol, "-", 2, "BTC-29DEC23")
    return Parts(FUTURE, *_deribit_pair(pair), _dmy(day))


def _read_deribit_option(symbol: str) -> Parts:
    pair, day, strike, letter = _pieces(symbol, "-", 4, "BTC-2JUN23-1850-P")
    decimal = strike.replace("D", "d").replace("d", ".")
    if not _STRIKE.fullmatch(decimal):
        raise UnreadableError(f"{strike!r} is not a strike written like 1850 or 0d5")
    if letter not in ("C", "P"):
        raise UnreadableError(f"{letter!r} is neither C nor P")
    return Parts(OPTION, *_deribit_pair(pair), _dmy(day), decimal, "CALL" if letter == "C" else "PUT")


def _write_deribit_option(parts: Parts) -> str:
    strike = parts.strike.replace(".", "d")
    return f"{_deribit_text(parts)}-{_dmy_text(parts)}-{strike}-{parts.right[:1]}"


# OKX and Upbit: pieces between dashes.


def _read_okex_spot(symbol: str) -> Parts:
    base, quote = _pieces(symbol, "-", 2, "BTC-USDT")
    return Parts(SPOT_PAIR, base, quote)


def _read_okex_swap(symbol: str) -> Parts:
    base, quote = _pieces(_without(symbol, "-SWAP"), "-", 2, "BTC-USDT-SWAP")
    return Parts(PERPETUAL, base, quote)


def _read_okex_future(symbol: str) -> Parts:
    base, quote, day = _pieces(symbol, "-", 3, "BTC-USDT-231229")
    return Parts(FUTURE, base, quote, _ymd(day))


def _read_upbit(symbol: str) -> Parts:
    quote, base = _pieces(symbol, "-", 2, "KRW-BTC")
    return Parts(SPOT_PAIR, base, quote)


_CODECS: Mapping[tuple[str, str], _Codec] = {
    ("binance", SPOT_PAIR): _glued("binance", SPOT_PAIR),
    ("binance-futures", PERPETUAL): _glued("binance-futures", PERPETUAL),
    ("binance-futures", FUTURE): _glued_dated("binance-futures"),
    ("binance-delivery", PERPETUAL): _glued("binance-delivery", PERPETUAL, "_PERP"),
    ("binance-delivery", FUTURE): _glued_dated("binance-delivery"),
    ("deribit", SPOT_PAIR): _Codec(_read_deribit_spot, lambda p: f"{p.base}_{p.quote}"),
    ("deribit", PERPETUAL): _Codec(_read_deribit_perpetual, lambda p: f"{_deribit_text(p)}-PERPETUAL"),
    ("deribit", FUTURE): _Codec(_read_deribit_future, lambda p: f"{_deribit_text(p)}-{_dmy_text(p)}"),
    ("deribit", OPTION): _Codec(_read_deribit_option, _write_deribit_option),
    ("bybit", PERPETUAL): _Codec(_read_bybit_perpetual, _write_bybit_perpetual),
    ("bybit", FUTURE): _Codec(_read_bybit_future, _write_bybit_future),
    ("bybit-spot", SPOT_PAIR): _glued("bybit-spot", SPOT_PAIR),
    ("okex", SPOT_PAIR): _Codec(_read_okex_spot, lambda p: f"{p.base}-{p.quote}"),
    ("okex-swap", PERPETUAL): _Codec(_read_okex_swap, lambda p: f"{p.base}-{p.quote}-SWAP"),
    ("okex-futures", FUTURE): _Codec(_read_okex_future, lambda p: f"{p.base}-{p.quote}-{_ymd_text(p)}"),
    ("upbit", SPOT_PAIR): _Codec(_read_upbit, lambda p: f"{p.quote}-{p.base}"),
}
