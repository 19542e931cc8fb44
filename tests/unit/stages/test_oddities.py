"""What is strange in a sound file, against counting by hand, in tables cut anywhere."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import IntegrityError
from runner.stages.oddities import Oddities

DAY = date(2024, 8, 8)
START_US = 1_723_075_200_000_000
END_US = START_US + 86_400_000_000


def counted(rows: list[tuple[int, str]], cuts: list[int], *, with_ids: bool = True) -> Oddities:
    oddities = Oddities(DAY)
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(rows)}), len(rows)]
    for start, stop in pairwise(edges):
        if part := rows[start:stop]:
            columns = {"local_timestamp": pa.array([us for us, _ in part], pa.timestamp("us", tz="UTC"))}
            ids = {"id": pa.array([each for _, each in part], pa.string())} if with_ids else {}
            oddities.add(pa.table(columns | ids))
    return oddities


def test_the_day_begins_and_ends_at_midnight_utc() -> None:
    assert datetime.fromtimestamp(START_US / 1e6, UTC).isoformat() == "2024-08-08T00:00:00+00:00"
    rows = [(START_US - 1, ""), (START_US, ""), (END_US - 1, ""), (END_US, "")]
    assert counted(rows, []).facts() == {"rows_of_other_days": 2}


def test_a_file_in_order_has_nothing_strange() -> None:
    rows = [(START_US + n, str(n)) for n in range(5)]
    assert counted(rows, [2]).facts() == {}


def test_absent_ids_do_not_repeat() -> None:
    rows = [(START_US, "")] * 4
    assert counted(rows, [2]).facts() == {}
    assert counted(rows, [2], with_ids=False).facts() == {}


def test_a_file_of_another_day_altogether_is_refused_and_one_row_of_its_own_is_enough() -> None:
    away = [(END_US + n, str(n)) for n in range(3)]
    with pytest.raises(IntegrityError, match=r"none of its 3 rows arrived on 2024-08-08: it is another day's file"):
        counted(away, []).check()
    counted([*away, (END_US - 1, "x")], []).check()
    counted([], []).check()


@settings(max_examples=150)
@given(
    rows=st.lists(st.tuples(st.integers(START_US - 3, START_US + 9), st.sampled_from(["", "1", "2"])), max_size=12),
    cuts=st.lists(st.integers(1, 11), max_size=3),
)
def test_counts_are_those_of_plain_python_wherever_tables_are_cut(rows: list[tuple[int, str]], cuts: list[int]) -> None:
    pairs = list(pairwise(rows))
    expected = {
        "unsorted_rows": sum(after[0] < before[0] for before, after in pairs),
        "repeated_ids": sum(after[1] == before[1] != "" for before, after in pairs),
        "rows_of_other_days": sum(not START_US <= us < END_US for us, _ in rows),
    }
    assert counted(rows, cuts).facts() == {name: count for name, count in expected.items() if count}
