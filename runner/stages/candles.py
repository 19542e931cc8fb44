"""Stage candles: the ticks of a day and its neighbours to candles that cross midnight right, sealed once all is there.

Reads the store alone. Whoever made less than is there, or of other ticks than the store has now, writes nothing.
"""

from __future__ import annotations

import time

from runner import ledger
from runner.errors import ConfigError, IncompleteError, NotFoundError, PreconditionError, TransientError
from runner.stages.commit import Mode, StaleError, commit_candles
from runner.stages.convert import Subject
from runner.stages.derived import candle_objects
from runner.stages.inputs import Inputs, candle_keys, inputs, made_of
from runner.stages.sealing import current, entry
from runner.stages.tables import Made, Tables
from runner.stages.tools import Tools
from runner.task import Entry, Fact, Outcome, Task

_ATTEMPTS = 5


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Make and commit the candles of one data type of a task; return its settled, pending or failed entry."""
    if task.source is None:
        raise ConfigError(f"{task.id}: the plan names no source for this task; submit the request anew")
    subject, started = Subject(task, data_type, task.source), time.monotonic()
    for _ in range(_ATTEMPTS):
        given = inputs(task, data_type, tools.store.head)
        if (refused := _refused(task, data_type, given, tools)) is not None:
            return refused
        if tools.mode is Mode.KEEP and (there := current(task, data_type, given, tools.store.head)) is not None:
            return entry(task, data_type, there, written=False)
        try:
            made = Tables(tools.store, subject.bars, given).made(data_type)
            facts = _commit(subject, given, made, tools)
        except (StaleError, PreconditionError, NotFoundError):
            continue  # ticks were replaced while they were read
        seconds = round(time.monotonic() - started, 3)
        return Entry(task.id, data_type, _outcome(given, task, data_type, made), {**facts, "seconds": seconds})
    raise TransientError(f"{task.id} {data_type}: its ticks changed {_ATTEMPTS} times while they were read; try again")


def _refused(task: Task, data_type: str, given: Inputs, tools: Tools) -> Entry | None:
    """Return the entry that says why there are no candles yet, None where there may be."""
    for name in made_of(data_type):
        if given.on(name, task.day).settled:
            continue
        if (entry := _unsettled(task, data_type, name, tools)) is not None:
            return entry
    return None


def _unsettled(task: Task, data_type: str, name: str, tools: Tools) -> Entry | None:
    """Return what follows from an input that is not settled; None where nobody asked for it: null columns."""
    blank, place = Entry(task.id, data_type, Outcome.PENDING), f"--store {tools.store.url}"
    known = tools.reasons.of(task.day, task.key, name)
    if known is not None and known[1].outcome is Outcome.FAILED:
        run_id, failed = known
        why = f"{name} failed in {run_id} ({failed.facts.get('error')}): runner retry {run_id} {place}"
    elif name != data_type:
        return None
    elif (known is not None and known[1].outcome is Outcome.PENDING) or not tools.reasons.exported(task):
        return blank
    else:
        which = f"--venues {task.key.split(':', 1)[0]} --instruments {task.key} --data-types {name}"
        days = f"--start-date {task.day} --end-date {task.day}"
        why = f"{name} is not in the store: runner submit download {days} {which} {place}"
    return ledger.failure(blank, IncompleteError(f"{task.key} has no {data_type} candles on {task.day} yet: {why}"))


def _outcome(given: Inputs, task: Task, data_type: str, made: Made) -> Outcome:
    """Return done where there are rows on the day, whichever file they came in; else what is known of its own file."""
    own = given.on(data_type, task.day)
    if own.used:
        return Outcome.DONE if made.rows.inside else Outcome.EMPTY
    return Outcome(own.state)


def _commit(subject: Subject, given: Inputs, made: Made, tools: Tools) -> dict[str, Fact]:
    task, data_type = subject.task, subject.data_type
    tables = {key: made.tables[timeframe] for timeframe, key in candle_keys(task, data_type).items()}
    outcome = str(_outcome(given, task, data_type, made))
    objects = candle_objects(task, data_type, tables, given, facts={"outcome": outcome, "ticks": str(made.rows.inside)})

    def still() -> bool:
        return inputs(task, data_type, tools.store.head) == given

    written = commit_candles(tools.store, objects, given, still=still, mode=tools.mode)
    return {
        "rows": made.rows.inside,
        "rows_before": made.rows.before,
        "rows_after": made.rows.after,
        "sealed": given.sealed,
        "inputs": given.hash,
        "bytes": sum(len(body) for body, _ in objects.values()),
        "source_bytes": sum(file.info.size for file in given.files if file.info is not None),
        "written": written > 0,
    }
