"""The tally against counting anew after every entry."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from runner.task import Entry, Outcome, Stage, Task
from runner.worker.tally import Tally

TASKS = tuple(
    Task(Stage.DOWNLOAD, date(2024, 8, 8), key, types)
    for key, types in (("A", ("trades",)), ("B", ("trades", "quotes")), ("C", ("trades", "quotes", "book_ticker")))
)
PAIRS = [(task.id, data_type) for task in TASKS for data_type in task.data_types]


@given(st.lists(st.tuples(st.sampled_from(PAIRS), st.sampled_from(list(Outcome)))))
def test_counts_are_those_of_counting_anew(entries: list[tuple[tuple[str, str], Outcome]]) -> None:
    tally, seen = Tally(TASKS), {}
    for (task_id, data_type), outcome in entries:
        tally.add(Entry(task_id, data_type, outcome))
        seen[task_id, data_type] = outcome
        whole = [t for t in TASKS if all((t.id, d) in seen for d in t.data_types)]
        bad = [t for t in whole if any(seen[t.id, d] is Outcome.FAILED for d in t.data_types)]
        late = [t for t in whole if t not in bad and any(seen[t.id, d] is Outcome.PENDING for d in t.data_types)]
        assert (tally.done, tally.failed, tally.pending) == (len(whole) - len(bad), len(bad), len(late))
        left = [(t.id, d) for t in tally.remaining() for d in t.data_types]
        assert left == [pair for pair in PAIRS if pair not in seen]
