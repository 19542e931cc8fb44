"""What follows from the parts of a symbol: how an instrument is margined, settled, counted and named in ccxt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time

from runner.market.grammar import OPTION, SPOT_PAIR, Parts

# Deribit, Binance, OKX and Bybit settle at 08:00 UTC.
_EXPIRES_AT = time(8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of an instrument; `usd_in_base` and `counted` are those of its venue (see `symbols.Venue`)."""

    parts: Parts
    symbol_type: str
    usd_in_base: bool
    counted: bool

    @property
    def spot(self) -> bool:
        """Tell whether it is a spot pair, which has no terms but its pair."""
        return self.parts.kind == SPOT_PAIR

    @property
    def in_base(self) -> bool:
        """Tell whether it is margined and settled in its base asset."""
        return self.usd_in_base and not self.spot and self.parts.quote == "USD"

    @property
    def inverse(self) -> bool:
        """Tell whether amounts are of the quote and profit is in the base.

        Deribit's options settled in their base are not inverse in this sense: amounts and prices are in the base.

        >>> Terms(Parts("PERPETUAL", "BTC", "USD"), "perpetual", usd_in_base=True, counted=False).inverse
        True
        """
        return self.in_base and self.parts.kind != OPTION

    @property
    def settle(self) -> str | None:
        """Return the asset of profit and loss, None for a spot pair.

        >>> Terms(Parts("FUTURE", "BTC", "USD_UM_XPERP"), "future", usd_in_base=True, counted=True).settle
        'USD'
        """
        if self.spot:
            return None
        # OKX's USD_UM_XPERP contracts are quoted and settled in USD; the rest of the name tells products apart.
        return self.parts.base if self.in_base else self.parts.quote.partition("_")[0]

    @property
    def expiry(self) -> datetime | None:
        """Return the instant of expiry, None where there is none."""
        return datetime.combine(self.parts.expiry, _EXPIRES_AT) if self.parts.expiry else None

    @property
    def amount_unit(self) -> str:
        """Return what amounts count: base, quote or contract."""
        if self.counted and not self.spot:
            return "contract"
        return "quote" if self.inverse else "base"

    @property
    def contract_type(self) -> str | None:
        """Return Tardis's word for the kind of contract, None for a spot pair.

        >>> Terms(Parts("PERPETUAL", "BTC", "USDT"), "perpetual", usd_in_base=True, counted=False).contract_type
        'linear_perpetual'
        """
        if self.spot:
            return None
        if self.parts.kind == OPTION:
            return f"{self.parts.right.lower()}_option"
        return f"{'inverse' if self.inverse else 'linear'}_{self.symbol_type}"

    @property
    def ccxt_symbol(self) -> str:
        """Return the unified symbol of ccxt (https://docs.ccxt.com/#/?id=contract-naming-conventions).

        >>> Terms(Parts("SPOT_PAIR", "BTC", "USDT"), "spot", usd_in_base=False, counted=False).ccxt_symbol
        'BTC/USDT'
        """
        pair = f"{self.parts.base}/{self.parts.quote.partition('_')[0]}"
        if self.spot:
            return pair
        expiry = f"{self.parts.expiry:%y%m%d}" if self.parts.expiry else ""
        dated = "-".join(part for part in (expiry, self.parts.strike, self.parts.right[:1]) if part)
        return f"{pair}:{self.settle}-{dated}" if dated else f"{pair}:{self.settle}"
