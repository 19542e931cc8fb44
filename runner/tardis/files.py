"""Day files of the source, and how fetching one ended: the nouns of the client. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar
from urllib.parse import quote

from runner.task import Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DayFile:
    """One file of the source: exchange and symbol as Tardis writes them; `day` is UTC, by arrival time."""

    exchange: str
    data_type: str
    day: date
    symbol: str

    def __str__(self) -> str:
        return f"{self.exchange} {self.data_type} {self.day} {self.symbol}"

    @property
    def path(self) -> str:
        """Return the file's path below the datasets URL.

        >>> DayFile("binance", "trades", date(2024, 8, 8), "btc/usdt").path
        '/binance/trades/2024/08/08/BTC-USDT.csv.gz'
        """
        parts = (self.exchange, self.data_type, f"{self.day:%Y}", f"{self.day:%m}", f"{self.day:%d}")
        return "".join(f"/{quote(p, safe='')}" for p in (*parts, f"{dataset_symbol(self.symbol)}.csv.gz"))


def dataset_symbol(symbol: str) -> str:
    """Return a symbol as dataset paths spell it.

    >>> dataset_symbol("btc/usd:perp")
    'BTC-USD-PERP'
    """
    return symbol.upper().replace("/", "-").replace(":", "-")


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer that settled a file without data, and whether the catalogue promised the file all the same."""

    status: int
    code: int | None
    message: str
    catalogue_disagrees: bool = False


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """How a fetch ended: DONE with what `consume` made, or NOT_OFFERED, NOT_AVAILABLE, PENDING with the proof.

    `source_md5` and `source_bytes` are of the compressed file, counted here. `attempts` leaves out told waits.
    """

    outcome: Outcome
    value: T | None = None
    source_md5: str | None = None
    source_bytes: int = 0
    attempts: int = 1
    proof: Proof | None = None
