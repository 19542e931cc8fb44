"""An options chain on its way: one grouped file to the ticks and features of each underlying, in one pass.

Memory is bounded whatever the size of the file: rows wait until their underlying has a row group of them, and when too
many wait altogether, those of the underlying that has most are written as a smaller one. What is written when depends
on the rows alone, never on the blocks that they were read in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from runner import layout
from runner.market.groups import UNPARSED, underlying_of
from runner.market.schema import TICK_ROW_GROUP
from runner.stages.convert import TickFile, Ticks, row_groups
from runner.stages.oddities import Oddities
from runner.stages.subject import Subject

WAITING_ROWS_MAX = 4 * TICK_ROW_GROUP
"""Rows that wait altogether: some 120 MB."""

_PIECES_MAX = 16


def parts_of(subject: Subject) -> tuple[Subject, ...]:
    """Return the expected parts of a subject. Where the catalogue knows no underlying, itself stands for them."""
    return tuple(replace(subject, part=part) for part in subject.task.parts) or (subject,)


def path_of(folder: Path, subject: Subject) -> Path:
    """Return where the ticks of a subject are written."""
    return folder / f"{layout.name_of(subject.key)}.parquet"


@dataclass
class _Part:
    """One underlying: its file, begun with its first rows, and the rows that wait."""

    file: TickFile
    waiting: list[pa.Table] = field(default_factory=list)
    rows: int = 0

    def add(self, rows: pa.Table) -> int:
        """Take rows; return how many were written."""
        self.waiting.append(rows)
        self.rows += rows.num_rows
        if len(self.waiting) >= _PIECES_MAX:
            self._join()
        return self.write(TICK_ROW_GROUP) if self.rows >= TICK_ROW_GROUP else 0

    def write(self, count: int) -> int:
        """Write the first rows that wait; return how many."""
        whole = self._join()
        first, rest = whole.slice(0, count), whole.slice(count)
        self.file.write(first)
        self.waiting, self.rows = [rest] if rest.num_rows else [], rest.num_rows
        return min(count, len(whole))

    def _join(self) -> pa.Table:
        whole = pa.concat_tables(self.waiting).combine_chunks()
        self.waiting = [whole]
        return whole


class SplitConversion:
    """The conversion of one file to one for each underlying, as `Conversion` is to one."""

    def __init__(self, subject: Subject, folder: Path, waiting_rows_max: int = WAITING_ROWS_MAX) -> None:
        self._subject, self._folder, self._waiting_rows_max = subject, folder, waiting_rows_max
        self._underlyings: dict[str, str] = {}
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts.values():
            part.file.close()

    def consume(self, chunks: Iterator[bytes]) -> None:
        """Write the ticks of a gzip CSV, forgetting what an earlier attempt wrote. Exhausts `chunks`.

        Raises IntegrityError when the content is not the whole file, OSError when the disk fails.
        """
        self.__exit__()
        self._begin()
        for subject in parts_of(self._subject):
            self._part(subject)
        waiting = 0
        for group in row_groups(chunks, self._subject):
            self._oddities.add(group)
            waiting += group.num_rows
            for name, rows in self._split(group):
                waiting -= self._part(replace(self._subject, part=name)).add(rows)
            while waiting > self._waiting_rows_max:
                most = max(self._parts.values(), key=lambda part: part.rows)
                waiting -= most.write(most.rows)
        for part in self._parts.values():
            if part.rows:
                part.write(part.rows)
        self._oddities.check()

    def finish(self, source_md5: str, source_bytes: int) -> tuple[Ticks, ...]:
        """Close the files with their facts in the footers; return them, those of expected underlyings last."""
        expected = [part.key for part in parts_of(self._subject)]
        found = sorted(key for key in self._parts if key not in expected)
        ticks = [self._parts.pop(key).file.finish(source_md5, source_bytes) for key in (*found, *expected)]
        return (*ticks[:-1], replace(ticks[-1], oddities=self._oddities.facts()))

    def _begin(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._oddities = Oddities(self._subject.task.day)

    def _part(self, subject: Subject) -> _Part:
        if (part := self._parts.get(subject.key)) is None:
            part = self._parts[subject.key] = _Part(TickFile(subject, path_of(self._folder, subject)))
        return part

    def _split(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yield (underlying, its rows in file order), each a copy: what waits must not keep the rest alive."""
        symbols = rows["symbol"].combine_chunks().dictionary_encode()
        numbers: dict[str, int] = defaultdict(lambda: len(numbers))
        codes = np.array([numbers[self._underlying(symbol)] for symbol in symbols.dictionary.to_pylist()])
        mine = codes[symbols.indices.to_numpy()]
        for name, number in numbers.items():
            yield name, rows.take(np.flatnonzero(mine == number))

    def _underlying(self, symbol: str) -> str:
        if (known := self._underlyings.get(symbol)) is None:
            known = underlying_of(self._subject.source.exchange, symbol) or UNPARSED
            self._underlyings[symbol] = known
        return known
