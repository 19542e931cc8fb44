"""Facts about venues that no symbol tells: quotes, leveraged tokens, multiplied names, contract sizes.

They live in the JSON files beside this module; a new quote, token or contract size is a line there, not code.
"""

from __future__ import annotations

import json
import re
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

_PREFIXED = re.compile(r"(10{3,})[^\W0-9].*")
_SUFFIXED = re.compile(r"[^\W0-9]+(10{3,})")
_MILLION = 1_000_000


@cache
def _data(name: str) -> Any:
    return json.loads(files("runner.market").joinpath("data", name).read_text("utf-8"))


def quote_of(exchange: str, glued: str) -> str | None:
    """Return the quote asset with which a pair written in one piece ends; None when no listed one fits.

    The longest listed quote that leaves a base wins. Where that is wrong for a single symbol (LUNAEUR is LUNA in EUR,
    BTCAEUR is BTC in AEUR) the shipped list names the symbol.

    >>> quote_of("binance", "BTCFDUSD"), quote_of("binance", "USDTBRL"), quote_of("binance", "BTCQQQ")
    ('FDUSD', 'BRL', None)
    """
    named: str | None = _data("symbols.json")["quote_of"].get(exchange, {}).get(glued)
    if named:
        return named
    fitting = [q for q in _data("quotes.json").get(exchange, []) if glued.endswith(q) and len(glued) > len(q)]
    return max(fitting, key=len, default=None)


def multiplier(base: str) -> int:
    """Return how many coins one unit of a base asset stands for.

    >>> multiplier("1000SHIB"), multiplier("SHIB1000"), multiplier("1MBABYDOGE"), multiplier("1INCH")
    (1000, 1000, 1000000, 1)
    """
    if base in _data("symbols.json")["millions"]:
        return _MILLION
    found = _PREFIXED.fullmatch(base) or _SUFFIXED.fullmatch(base)
    return int(found.group(1)) if found else 1


def is_leveraged(exchange: str, base: str) -> bool:
    """Tell whether a base asset is a leveraged token, by the shipped list and never by its looks.

    >>> is_leveraged("binance", "BTCUP"), is_leveraged("binance", "JUP")
    (True, False)
    """
    return base in _data("symbols.json")["leveraged"].get(exchange, [])


def contract_size(exchange: str, base: str, *, quote: str, day: date) -> float | None:
    """Return what one contract was worth on a day: base per contract (linear), quote per contract (inverse).

    None where unknown, or where amounts are not counted in contracts. Source: the venues' contract specifications,
    dated because OKX changed its face values of USDT contracts in 2020.

    >>> contract_size("okex-swap", "BTC", quote="USDT", day=date(2024, 8, 8))
    0.01
    >>> contract_size("okex-swap", "BTC", quote="USDT", day=date(2020, 1, 1))
    >>> contract_size("okex-swap", "BTC", quote="USD", day=date(2020, 1, 1))
    100.0
    """
    for row in _data("contract_sizes.json"):
        if exchange in row["exchanges"] and row["quote"] == quote and row["base"] in (base, "*"):
            starts, ends = row["from"] or date.min.isoformat(), row["to"]
            if starts <= day.isoformat() and (ends is None or day.isoformat() < ends):
                return float(row["size"])
    return None


def contract_terms(day: date) -> int:
    """Return a number that is equal for days between which no contract size changed.

    >>> contract_terms(date(2024, 8, 8)) == contract_terms(date(2024, 8, 9)), contract_terms(date.min)
    (True, 0)
    """
    changes = {row[edge] for row in _data("contract_sizes.json") for edge in ("from", "to")} - {None}
    return sum(change <= day.isoformat() for change in changes)
