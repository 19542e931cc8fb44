"""Stage availability: what there is of a day and what is missing, why, and what mends it, as two tables.

Both are made anew by every run, over what the catalogue offers that day of the run's selection: each (instrument or
group, data type) is a row of exactly one of them. They are for reading; whether a day is complete is told by validate.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runner import layout
from runner.errors import PreconditionError, TransientError
from runner.market.digest import Digest
from runner.market.names import SCHEMA_VERSION
from runner.stages import content, outputs, validate
from runner.stages.expected import Day, expect_of
from runner.stages.instruments import table_of
from runner.stages.sealing import Listing
from runner.stages.tools import Tools
from runner.stages.validate import Gap, Grounds
from runner.store import ABSENT, ObjectInfo, Store
from runner.task import Entry, Outcome, Task

_SWAPS = 5
_TIME = pa.timestamp("us", tz="UTC")
_KEY = (
    ("day", pa.date32()),
    ("venue", pa.string()),
    ("instrument_type", pa.string()),
    ("instrument_key", pa.string()),
    ("tardis_exchange", pa.string()),
    ("tardis_symbol", pa.string()),
    ("data_type", pa.string()),
)
MISSING: pa.Schema = pa.schema(
    [
        *_KEY,
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("objects", pa.list_(pa.string())),
        ("command", pa.string()),
    ]
)
"""One row per (key, data type) that is not whole, by both. A group stands under its reserved key.

`outcome` is `pending` (not exported yet), `failed`, or null: nobody tried, or what was stored is gone or damaged.
`objects` are the store's keys that are missing or wrong, `reason` says why, `command` mends it.
"""

AVAILABLE: pa.Schema = pa.schema(
    [
        *_KEY,
        ("outcome", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("objects", pa.int64()),
        ("min_timestamp", _TIME),
        ("max_timestamp", _TIME),
        ("digest", pa.string()),
        ("source_md5", pa.string()),
        ("generation", pa.string()),
    ]
)
"""One row per (key, data type) that is whole, by both. Rows, bytes and times are those of the ticks.

`outcome` is the settled one; `objects` counts all outputs; `min_timestamp` and `max_timestamp` are exchange times, both
inclusive, null without rows. Of a type that is split in parts, rows and bytes are sums, and `digest` and `generation`
are those of the part that was committed last.
"""


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Write both tables of a day from what the store holds now."""
    for _ in range(_SWAPS):
        # Read before the listing, so that whoever wrote meanwhile, maybe knowing more, is not overwritten unseen.
        places = (layout.missing_data_reports(task.day), layout.available_tick_data(task.day))
        generations = [_generation(tools.store, key) for key in places]
        day = expect_of(tools.spec, table_of(tools.store, tools.catalogues, task.day))
        missing, available = report(day, tools)
        try:
            for key, generation, table in zip(places, generations, (missing, available), strict=True):
                _write(tools, key, generation, day, table)
        except PreconditionError:
            continue
        pending = missing.column("outcome").to_pylist().count(str(Outcome.PENDING))
        facts = {"rows": available.num_rows, "missing": missing.num_rows, "pending": pending}
        return Entry(task.id, data_type, Outcome.DONE, facts)
    raise TransientError(
        f"the reports of {task.day} in {tools.store.url} changed {_SWAPS} times while written; run again"
    )


def report(day: Day, tools: Tools) -> tuple[pa.Table, pa.Table]:
    """Return what is missing and what is available of a day, by (key, data type); writes nothing."""
    of_day = outputs.by_day(tools.store, [day.day], tools.spec.data_types)
    live, listing = next(found for _, found in of_day), Listing(tools.store)
    missing, available = list[dict[str, Any]](), list[dict[str, Any]]()
    for task, data_type in _pairs(day):
        grounds = Grounds(tools.store, day.table, data_type, live, tools.reasons, listing, deep=tools.deep)
        if gap := validate.gap(grounds, task):
            missing.append({**_who(task, data_type), **_gap(gap)})
        else:
            available.append({**_who(task, data_type), **_facts(task, data_type, live)})
    return pa.Table.from_pylist(missing, MISSING), pa.Table.from_pylist(available, AVAILABLE)


def _pairs(day: Day) -> Iterator[tuple[Task, str]]:
    for task in sorted(day.tasks, key=lambda task: task.key):
        for data_type in sorted(task.data_types):
            yield task, data_type


def _who(task: Task, data_type: str) -> dict[str, Any]:
    venue, kind = task.key.split(":")[:2]
    source = {"tardis_exchange": task.source.exchange, "tardis_symbol": task.source.symbol} if task.source else {}
    who = {"day": task.day, "venue": venue, "instrument_type": kind, "instrument_key": task.key}
    return {**who, **source, "data_type": data_type}


def _gap(gap: Gap) -> dict[str, Any]:
    outcome = None if gap.outcome is None else str(gap.outcome)
    return {"outcome": outcome, "reason": gap.reason, "objects": gap.objects, "command": gap.command}


def _facts(task: Task, data_type: str, live: Mapping[str, ObjectInfo]) -> dict[str, Any]:
    ticks = outputs.present(task, data_type, live)
    entry = outputs.entry(task, data_type, ticks)
    proven = {name: entry.facts.get(name) for name in ("rows", "bytes", "digest", "source_md5", "generation")}
    return {
        **proven,
        "outcome": str(entry.outcome),
        "objects": len(layout.outputs(task.day, data_type, task.key, task.parts)),
        "min_timestamp": min(_times(ticks, "min_ts"), default=None),
        "max_timestamp": max(_times(ticks, "max_ts"), default=None),
    }


def _times(ticks: Sequence[ObjectInfo], name: str) -> list[int]:
    return [time for info in ticks if (time := content.count(info.metadata, name)) is not None]


def _generation(store: Store, key: str) -> str:
    info = store.head(key)
    return ABSENT if info is None else info.generation


def _write(tools: Tools, key: str, generation: str, day: Day, table: pa.Table) -> None:
    digest = Digest(table.schema)
    digest.update(table)
    facts = {
        "day": str(day.day),
        "rows": str(table.num_rows),
        "digest": digest.hexdigest(),
        "catalogue": day.table.digest,
        "schema": str(SCHEMA_VERSION),
    }
    asked = tools.spec.model_dump(mode="json", by_alias=True, include=_SELECTION)
    sink = io.BytesIO()
    # What was asked stands in the file: a report of two venues says nothing of a third.
    stated = table.replace_schema_metadata({**facts, "selection": json.dumps(asked, sort_keys=True)})
    pq.write_table(stated, sink, compression="zstd", compression_level=1)
    tools.store.put(key, sink.getvalue(), if_generation=generation, metadata=facts)


_SELECTION = {"venues", "instrument_types", "instruments", "data_types", "max_instruments"}
