"""Candle tables of a day from stored ticks: those of the day, of the day before and of the day after, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from runner.errors import IntegrityError
from runner.market.bars import BASE_US, Bars
from runner.market.book import BookCandles
from runner.market.candles import TradeCandles
from runner.market.joined import TICKER_COLUMNS, Joined, Liquidations, Tickers
from runner.market.names import OPTIONS_CHAIN, TIMEFRAMES, book_depth
from runner.market.options import OptionFeatures
from runner.market.schema import CANDLES, DATA_TYPES, OPTION_FEATURES, book_candles_schema
from runner.stages import content
from runner.stages.inputs import LIQUIDATIONS, TICKER, TRADES, WITH_ROWS, Input, Inputs
from runner.stages.stored import StoredTicks, feed, times
from runner.store import Store

_TIMES = ("timestamp", "local_timestamp")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    TRADES: (*_TIMES, "side", "price", "amount"),
    TICKER: (*_TIMES, *TICKER_COLUMNS),
    LIQUIDATIONS: (*_TIMES, "side", "amount"),
    OPTIONS_CHAIN: (*_TIMES, "symbol", "type", "strike_price", "expiration", "delta", "mark_iv"),
}


class _Sums(Protocol):
    """What takes ticks, file after file, and counts where they lie."""

    @property
    def rows_before(self) -> int: ...
    @property
    def rows_in(self) -> int: ...
    @property
    def rows_after(self) -> int: ...
    def add(self, batch: pa.RecordBatch) -> None: ...
    def skip(self, rows: int) -> None: ...
    def next_file(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of the files by where they lie."""

    before: int = 0
    inside: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """Candle tables by timeframe, and where the rows of the files lie that they are named after."""

    tables: Mapping[str, pa.Table]
    rows: Counted


class Tables:
    """Makes the candle tables of one instrument from inputs that lie in a store."""

    def __init__(self, store: Store, bars: Bars, given: Inputs) -> None:
        self._store, self._bars, self._given = store, bars, given

    def made(self, data_type: str) -> Made:
        """Return the candles of one data type; without a bar where its day was never to have any.

        Raises IntegrityError when a file is not what its metadata says, and what StoredTicks raises.
        """
        if data_type == OPTIONS_CHAIN:
            return self._options()
        depth = book_depth(data_type)
        if not self._given.of(data_type):
            schema = CANDLES if depth is None else book_candles_schema(depth)
            return Made(dict.fromkeys(TIMEFRAMES, schema.empty_table()), Counted())
        return self._trades() if depth is None else self._book(data_type, depth)

    def _options(self) -> Made:
        """Make option features: by arrival, so that every row of the one file counts."""
        (own,) = self._given.files
        if own.outcome not in WITH_ROWS:
            return Made(dict.fromkeys(TIMEFRAMES, OPTION_FEATURES.empty_table()), Counted())
        features = OptionFeatures(self._bars)
        with self._open(own) as file:
            for group in file.groups:
                for batch in file.read(group, _COLUMNS[OPTIONS_CHAIN]):
                    features.add(batch)
        tables = features.finish()
        return Made(tables, Counted(features.rows_before, features.rows_in, features.rows_after))

    def _book(self, data_type: str, depth: int) -> Made:
        book = BookCandles(self._bars, depth)
        with ExitStack() as stack:
            rows = self._feed(book, self._files(data_type, stack), tuple(DATA_TYPES[data_type].ticks.names))
        return Made(book.finish(), rows)

    def _trades(self) -> Made:
        trades = TradeCandles(self._bars)
        joined = Joined(self._tickers(), self._liquidations())
        with ExitStack() as stack:
            files = self._files(TRADES, stack)
            rows = self._feed(trades, files, _COLUMNS[TRADES])
            return Made(trades.finish(lambda: times(files), joined), rows)

    def _tickers(self) -> Tickers | None:
        if not self._given.of(TICKER):
            return None
        tickers = Tickers(self._bars)
        with ExitStack() as stack:
            files = self._files(TICKER, stack)
            for file in files:
                file.ask_for_last("open_interest", BASE_US)
            self._feed(tickers, files, _COLUMNS[TICKER])
        return tickers

    def _liquidations(self) -> Liquidations | None:
        if not self._given.of(LIQUIDATIONS):
            return None
        liquidations = Liquidations(self._bars)
        with ExitStack() as stack:
            self._feed(liquidations, self._files(LIQUIDATIONS, stack), _COLUMNS[LIQUIDATIONS])
        return liquidations

    def _files(self, data_type: str, stack: ExitStack) -> list[StoredTicks]:
        """Open the files of a type that have rows, day after day."""
        return [stack.enter_context(self._open(given)) for given in self._given.of(data_type) if given.has_rows]

    def _open(self, given: Input) -> StoredTicks:
        if given.info is None:
            raise ValueError(f"no object of {given}")
        file = StoredTicks(self._store, given.info, self._bars.start_us)
        there, said = sum(group.rows for group in file.groups), content.count(given.info.metadata, "rows")
        if said not in (None, there):
            file.close()
            raise IntegrityError(
                f"{given.info.key} holds {there} rows, its metadata says {said}; replace it: "
                f"runner submit download --select all for {given.day}"
            )
        return file

    def _feed(self, sums: _Sums, files: Iterable[StoredTicks], columns: Sequence[str]) -> Counted:
        passed = feed(sums, files, columns)
        rows = Counted(sums.rows_before + passed.before, sums.rows_in, sums.rows_after + passed.after)
        if (seen := rows.before + rows.inside + rows.after) != passed.total:
            raise ValueError(f"candles of {self._bars.key} on {self._bars.day} saw {seen} rows of {passed.total}")
        return rows
