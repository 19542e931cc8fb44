"""Stage download: a day of one instrument from Tardis to ticks, and to the candles that this file alone gives."""

from __future__ import annotations

import errno
import time
from dataclasses import asdict
from pathlib import Path

from runner import layout
from runner.errors import ConfigError, TransientError
from runner.stages import outputs
from runner.stages.commit import Mode, commit, refuse_other
from runner.stages.convert import Conversion, Subject, Ticks, candle_object, nothing
from runner.stages.tools import Tools
from runner.tardis.client import DayFile, Fetched
from runner.task import Entry, Fact, Outcome, Task


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Fetch, convert and commit one data type of a task; return its settled or pending entry. What is there stays.

    Candles are committed before the ticks, so ticks in the store mean that their candles are there too.
    """
    if task.source is None:
        raise ConfigError(f"{task.id}: the plan names no source for this task; submit the request anew")
    started = time.monotonic()
    if tools.mode is Mode.KEEP and (twin := outputs.made_since(tools.store, task, data_type)):
        return outputs.entry(task, data_type, twin, kept=True, written=False)
    subject = Subject(task, data_type, task.source)
    path = tools.scratch / f"{task.day}-{data_type}-{layout.name_of(task.key)}.parquet"
    try:
        fetched, ticks = _fetch(subject, path, tools)
        if ticks is None:
            return Entry(task.id, data_type, Outcome.PENDING, _how(fetched, started))
        facts = _commit(subject, ticks, tools)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        raise TransientError(
            f"{task.id} {data_type}: no space left in {tools.scratch}; give the worker more scratch space"
        ) from e
    finally:
        path.unlink(missing_ok=True)
    return Entry(task.id, data_type, Outcome(ticks.metadata["outcome"]), {**facts, **_how(fetched, started)})


def _fetch(subject: Subject, path: Path, tools: Tools) -> tuple[Fetched[None], Ticks | None]:
    """Return how the fetch ended and the ticks to commit, None when the day is not exported yet."""
    source = subject.source
    with Conversion(subject, path) as conversion:
        file = DayFile(source.exchange, subject.data_type, subject.task.day, source.symbol)
        fetched = tools.tardis.fetch(file, conversion.consume)
        if fetched.outcome is Outcome.DONE:
            return fetched, conversion.finish(fetched.source_md5 or "", fetched.source_bytes)
    if fetched.outcome is Outcome.PENDING:
        return fetched, None
    return fetched, nothing(subject, path, fetched.outcome, asdict(fetched.proof) if fetched.proof else {})


def _commit(subject: Subject, ticks: Ticks, tools: Tools) -> dict[str, Fact]:
    task = subject.task
    last = layout.ticks(task.day, subject.data_type, task.key)
    if tools.mode is Mode.KEEP:
        refuse_other(tools.store, last, ticks.metadata)  # else a lost candle would come back beside other ticks
    for key in ticks.candles:
        body, metadata = candle_object(subject, ticks, key=key)
        commit(tools.store, key, body, metadata, mode=tools.mode)
    committed = commit(tools.store, last, ticks.path, ticks.metadata, mode=tools.mode)
    return {
        "rows": ticks.span.rows,
        "bytes": committed.info.size,
        "min_ts": ticks.span.min_ts,
        "max_ts": ticks.span.max_ts,
        "source_md5": ticks.metadata["source_md5"],
        "digest": ticks.metadata["digest"],
        "generation": committed.info.generation,
        "written": committed.written,
        **ticks.oddities,
    }


def _how(fetched: Fetched[None], started: float) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "source_bytes": fetched.source_bytes,
        "tries": fetched.attempts,
        "seconds": round(time.monotonic() - started, 3),
    }
    if fetched.proof is not None:
        facts["proof"] = f"{fetched.proof.status}/{fetched.proof.code}: {fetched.proof.message}"
        facts["catalogue_disagrees"] = fetched.proof.catalogue_disagrees
    return facts
