"""Stage candles: the ticks of a day and its neighbours to candles that cross midnight right, sealed once all is there.

Reads the store alone. Whoever made less than is there, or of other ticks than the store has now, writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from runner import ledger
from runner.errors import ConfigError, IncompleteError, NotFoundError, PreconditionError, TransientError
from runner.stages.commit import Mode, StaleError, commit_candles
from runner.stages.derived import candle_objects
from runner.stages.inputs import WITH_ROWS, Input, Inputs, inputs, made_of, pieces
from runner.stages.sealing import current, entry
from runner.stages.subject import Subject
from runner.stages.tables import Made, Tables
from runner.stages.tools import Tools
from runner.task import Entry, Fact, Outcome, Task

_ATTEMPTS = 5
_GRAVITY = {Outcome.FAILED: 3, Outcome.PENDING: 2, Outcome.DONE: 1}


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Make and commit the candles of one data type of a task; return its settled, pending or failed entry."""
    subjects = pieces(task, data_type)
    if not subjects:
        raise ConfigError(f"{task.id}: the plan asks for candles of {data_type}, which has none; submit anew")
    started = time.monotonic()
    entries = [_piece(subject, tools) for subject in subjects]
    seconds = round(time.monotonic() - started, 3)
    worst = max(entries, key=lambda entry: _GRAVITY.get(entry.outcome, 0))
    facts = _summed(entries) if worst.outcome.settled else worst.facts
    return Entry(task.id, data_type, worst.outcome, {**facts, "seconds": seconds})


def _summed(entries: Sequence[Entry]) -> dict[str, Fact]:
    """Return the facts of all pieces: sealed are all of them or none, written is any."""
    if len(entries) == 1:
        return dict(entries[0].facts)
    return {
        "bytes": sum(int(e.facts["bytes"] or 0) for e in entries),
        "sealed": all(e.facts["sealed"] for e in entries),
        "written": any(e.facts["written"] for e in entries),
        "parts": len(entries),
    }


def _piece(subject: Subject, tools: Tools) -> Entry:
    task, data_type = subject.task, subject.data_type
    for _ in range(_ATTEMPTS):
        given = inputs(subject, tools.store.head)
        if (refused := _refused(subject, given, tools)) is not None:
            return refused
        if tools.mode is Mode.KEEP and (there := current(subject, given, tools.store.head)) is not None:
            return entry(task, data_type, there, written=False)
        try:
            made = Tables(tools.store, subject.bars, given).made(data_type)
            facts = _commit(subject, given, made, tools)
        except (StaleError, PreconditionError, NotFoundError):
            continue  # ticks were replaced while they were read
        return Entry(task.id, data_type, _outcome(given.on(data_type, task.day), made), facts)
    raise TransientError(f"{task.id} {data_type}: its ticks changed {_ATTEMPTS} times while they were read; try again")


def _refused(subject: Subject, given: Inputs, tools: Tools) -> Entry | None:
    """Return the entry that says why there are no candles yet, None where there may be."""
    task, data_type = subject.task, subject.data_type
    unsettled = (name for name in made_of(data_type) if not given.on(name, task.day).settled)
    refused = (_unsettled(task, data_type, name, tools) for name in unsettled)
    return next((each for each in refused if each is not None), None)


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


def _outcome(own: Input, made: Made) -> Outcome:
    """Return done where there are rows on the day, whichever file they came in; else what is known of its own file."""
    if Outcome(own.outcome) in WITH_ROWS:
        return Outcome.DONE if made.rows.inside else Outcome.EMPTY
    return Outcome(own.outcome)


def _commit(subject: Subject, given: Inputs, made: Made, tools: Tools) -> dict[str, Fact]:
    own = given.on(subject.data_type, subject.task.day)
    facts = {"outcome": str(_outcome(own, made)), "ticks": str(made.rows.inside)}
    objects = candle_objects(subject, made.tables, given, facts)

    def still() -> bool:
        return inputs(subject, tools.store.head) == given

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
