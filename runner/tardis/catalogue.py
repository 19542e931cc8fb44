"""What Tardis says it has: the answer of `GET /exchanges/:id`, parsed. No network, no keys of ours.

Source of the format: https://docs.tardis.dev/api/http#exchanges-exchange.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from runner.errors import IntegrityError
from runner.market.symbols import ceil_day

_YEARS = range(1970, 9999)


@dataclass(frozen=True, slots=True)
class ListedSymbol:
    """One symbol of the day files: its type in Tardis's words and when it is offered, [since, to), None: still."""

    id: str
    type: str
    data_types: tuple[str, ...]
    available_since: datetime
    available_to: datetime | None

    def offered_on(self, day: date) -> bool:
        """Tell whether a day is one of the whole UTC days that [since, to) touches.

        >>> since, to = datetime(2023, 12, 22, 9, tzinfo=UTC), datetime(2023, 12, 29, 8, tzinfo=UTC)
        >>> symbol = ListedSymbol("BTC-29DEC23", "future", ("trades",), since, to)
        >>> [symbol.offered_on(date(2023, 12, day)) for day in (21, 22, 29, 30)]
        [False, True, True, False]
        """
        return self.listed_from <= day and (self.listed_to is None or day < self.listed_to)

    @property
    def listed_from(self) -> date:
        """Return the first UTC date on which it is offered."""
        return self.available_since.astimezone(UTC).date()

    @property
    def listed_to(self) -> date | None:
        """Return the UTC date after the last one on which it is offered, None while it has no end."""
        return None if self.available_to is None else ceil_day(self.available_to)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Day files of one exchange. `exported_until` is exclusive."""

    exchange: str
    exported_until: datetime
    symbols: tuple[ListedSymbol, ...]
    _by_id: Mapping[str, Sequence[ListedSymbol]] = field(repr=False, compare=False)

    @property
    def exported_days_until(self) -> date:
        """Return the first UTC date whose files are not, or not all, exported."""
        return self.exported_until.astimezone(UTC).date()

    def exported(self, day: date) -> bool:
        """Tell whether the files of a day exist by now."""
        return day < self.exported_days_until

    def offers(self, symbol: str, data_type: str, day: date) -> bool:
        """Tell whether there should be a file, now or once the day is exported; whole days are compared."""
        return any(s.offered_on(day) and data_type in s.data_types for s in self._by_id.get(symbol, ()))


def parse_exchange(doc: Mapping[str, Any]) -> Catalogue:
    """Return the catalogue in an exchange's document; symbols as ordered there.

    A symbol whose `availableTo` is not before `exportedUntil` is still listed: its `available_to` is None.
    Raises IntegrityError when the document is not one, naming the place.

    >>> files = {"exportedUntil": "2024-08-09T00:00:00.000Z", "symbols": []}
    >>> parse_exchange({"id": "binance", "datasets": files}).exported(date(2024, 8, 9))
    False
    """
    exchange = str(doc.get("id"))
    datasets = _at(doc, "datasets", Mapping, exchange)
    until = _instant(datasets, "exportedUntil", f"{exchange}.datasets")
    listed = _at(datasets, "symbols", list, f"{exchange}.datasets")
    symbols = tuple(_symbol(item, until, f"{exchange}.datasets.symbols[{n}]") for n, item in enumerate(listed))
    by_id: dict[str, list[ListedSymbol]] = {}
    for symbol in symbols:
        by_id.setdefault(symbol.id, []).append(symbol)
    return Catalogue(exchange, until, symbols, by_id)


def _symbol(item: Any, until: datetime, where: str) -> ListedSymbol:
    to = _instant(item, "availableTo", where) if isinstance(item, Mapping) and item.get("availableTo") else None
    return ListedSymbol(
        id=_at(item, "id", str, where),
        type=_at(item, "type", str, where),
        data_types=tuple(str(name) for name in _at(item, "dataTypes", list, where)),
        available_since=_instant(item, "availableSince", where),
        available_to=None if to is None or to >= until else to,
    )


def _at(item: Any, name: str, kind: type, where: str) -> Any:
    value = item.get(name) if isinstance(item, Mapping) else None
    if not isinstance(value, kind):
        raise IntegrityError(f"catalogue of Tardis: {where}.{name} is missing or of another kind; retry, or report it")
    return value


def _instant(item: Any, name: str, where: str) -> datetime:
    text = _at(item, name, str, where)
    try:
        instant = datetime.fromisoformat(text)
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        is_a_time = instant.astimezone(UTC).year in _YEARS
    except (ValueError, OverflowError):
        is_a_time = False
    if not is_a_time:
        raise IntegrityError(f"catalogue of Tardis: {where}.{name} is {text!r}, no time; retry, or report it")
    return instant
