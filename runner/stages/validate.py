"""Stage validate: what is expected against what the store really holds, as verdicts, gaps and completeness records.

The verdict of a (day, venue, data type) is always over everything that the catalogue offers there, whatever the request
selects: a partial request updates the types it names and never narrows what is expected. Its own exit code is over its
selection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from runner import layout, ledger
from runner.errors import ConfigError, IncompleteError, PreconditionError, TransientError
from runner.ledger import canonical, sha256
from runner.market.groups import UNPARSED
from runner.market.symbols import VENUES, exchange_of
from runner.stages import content, expected, outputs
from runner.stages.inputs import made_of
from runner.stages.instruments import InstrumentTable, table_of
from runner.stages.reasons import Reasons
from runner.stages.sealing import Listing, Seals, seals
from runner.stages.tools import Tools
from runner.store import ABSENT, ObjectInfo, Store
from runner.task import Entry, Outcome, Task

_SWAPS = 10
_VENUES = frozenset(venue.venue for venue in VENUES)


class Verdict(StrEnum):
    """What is true of a (day, venue, data type). Nothing expected is never complete."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    NOTHING_EXPECTED = "nothing_expected"


@dataclass(frozen=True, slots=True)
class Gap:
    """A (task, data type) that is not whole in the store: which objects, why, and what to run.

    `outcome` is `pending` or `failed` where that is why, None where nobody tried or what was stored is gone or damaged.
    """

    day: date
    venue: str
    key: str
    data_type: str
    objects: tuple[str, ...]
    reason: str
    command: str
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of a (day, venue, data type) with its grounds. `doubts` do not make it incomplete.

    `seals` is a fact of its own, None where no candles come of the type: what is complete need not be final.
    """

    day: date
    venue: str
    data_type: str
    verdict: Verdict
    expected: tuple[str, ...]
    gaps: tuple[Gap, ...]
    doubts: tuple[str, ...]
    catalogue: str
    generations: str
    ticks: str
    objects: int
    rows: int
    bytes: int
    deep: bool
    seals: Seals | None


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a verdict rests on: the day's table, one data type's live outputs by key, and the ledgers.

    `deep` reads every object again and recomputes its digest; otherwise the listing's metadata is believed.
    `listing` finds the ticks of other types and days, which tell whether candles are final.
    """

    store: Store
    table: InstrumentTable
    data_type: str
    found: Mapping[str, ObjectInfo]
    reasons: Reasons
    listing: Listing
    deep: bool = False


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Judge one data type of a (day, venue) and merge the verdict into its completeness record."""
    table = table_of(tools.store, tools.catalogues, task.day)
    found = outputs.live(tools.store, task.day, data_type)
    grounds = Grounds(tools.store, table, data_type, found, tools.reasons, Listing(tools.store), deep=tools.deep)
    verdict = judge(grounds, task.key)
    record(tools.store, verdict)
    entry = Entry(task.id, data_type, Outcome.DONE, {"expected": len(verdict.expected), "rows": verdict.rows})
    if verdict.verdict is Verdict.INCOMPLETE:
        missing = f"{len(verdict.gaps)} of {len(verdict.expected)} missing, first: {verdict.gaps[0].key}"
        what = f"--start-date {task.day} --end-date {task.day} --venues {task.key} --data-types {data_type}"
        mend = f"all of them, and what mends each: runner validate {what} --store {tools.store.url}"
        return ledger.failure(entry, IncompleteError(f"{task.day} {task.key} {data_type}: {missing}; {mend}"))
    return entry


def judge(grounds: Grounds, venue: str) -> Judgement:
    """Return the verdict of a venue on these grounds."""
    day, data_type, found = grounds.table.day, grounds.data_type, grounds.found
    tasks = tuple(expected.offered(grounds.table, data_type, venue))
    gaps = tuple(found_gap for task in tasks if (found_gap := gap(grounds, task)))
    keys = held(tasks, data_type, found)
    ticks = ticks_of(day, data_type, keys)
    return Judgement(
        day=day,
        venue=venue,
        data_type=data_type,
        verdict=Verdict.INCOMPLETE if gaps else Verdict.COMPLETE if tasks else Verdict.NOTHING_EXPECTED,
        expected=tuple(task.key for task in tasks),
        gaps=gaps,
        doubts=tuple(_doubts(grounds, venue, keys)),
        catalogue=grounds.table.digest,
        generations=generations(keys.values()),
        ticks=generations(ticks),
        objects=len(keys),
        rows=sum(content.count(info.metadata, "rows") or 0 for info in ticks),
        bytes=sum(info.size for info in keys.values()),
        deep=grounds.deep,
        seals=seals(tasks, data_type, grounds.listing.find) if made_of(data_type) else None,
    )


def held(tasks: Iterable[Task], data_type: str, found: Mapping[str, ObjectInfo]) -> dict[str, ObjectInfo]:
    """Return those objects that are outputs of these download tasks, by key."""
    return {k: found[k] for t in tasks for k in layout.outputs(t.day, data_type, t.key, t.parts) if k in found}


def ticks_of(day: date, data_type: str, objects: Mapping[str, ObjectInfo]) -> list[ObjectInfo]:
    """Return those objects that hold ticks."""
    return [info for key, info in objects.items() if key.startswith(layout.ticks_prefix(day, data_type))]


def generations(objects: Iterable[ObjectInfo]) -> str:
    """Return a digest that any change of these objects changes."""
    return sha256(canonical(sorted((info.key, info.generation) for info in objects)))


def gap(grounds: Grounds, task: Task) -> Gap | None:
    """Return what is missing or wrong of a download task's outputs, why, and what mends it; None when nothing is."""
    day, data_type, found = grounds.table.day, grounds.data_type, grounds.found
    keys = layout.outputs(day, data_type, task.key, task.parts)
    missing = tuple(key for key in keys if key not in found)
    held = [found[key] for key in keys if key in found]
    wrong = {info.key: fault for info in held if (fault := content.fault(grounds.store, info, deep=grounds.deep))}
    if not missing and not wrong:
        return None
    if wrong:
        reason, command, outcome = "; ".join(wrong.values()), f"{_submit(grounds, task)} --select all", None
    else:
        reason, command, outcome = _reason(grounds, task)
    return Gap(day, task.key.split(":", 1)[0], task.key, data_type, (*missing, *wrong), reason, command, outcome)


def _reason(grounds: Grounds, task: Task) -> tuple[str, str, Outcome | None]:
    """Return why an object is not there, the command that mends it, and the unsettled outcome behind it, if any."""
    table, again = grounds.table, _submit(grounds, task)
    known = grounds.reasons.of(table.day, task.key, grounds.data_type)
    if known is None:
        exchange = exchange_of(task.key.split(":", 1)[0])
        exported = table.day < table.exported_until.get(exchange, date.min)
        return ("never downloaded", again, None) if exported else ("pending: not exported yet", again, Outcome.PENDING)
    run_id, entry = known
    if entry.outcome is Outcome.FAILED:
        retry = f"runner retry {run_id} --store {grounds.store.url}"
        return f"failed in {run_id}: {entry.facts.get('error')}", retry, entry.outcome
    if entry.outcome is Outcome.PENDING:
        return f"pending: not exported when {run_id} asked", again, entry.outcome
    return f"{entry.outcome} in {run_id}, and gone from the store since", again, None


def _submit(grounds: Grounds, task: Task) -> str:
    day, venue = grounds.table.day, task.key.split(":", 1)[0]
    return (
        f"runner submit download --start-date {day} --end-date {day} --venues {venue} "
        f"--instruments {task.key} --data-types {grounds.data_type} --store {grounds.store.url}"
    )


def _doubts(grounds: Grounds, venue: str, keys: Mapping[str, ObjectInfo]) -> Iterator[str]:
    for key, info in grounds.found.items():
        name = layout.instrument_of(key.rsplit("/", 1)[-1].removesuffix(".parquet"))
        owner = name.split(":", 1)[0]
        if name == f"{venue}:{UNPARSED}":
            yield f"{key} holds rows of symbols that have no key"
        elif key not in keys and (owner == venue or owner not in _VENUES):
            yield f"{key} is there, and the catalogue does not offer it"
        elif key in keys and '"catalogue_disagrees": true' in info.metadata.get("proof", ""):
            yield f"{key}: the source has no such file, though its catalogue offers it"
    yield from _held_back(grounds, venue)
    for row in grounds.table.unparsed:
        if row.exchange == exchange_of(venue):
            yield f"symbol {row.symbol} of {row.exchange} has no key: {row.reason}"


def _held_back(grounds: Grounds, venue: str) -> Iterator[str]:
    """Yield the grouped files that are not downloaded, as members have files of their own, but not all members."""
    table, data_type = grounds.table, grounds.data_type
    for group in (each for each in table.groups if each.venue == venue and data_type in each.data_types):
        members = [r for r in table.rows if (r.venue, r.instrument_type) == (venue, group.instrument_type)]
        own = sum(data_type in row.data_types for row in members)
        if 0 < own < len(members):
            yield (
                f"{len(members) - own} of {len(members)} instruments of {group.instrument_key} have no file of their "
                f"own: what the grouped file holds of them is not downloaded"
            )


def record(store: Store, judgement: Judgement) -> None:
    """Merge a verdict into the completeness record of its (day, venue); other data types stay as they are."""
    key = layout.completeness(judgement.day, judgement.venue)
    for _ in range(_SWAPS):
        live = store.head(key)
        document = completeness_record(store, key) if live else _blank(judgement)
        document["dataTypes"][judgement.data_type] = _fields(judgement)
        body = json.dumps(document, indent=1, sort_keys=True).encode()
        try:
            store.put(key, body, if_generation=live.generation if live else ABSENT)
        except PreconditionError:
            continue
        return
    raise TransientError(f"{key} in {store.url} changed {_SWAPS} times while it was being written; validate again")


def completeness_record(store: Store, key: str) -> dict[str, Any]:
    """Return what a completeness record says. Raises ConfigError when it is none, NotFoundError when missing."""
    try:
        document: dict[str, Any] = json.loads(store.get(key))
        document["dataTypes"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ConfigError(f"{key} in {store.url} is no completeness record ({e}); remove it and validate again") from e
    return document


def _blank(judgement: Judgement) -> dict[str, Any]:
    head = {"apiVersion": ledger.API_VERSION, "day": str(judgement.day), "venue": judgement.venue}
    return {**head, "dataTypes": {}}


def _fields(judgement: Judgement) -> dict[str, Any]:
    return {
        **seal_fields(judgement),
        "verdict": str(judgement.verdict),
        "expected": len(judgement.expected),
        "expectedDigest": sha256(canonical(judgement.expected)),
        "catalogueDigest": judgement.catalogue,
        "generationsDigest": judgement.generations,
        "ticksDigest": judgement.ticks,
        "objects": judgement.objects,
        "rows": judgement.rows,
        "bytes": judgement.bytes,
        "deep": judgement.deep,
        "missing": [_missing(gap) for gap in judgement.gaps],
        "doubts": list(judgement.doubts),
    }


def _missing(found: Gap) -> dict[str, Any]:
    return {
        "key": found.key,
        "objects": list(found.objects),
        "reason": found.reason,
        "outcome": None if found.outcome is None else str(found.outcome),
        "command": found.command,
    }


def seal_fields(judgement: Judgement) -> dict[str, Any]:
    """Return what is known of the candles of a verdict: whether all are final, and whose are not or are stale."""
    if judgement.seals is None:
        return {"sealed": None}
    final = set(judgement.seals.sealed)
    return {
        "sealed": bool(final) and final.issuperset(judgement.expected),
        "unsealed": [key for key in judgement.expected if key not in final],
        "stale": list(judgement.seals.stale),
    }
