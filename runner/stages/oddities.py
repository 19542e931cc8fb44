"""What is strange in a sound file: kept as it is, in file order, and counted, so that whoever reads the ticks can know.

Data, not damage, because real files have it: arrival times that go back, an id that the row before has too, some rows
of the day before or after, crossed books (flagged in book candles). Damage is what no source writes: see tardis/csv.py.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import IntegrityError

_DAY_US = 86_400_000_000


class Oddities:
    """Counts over the rows of one day file, fed in file order."""

    def __init__(self, day: date) -> None:
        self._day = day
        self._start_us = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
        self._rows = self._unsorted = self._repeated = self._elsewhere = 0
        self._last_us = 0
        self._last_id = ""

    def add(self, table: pa.Table) -> None:
        """Count the oddities of the next rows, at least one."""
        arrival = table["local_timestamp"].cast(pa.int64()).to_numpy()
        self._rows += len(arrival)
        self._unsorted += int(np.count_nonzero(np.diff(arrival, prepend=self._last_us) < 0))
        self._last_us = int(arrival[-1])
        day = arrival - self._start_us
        self._elsewhere += int(np.count_nonzero((day < 0) | (day >= _DAY_US)))
        if "id" in table.column_names:
            self._add_ids(table["id"].combine_chunks())

    def _add_ids(self, ids: pa.Array) -> None:
        same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        if pc.any(same, min_count=0).as_py():
            self._repeated += int(pc.sum(pc.and_(same, pc.not_equal(ids.slice(1), ""))).as_py() or 0)
        self._repeated += ids[0].as_py() == self._last_id != ""
        self._last_id = ids[-1].as_py()

    def check(self) -> None:
        """Raise IntegrityError when there are rows and every one arrived on another day: a file in another's place."""
        if self._rows and self._elsewhere == self._rows:
            raise IntegrityError(f"none of its {self._rows} rows arrived on {self._day}: it is another day's file")

    def facts(self) -> dict[str, int]:
        """Return the counts that are not zero.

        `unsorted_rows` arrived before the row above them, `repeated_ids` have its id, `rows_of_other_days` arrived on
        the day before or after.
        """
        counts = {
            "unsorted_rows": self._unsorted,
            "repeated_ids": self._repeated,
            "rows_of_other_days": self._elsewhere,
        }
        return {name: count for name, count in counts.items() if count}
