"""A request validated as a whole: every verdict, the gaps of its selection, and why one key is or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches

from runner import layout, ledger
from runner.errors import NotFoundError
from runner.market.symbols import Instrument
from runner.spec import RunSpec
from runner.stages import expected, outputs, validate
from runner.stages.instruments import InstrumentTable, day_instruments, read_instruments
from runner.stages.validate import Gap, Grounds, Judgement, Reasons
from runner.store import Store
from runner.tardis.client import Tardis
from runner.task import Stage


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts of a request. `tasks` counts its instrument-days, `verified` those without a gap.

    `duplicated` counts (task, data type)s that more than one attempt of a run wrote.
    """

    judgements: tuple[Judgement, ...]
    gaps: tuple[Gap, ...]
    tasks: int
    duplicated: int

    @property
    def verified(self) -> int:
        """Return how many instrument-days are whole."""
        return self.tasks - len({(gap.day, gap.key) for gap in self.gaps})

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return every doubt once, in order."""
        return tuple(dict.fromkeys(doubt for judgement in self.judgements for doubt in judgement.doubts))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the outputs of a (key, day, data type) are or are not there: `state` is present, missing or not_expected."""

    data_type: str
    object_key: str
    state: str
    reason: str
    command: str = ""


def report(spec: RunSpec, store: Store, tardis: Tardis) -> Report:
    """Judge every venue of a request, write its completeness records, and return the gaps of its selection.

    Raises NotFoundError when the selectors match nothing.
    """
    found: list[expected.Day] = []
    judgements: list[Judgement] = []
    why = Reasons(store)
    for day in expected.expect(spec, store, tardis, expected.days_of(spec, tardis)):
        found.append(day)
        judgements += _judge_day(spec, store, day, why)
    expected.refuse_nothing(spec, found)
    for judgement in judgements:
        validate.record(store, judgement)
    selected = {(task.day, task.key) for day in found for task in day.tasks}
    gaps = [gap for judgement in judgements for gap in judgement.gaps if (gap.day, gap.key) in selected]
    gaps.sort(key=lambda gap: (gap.day, gap.key))
    return Report(tuple(judgements), tuple(gaps), len(selected), _duplicated(store))


def _judge_day(spec: RunSpec, store: Store, day: expected.Day, why: Reasons) -> Iterator[Judgement]:
    for data_type in spec.data_types:
        live = outputs.live(store, day.day, data_type)
        grounds = Grounds(store, day.table, data_type, live, why, deep=spec.deep)
        yield from (validate.judge(grounds, task.key) for task in expected.venue_tasks(day, spec))


def _duplicated(store: Store) -> int:
    """Count what was written by more than one attempt of the same run: never, by the rules of the commit."""
    written = (
        count
        for run in ledger.run_ids(store, f"{Stage.DOWNLOAD}-")
        for count in ledger.fold(ledger.read_attempts(store, run)).written.values()
    )
    return sum(count > 1 for count in written)


def explain(spec: RunSpec, store: Store, tardis: Tardis, key: str, day: date) -> tuple[Explanation, ...]:
    """Return why the outputs of a key and day are or are not in the store, for each of the request's data types.

    Raises NotFoundError when the catalogue does not list the key on that day.
    """
    table = read_instruments(store, day) or day_instruments(store, tardis, day)
    row = next((row for row in table.rows if row.instrument_key == key.upper()), None)
    if row is None:
        raise NotFoundError(_not_listed(table, key.upper()))
    why = Reasons(store)
    return tuple(
        _explain(Grounds(store, table, t, outputs.live(store, day, t), why, deep=spec.deep), row)
        for t in spec.data_types
    )


def _explain(grounds: Grounds, row: Instrument) -> Explanation:
    data_type, day = grounds.data_type, grounds.table.day
    key = layout.ticks(day, data_type, row.instrument_key)
    if data_type not in row.data_types:
        offered = ", ".join(row.data_types)
        return Explanation(data_type, key, "not_expected", f"{row.tardis_exchange} offers only {offered} for it")
    if found := validate.gap(grounds, row):
        return Explanation(data_type, key, "missing", found.reason, found.command)
    meta = grounds.found[key].metadata
    known = grounds.reasons.of(day, row.instrument_key, data_type)
    by = f", by {known[0]}" if known else ""
    proof = f", the source said: {meta['proof']}" if meta.get("proof") else ""
    return Explanation(data_type, key, "present", f"{meta.get('outcome')}, {meta.get('rows')} rows{by}{proof}")


def _not_listed(table: InstrumentTable, key: str) -> str:
    venue = key.split(":", 1)[0]
    if not any(row.venue == venue for row in table.rows):
        return f"{key}: no instrument of {venue} is listed on {table.day}; venues that day: " + (
            ", ".join(sorted({row.venue for row in table.rows})) or "none"
        )
    near = get_close_matches(key, [row.instrument_key for row in table.rows], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key} is not listed on {table.day}{hint}"
