"""The metadata application: `/v1/exchanges`, `/v1/instruments`, `/v1/api-key-info`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runner.sandbox.access import Access, Key
from runner.sandbox.catalogue import Catalogue, instant, summary, text
from runner.sandbox.clock import Clock
from runner.sandbox.datasets import bad_exchange
from runner.sandbox.replies import Content, Reply, Request, as_json, not_found, refusal

_BAD_PARAM = 100
_NO_INSTRUMENT = 300
_VALUES_MAX = 50
# Anybody may read the instruments of this exchange.
_FREE = "bitmex"
_FILTERS = frozenset(
    {
        "baseCurrency",
        "quoteCurrency",
        "type",
        "contractType",
        "underlyingType",
        "active",
        "availableSince",
        "availableTo",
    }
)
_BASE_CHARS = 3
_QUOTES = ("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "GBP", "TRY", "KRW", "BTC", "ETH", "BNB", "DAI")


@dataclass(frozen=True, slots=True)
class Api:
    """Exchanges, instruments and the key's plan."""

    access: Access
    catalogue: Catalogue
    clock: Clock

    def answer(self, request: Request) -> Reply:
        """Answer a request that is not for a day file."""
        match request.parts:
            case ("v1", "exchanges"):
                return _compressed(request, as_json([self._summary(name) for name in self.catalogue.exchanges()]))
            case ("v1", "exchanges", exchange):
                refused = bad_exchange(exchange, self.catalogue.exchanges())
                return refused or _compressed(request, as_json(self.catalogue.exchange(exchange)))
            case ("v1", "instruments", exchange, *symbol) if len(symbol) <= 1:
                return self._instruments(request, exchange, symbol[0] if symbol else None)
            case ("v1", "api-key-info"):
                return self._key_info(request)
        return not_found()

    def _summary(self, exchange: str) -> dict[str, Any]:
        document = self.catalogue.exchange(exchange)
        kept = {"id", "name", "enabled", "delisted", "availableSince", "availableTo", "availableChannels"}
        return {**summary(exchange), **{name: value for name, value in document.items() if name in kept}}

    def _key_info(self, request: Request) -> Reply:
        key = self.access.key(request)
        if isinstance(key, Reply):
            return key
        if key.is_expired(self.clock.now()):
            return as_json([])
        return as_json([self._plan(key, exchange) for exchange in self.catalogue.exchanges()])

    def _plan(self, key: Key, exchange: str) -> dict[str, Any]:
        document = self.catalogue.exchange(exchange)
        return {
            "exchange": exchange,
            "accessType": "academic",
            "from": text(key.starts) if key.starts else document["availableSince"],
            "to": text(key.ends) if key.ends else "2100-01-01T00:00:00.000Z",
            "symbols": [],
            "dataPlan": "all",
        }

    def _instruments(self, request: Request, exchange: str, symbol: str | None) -> Reply:
        key = None if exchange == _FREE else self.access.key(request)
        if isinstance(key, Reply):
            return key
        if key is not None and key.is_expired(self.clock.now()):
            return refusal(401, 401, "Unauthorized. API key has expired")
        refused = bad_exchange(exchange, self.catalogue.exchanges())
        if refused:
            return refused
        instruments = self._rows(exchange)
        if symbol is not None:
            found = [row for row in instruments if symbol.lower() in {row["id"].lower(), row["datasetId"].lower()}]
            wrong = refusal(400, _NO_INSTRUMENT, f"Invalid 'symbol' param provided: '{symbol}'")
            return _compressed(request, as_json(found[0])) if found else wrong
        try:
            wanted = _read_filter(request.query.get("filter", "{}"))
        except ValueError as error:
            return refusal(400, _BAD_PARAM, f"Invalid 'filter' param provided: {error}")
        return _compressed(request, as_json([row for row in instruments if _matches(row, wanted)]))

    def _rows(self, exchange: str) -> list[dict[str, Any]]:
        datasets = self.catalogue.exchange(exchange).get("datasets") or {}
        until = instant(datasets.get("exportedUntil"))
        return [_row(exchange, item, until) for item in datasets.get("symbols", ()) if not _is_group(item["id"])]


def _is_group(symbol: str) -> bool:
    return symbol in {"SPOT", "FUTURES", "PERPETUALS", "OPTIONS", "COMBOS"}


def _row(exchange: str, item: Mapping[str, Any], until: datetime | None) -> dict[str, Any]:
    """Return as much of an instrument as exchange and symbol tell; numbers of the venue are not among it."""
    ends = instant(item.get("availableTo"))
    is_active = ends is None or (until is not None and ends >= until)
    base, quote = _currencies(item["id"])
    row = {
        "id": item["id"].lower() if exchange.startswith("binance") else item["id"],
        "datasetId": item["id"],
        "exchange": exchange,
        "baseCurrency": base,
        "quoteCurrency": quote,
        "type": item["type"],
        "active": is_active,
        "availableSince": item.get("availableSince"),
    }
    return row if is_active else {**row, "availableTo": item.get("availableTo")}


def _currencies(symbol: str) -> tuple[str, str]:
    """Return base and quote as far as a symbol tells them, by the source's names (XBT is BTC)."""
    words = symbol.replace("_", "-").split("-")
    base, quote = words[0], "USD"
    if len(words) > 1 and words[1] in _QUOTES:
        quote = words[1]
    else:
        # XBTUSD is no pair of TUSD.
        quote = next((name for name in _QUOTES if len(base) - len(name) >= _BASE_CHARS and base.endswith(name)), quote)
        base = base.removesuffix(quote) or base
    return base.replace("XBT", "BTC"), quote


def _read_filter(value: str) -> dict[str, Any]:
    document = json.loads(value)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- one kind of error for the caller
    unknown = sorted(document.keys() - _FILTERS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}")
    for name, wanted in document.items():
        if isinstance(wanted, list) and not 1 <= len(wanted) <= _VALUES_MAX:
            raise ValueError(f"{name} takes 1 to {_VALUES_MAX} values")
        if name in {"availableSince", "availableTo"}:
            instant(wanted)
    return document


def _matches(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether an instrument passes a filter; the two times ask for an overlap, the end exclusive."""
    for name, value in wanted.items():
        if name in {"availableSince", "availableTo"}:
            continue
        if row.get(name) not in (value if isinstance(value, list) else [value]):
            return False
    begins, ends = instant(wanted.get("availableSince")), instant(wanted.get("availableTo"))
    row_begins = instant(row.get("availableSince")) or datetime.min.replace(tzinfo=UTC)
    row_ends = instant(row.get("availableTo")) or datetime.max.replace(tzinfo=UTC)
    return (begins is None or row_ends > begins) and (ends is None or row_begins < ends)


def _compressed(request: Request, reply: Reply) -> Reply:
    codings = {word.partition(";")[0].strip() for word in request.headers.get("accept-encoding", "").lower().split(",")}
    if not codings & {"gzip", "*"}:
        return reply
    data = b"".join(reply.body.chunks(0, reply.body.size))
    headers = {**reply.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return replace(reply, headers=headers, body=Content(gzip.compress(data, 6, mtime=0)))
