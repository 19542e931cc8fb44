"""Venues, instruments and their canonical keys `VENUE:TYPE:SYMBOL`: everything that a symbol tells, and its inverse.

How each exchange writes symbols is in grammar.py, what follows from its parts in terms.py, shipped facts in
reference.py. Nothing here reads a catalogue or a table, and nothing imports pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Protocol

from runner.errors import NotFoundError
from runner.market import grammar, reference
from runner.market.grammar import FUTURE, OPTION, PERPETUAL, SPOT_PAIR, UnreadableError
from runner.market.names import GROUPS
from runner.market.terms import Terms
from runner.task import Source

INSTRUMENT_TYPES = (SPOT_PAIR, PERPETUAL, FUTURE, OPTION)
"""The TYPEs of keys."""

GROUPED = (*GROUPS, "COMBOS")
"""Tardis's ids of files that hold every symbol of a type: never instruments."""

_DAY = timedelta(days=1)


_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Venue:
    """A venue in our keys, the Tardis exchange that records it, and its name in ccxt.

    `usd_in_base` tells that its derivatives quoted in USD are margined in the base asset; `counted` that amounts of its
    derivatives are numbers of contracts.
    """

    venue: str
    exchange: str
    ccxt: str
    usd_in_base: bool = False
    counted: bool = False


VENUES: tuple[Venue, ...] = (
    Venue("BINANCE", "binance", "binance"),
    Venue("BINANCE-FUTURES", "binance-futures", "binanceusdm"),
    Venue("DERIBIT", "deribit", "deribit", usd_in_base=True),
    Venue("BYBIT", "bybit", "bybit", usd_in_base=True),
    Venue("BYBIT-SPOT", "bybit-spot", "bybit"),
    Venue("OKX", "okex", "okx"),
    Venue("OKX-FUTURES", "okex-futures", "okx", usd_in_base=True, counted=True),
    Venue("OKX-SWAP", "okex-swap", "okx", usd_in_base=True, counted=True),
    Venue("UPBIT", "upbit", "upbit"),
    Venue("BINANCE-DELIVERY", "binance-delivery", "binancecoinm", usd_in_base=True, counted=True),
)

DEFAULT_VENUES: tuple[str, ...] = tuple(v.venue for v in VENUES if v.venue not in ("UPBIT", "BINANCE-DELIVERY"))
"""The venues of a run that names none."""

_BY_VENUE: Mapping[str, Venue] = {v.venue: v for v in VENUES}
_BY_EXCHANGE: Mapping[str, Venue] = {v.exchange: v for v in VENUES}


def venue_of(exchange: str) -> str:
    """Return our name of a Tardis exchange; raises NotFoundError.

    >>> venue_of("okex-swap")
    'OKX-SWAP'
    """
    return _known(_BY_EXCHANGE, exchange).venue


def exchange_of(venue: str) -> str:
    """Return the Tardis exchange of one of our venues; raises NotFoundError.

    >>> exchange_of("OKX")
    'okex'
    """
    return _known(_BY_VENUE, venue).exchange


def resolve_venue(text: str) -> str | None:
    """Return our name of a venue given in any case as a Tardis id or our name, or None.

    >>> resolve_venue("OKEX-Swap"), resolve_venue("okx-swap"), resolve_venue("bitmex")
    ('OKX-SWAP', 'OKX-SWAP', None)
    """
    known = _BY_EXCHANGE.get(text.lower()) or _BY_VENUE.get(text.upper())
    return known.venue if known else None


def resolve_type(text: str) -> str | None:
    """Return the TYPE given in any case, also as PERP or as Tardis's word for it, or None.

    >>> resolve_type("perp"), resolve_type("spot"), resolve_type("Option"), resolve_type("swap")
    ('PERPETUAL', 'SPOT_PAIR', 'OPTION', None)
    """
    upper = text.upper()
    if upper in INSTRUMENT_TYPES:
        return upper
    return PERPETUAL if upper == "PERP" else grammar.TYPES.get(text.lower())


@dataclass(frozen=True, slots=True)
class Availability:
    """What the catalogue says of a symbol: since when, until when (exclusive; None: still), which data types."""

    since: datetime
    to: datetime | None = None
    data_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of the instrument table: an instrument on one day.

    `available_from` and `available_to` are the catalogue's instants, [from, to), None while still listed; the whole
    days of the listing are `listed_from` and `listed_to`. `base_asset` and `quote_asset` are the parts of the key, so
    a multiplied name keeps its multiplier (`1000SHIB`, with `multiplier` 1000), and amounts and prices are of that.

    `amount_unit` says what amounts count: base, quote, or contracts worth `contract_size` each, in units of the base
    asset where the instrument is linear and of the quote asset where it is inverse (None: unknown). `inverse` tells
    that a perpetual or future is quoted in USD and margined in its base; Deribit's options settled in their base are
    not, because their amounts and prices are in the base. Fields that the public catalogue does not know are None.
    """

    instrument_key: str
    venue: str
    instrument_type: str
    available_from: datetime
    available_to: datetime | None
    data_types: tuple[str, ...]
    base_asset: str
    quote_asset: str
    settle_asset: str | None
    exchange_raw_symbol: str
    tardis_symbol: str
    tardis_exchange: str
    data_provider: str
    venue_type: str
    asset_class: str
    inverse: bool
    symbol_type: str
    contract_type: str | None
    strike: float | None
    option_type: str | None
    expiry: datetime | None
    contract_size: float | None
    amount_unit: str
    multiplier: int
    tick_size: float | None
    settlement_type: str | None
    underlying: str | None
    min_size: float | None
    ccxt_symbol: str | None
    ccxt_exchange: str
    source: Source = field(init=False, repr=False, compare=False)
    """What a task must know of this instrument."""

    def __post_init__(self) -> None:
        source = Source(
            exchange=self.tardis_exchange,
            symbol=self.tardis_symbol,
            inverse=self.inverse,
            amount_unit=self.amount_unit,
            contract_size=self.contract_size,
            listed_from=self.listed_from,
            listed_to=self.listed_to,
        )
        object.__setattr__(self, "source", source)

    @property
    def listed_from(self) -> date:
        """Return the first UTC date of the listing."""
        return self.available_from.astimezone(UTC).date()

    @property
    def listed_to(self) -> date | None:
        """Return the UTC date after the last one of the listing, or None while it has no end."""
        ends = [end for end in (self.available_to, self.expiry) if end is not None]
        return ceil_day(min(ends)) if ends else None


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A symbol of the catalogue that has no key, and why."""

    exchange: str
    symbol: str
    symbol_type: str
    reason: str = field(compare=False)


def ceil_day(instant: datetime) -> date:
    """Return the first UTC date that starts at or after an instant.

    >>> ceil_day(datetime(2023, 12, 29, 8, tzinfo=UTC)), ceil_day(datetime(2023, 12, 29, tzinfo=UTC))
    (datetime.date(2023, 12, 30), datetime.date(2023, 12, 29))
    """
    utc = instant.astimezone(UTC)
    return utc.date() if utc.timetz() == time(tzinfo=UTC) else utc.date() + _DAY


def is_instrument(symbol: str, symbol_type: str) -> bool:
    """Tell whether a catalogue's symbol is meant to be an instrument: combos and grouped ids are not.

    >>> is_instrument("BTC-PERPETUAL", "perpetual"), is_instrument("OPTIONS", "option")
    (True, False)
    """
    return symbol not in GROUPED and symbol_type != "combo"


def parse_symbol(
    exchange: str, symbol: str, symbol_type: str, *, availability: Availability, day: date
) -> Instrument | Unparsed:
    """Return the instrument that a Tardis dataset symbol names, as it is on a day, or why it names none.

    The day decides the contract size only; whether the instrument is listed then, `listed_from` and `listed_to` tell.

    >>> since = Availability(datetime(2019, 3, 30, tzinfo=UTC))
    >>> btc = parse_symbol("deribit", "BTC-PERPETUAL", "perpetual", availability=since, day=date(2024, 8, 8))
    >>> btc.instrument_key, btc.inverse, btc.settle_asset, btc.amount_unit
    ('DERIBIT:PERPETUAL:BTC-USD', True, 'BTC', 'quote')
    >>> parse_symbol("binance", "BTCQQQ", "spot", availability=since, day=date(2024, 8, 8)).reason
    "'BTCQQQ' ends with no quote asset listed for binance"
    """
    try:
        kind = _kind(symbol_type)
        venue = _known(_BY_EXCHANGE, exchange)
        parts = grammar.read(exchange, symbol, kind)
    except (UnreadableError, NotFoundError) as e:
        return Unparsed(exchange, symbol, symbol_type, str(e))
    terms = Terms(parts, symbol_type, usd_in_base=venue.usd_in_base, counted=venue.counted)
    return _instrument(venue, terms, symbol=symbol, availability=availability, day=day)


def tardis_symbol(key: str) -> tuple[str, str]:
    """Return the (exchange, dataset symbol) of a canonical key: the inverse of `parse_symbol`.

    Raises NotFoundError where the text is no key that a symbol of its venue can have.

    >>> tardis_symbol("DERIBIT:OPTION:XRP-USDC-231229-0.5-CALL")
    ('deribit', 'XRP_USDC-29DEC23-0d5-C')
    """
    pieces = key.split(":")
    try:
        venue, kind, symbol = pieces
        exchange = _known(_BY_VENUE, venue).exchange
        return exchange, grammar.write(exchange, grammar.parts_of(kind, symbol))
    except (UnreadableError, ValueError) as e:
        raise NotFoundError(f"{key!r} is not an instrument key: {e}; keys are VENUE:TYPE:SYMBOL") from e


class Named(Protocol):
    """What a selector looks at: an instrument, or a group under its reserved key."""

    @property
    def instrument_key(self) -> str:
        """The key, or a reserved one."""

    @property
    def venue(self) -> str:
        """Our name of the venue."""

    @property
    def tardis_exchange(self) -> str:
        """Tardis's id of the venue."""

    @property
    def tardis_symbol(self) -> str:
        """Tardis's symbol."""


def selects(pattern: str, instrument: Named) -> bool:
    """Tell whether one selector means an instrument, in any case.

    A selector is a key or a glob on keys, where the venue may be its Tardis id and the type PERP; a Tardis symbol or
    the SYMBOL of a key, or a glob on these; a venue; or a venue and a symbol (`binance:BTCUSDT`).

    >>> since = Availability(datetime(2019, 3, 30, tzinfo=UTC))
    >>> swap = parse_symbol("okex-swap", "BTC-USDT-SWAP", "perpetual", availability=since, day=date(2024, 8, 8))
    >>> [selects(p, swap) for p in ("okx-swap:perp:btc-*", "okex-swap:*:BTC-*", "BTC-USDT-SWAP", "OKX", "*:ETH-*")]
    [True, True, True, False, False]
    >>> option = parse_symbol("deribit", "XRP_USDC-9AUG24-0d5-C", "option", availability=since, day=date(2024, 8, 8))
    >>> [selects(p, option) for p in ("XRP_USDC-9AUG24-0d5-C", "xrp_usdc-9aug24-0D5-*")]
    [True, True]
    """
    wanted, venues = _wanted(pattern), _venues(instrument)
    return wanted in venues or any(fnmatchcase(name, wanted) for name in _names(instrument))


def unmatched(patterns: Iterable[str], instruments: Iterable[Named]) -> list[str]:
    """Return the selectors that mean none of the instruments, in order.

    Each instrument is looked at once, whatever the number of selectors that are no globs.

    >>> since = Availability(datetime(2019, 3, 30, tzinfo=UTC))
    >>> btc = parse_symbol("binance", "BTCUSDT", "spot", availability=since, day=date(2024, 8, 8))
    >>> unmatched(["btcusdt", "*:ETH-*", "BTCUSD", "binance:*"], [btc])
    ['*:ETH-*', 'BTCUSD']
    """
    left = {_wanted(pattern): pattern for pattern in patterns}
    globs = [wanted for wanted in left if not _GLOB.isdisjoint(wanted)]
    for each in instruments:
        if not left:
            break
        names = _names(each)
        for name in (*names, *_venues(each)):
            left.pop(name, None)
        for wanted in [w for w in globs if w in left and any(fnmatchcase(name, w) for name in names)]:
            del left[wanted]
    return list(left.values())


def _wanted(pattern: str) -> str:
    return ":".join(PERPETUAL if part == "PERP" and n else part for n, part in enumerate(pattern.upper().split(":")))


def _venues(instrument: Named) -> tuple[str, str]:
    return instrument.venue, instrument.tardis_exchange.upper()


def _names(instrument: Named) -> list[str]:
    """Return all that a selector may call an instrument beside its venue, in upper case."""
    venues = _venues(instrument)
    kind, symbol = instrument.instrument_key.split(":")[1:]
    both = (symbol, instrument.tardis_symbol.upper())
    return [
        *(f"{venue}:{kind}:{symbol}" for venue in venues),
        *(text for name in both for text in (name, *(f"{v}:{name}" for v in venues))),
    ]


def _instrument(venue: Venue, terms: Terms, *, symbol: str, availability: Availability, day: date) -> Instrument:
    parts = terms.parts
    counted = terms.amount_unit == "contract"
    size = reference.contract_size(venue.exchange, parts.base, quote=parts.quote, day=day) if counted else None
    return Instrument(
        instrument_key=f"{venue.venue}:{parts.kind}:{parts.symbol}",
        venue=venue.venue,
        instrument_type=parts.kind,
        available_from=availability.since,
        available_to=availability.to,
        data_types=availability.data_types,
        base_asset=parts.base,
        quote_asset=parts.quote,
        settle_asset=terms.settle,
        exchange_raw_symbol=symbol,
        tardis_symbol=symbol,
        tardis_exchange=venue.exchange,
        data_provider="tardis",
        venue_type="centralized",
        asset_class="leveraged_token" if reference.is_leveraged(venue.exchange, parts.base) else "crypto",
        inverse=terms.inverse,
        symbol_type=terms.symbol_type,
        contract_type=terms.contract_type,
        strike=float(parts.strike) if parts.strike else None,
        option_type=parts.right.lower() or None,
        expiry=terms.expiry,
        contract_size=size,
        amount_unit=terms.amount_unit,
        multiplier=reference.multiplier(parts.base),
        tick_size=None,
        settlement_type=None if terms.spot else "cash",
        underlying=None if terms.spot else f"{parts.base}-{parts.quote}",
        min_size=None,
        ccxt_symbol=terms.ccxt_symbol,
        ccxt_exchange=venue.ccxt,
    )


def _kind(symbol_type: str) -> str:
    kind = grammar.TYPES.get(symbol_type)
    if kind is None:
        raise UnreadableError(f"type {symbol_type!r} has no instrument keys")
    return kind


def _known(venues: Mapping[str, Venue], name: str) -> Venue:
    if name not in venues:
        raise NotFoundError(f"venue {name!r} is not one of ours: use {', '.join(venues)}")
    return venues[name]
