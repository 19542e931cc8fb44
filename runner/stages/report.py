"""A request validated as a whole: every verdict, the gaps of its selection, and why one key is or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches

from runner import history, layout
from runner.errors import NotFoundError
from runner.market.groups import Group
from runner.market.symbols import Instrument, selects
from runner.spec import RunSpec
from runner.stages import expected, outputs, validate
from runner.stages.inputs import made_of
from runner.stages.instruments import InstrumentTable, day_instruments, read_instruments
from runner.stages.reasons import Reasons
from runner.stages.sealing import Listing, seals
from runner.stages.validate import Gap, Grounds, Judgement
from runner.store import Store
from runner.tardis.client import Tardis
from runner.task import Stage, Task


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts of a request. `tasks` counts its instrument-days, `verified` those without a gap.

    `duplicated` counts (task, data type)s that more than one attempt of a run wrote, of all runs asked for these days.
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
    def unsealed(self) -> int:
        """Return how many candle days of these venues are not final: neighbours or joined types may still come."""
        judged = ((len(each.expected), each.seals) for each in self.judgements)
        return sum(expected - len(seals.sealed) for expected, seals in judged if seals is not None)

    @property
    def stale(self) -> int:
        """Return how many candle days of these venues are made of other ticks than the store has now."""
        return sum(len(each.seals.stale) for each in self.judgements if each.seals is not None)

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
    """Judge every venue of a request, day by day, and write its completeness records; return the gaps of its selection.

    Raises NotFoundError when the selectors match nothing.
    """
    found: list[expected.Day] = []
    judgements: list[Judgement] = []
    days = expected.days_of(spec, tardis)
    why, listing, recorded = Reasons(store, (days[0], days[-1])), Listing(store), 0
    for day in expected.expect(spec, store, tardis, days):
        found.append(day)
        judgements += _judge_day(spec, store, day, why, listing)
        if any(each.tasks for each in found):  # otherwise the request is refused in the end
            for judgement in judgements[recorded:]:
                validate.record(store, judgement)
            recorded = len(judgements)
    expected.refuse_nothing(spec, found)
    selected = {(task.day, task.key) for day in found for task in day.tasks}
    gaps = [gap for judgement in judgements for gap in judgement.gaps if (gap.day, gap.key) in selected]
    gaps.sort(key=lambda gap: (gap.day, gap.key))
    duplicated = history.duplicated(store, Stage.DOWNLOAD, (days[0], days[-1]))
    return Report(tuple(judgements), tuple(gaps), len(selected), duplicated)


def _judge_day(spec: RunSpec, store: Store, day: expected.Day, why: Reasons, listing: Listing) -> Iterator[Judgement]:
    for data_type in spec.data_types:
        live = outputs.live(store, day.day, data_type)
        grounds = Grounds(store, day.table, data_type, live, why, listing, deep=spec.deep)
        yield from (validate.judge(grounds, task.key) for task in expected.venue_tasks(day, spec))


def explain(spec: RunSpec, store: Store, tardis: Tardis, key: str, day: date) -> tuple[Explanation, ...]:
    """Return why the outputs of a key and day are or are not in the store, for each of the request's data types.

    Raises NotFoundError when the catalogue does not list the key on that day.
    """
    table = read_instruments(store, day) or day_instruments(store, tardis, day)
    row = _meant(table, key)
    why, listing = Reasons(store, (day, day)), Listing(store)
    return tuple(
        _explain(Grounds(store, table, t, outputs.live(store, day, t), why, listing, deep=spec.deep), row)
        for t in spec.data_types
    )


def _meant(table: InstrumentTable, key: str) -> Instrument | Group:
    """Return what a key names, or a selector that means one alone."""
    named: tuple[Instrument | Group, ...] = (*table.rows, *table.groups)
    found = [row for row in named if row.instrument_key == key.upper()] or [row for row in named if selects(key, row)]
    if len(found) != 1:
        raise NotFoundError(_not_listed(table, key.upper()) if not found else f"{key} means {len(found)} instruments")
    return found[0]


def _explain(grounds: Grounds, row: Instrument | Group) -> Explanation:
    data_type, day = grounds.data_type, grounds.table.day
    offered = expected.offered(grounds.table, data_type, row.venue)
    task = next((task for task in offered if task.key == row.instrument_key), None)
    if task is None:
        key = layout.ticks(day, data_type, row.instrument_key)
        return Explanation(data_type, key, "not_expected", _not_offered(grounds, row))
    key = layout.outputs(day, data_type, task.key, task.parts)[-1]
    if found := validate.gap(grounds, task):
        return Explanation(data_type, key, "missing", found.reason, found.command)
    entry = outputs.entry(task, data_type, outputs.present(task, data_type, grounds.found))
    known = grounds.reasons.of(day, row.instrument_key, data_type)
    by = f", by {known[0]}" if known else ""
    parts = f", by underlying: {', '.join(task.parts)}" if len(task.parts) > 1 else ""
    metadata = grounds.found[key].metadata
    proof = f", the source said: {metadata['proof']}" if "proof" in metadata else ""
    strange = f"; kept as they came: {metadata['oddities']}" if "oddities" in metadata else ""
    facts = f"{entry.outcome}, {entry.facts.get('rows')} rows{parts}{by}{proof}{strange}{_seal(grounds, task)}"
    return Explanation(data_type, key, "present", facts)


def _seal(grounds: Grounds, task: Task) -> str:
    """Return whether the candles that come of a data type are final, nothing where none come of it."""
    if not made_of(grounds.data_type):
        return ""
    found = seals([task], grounds.data_type, grounds.listing.find)
    if found.sealed:
        return "; its candles are sealed"
    return "; its candles are of other ticks than are there now" if found.stale else "; its candles are provisional"


def _not_offered(grounds: Grounds, row: Instrument | Group) -> str:
    kind, data_type = (row.venue, row.instrument_type), grounds.data_type
    if isinstance(row, Group) and data_type in row.data_types:
        return f"what instruments of {row.tardis_symbol} have files of their own for is downloaded from these instead"
    offers = f"{row.tardis_exchange} offers only {', '.join(row.data_types)} for it"
    groups = [g for g in grounds.table.groups if (g.venue, g.instrument_type) == kind and data_type in g.data_types]
    taken = {task.key for task in expected.group_tasks(grounds.table, (data_type,))}
    held = (
        f"; its rows are in the file of {g.instrument_key}{'' if g.instrument_key in taken else ', not downloaded'}"
        for g in groups
        if g is not row
    )
    return f"{offers}{''.join(held)}"


def _not_listed(table: InstrumentTable, key: str) -> str:
    venue = key.split(":", 1)[0]
    if not any(row.venue == venue for row in table.rows):
        return f"{key}: no instrument of {venue} is listed on {table.day}; venues that day: " + (
            ", ".join(sorted({row.venue for row in table.rows})) or "none"
        )
    near = get_close_matches(key, [row.instrument_key for row in table.rows], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key} is not listed on {table.day}{hint}"
