"""Stage download: a day of one instrument from Tardis to ticks, and to the candles that this file alone gives."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from runner import layout
from runner.errors import ConfigError, TransientError
from runner.market.names import OPTIONS_CHAIN
from runner.stages import outputs
from runner.stages.commit import Mode, commit, refuse_other
from runner.stages.convert import Conversion, Ticks, nothing
from runner.stages.derived import candle_object
from runner.stages.split import SplitConversion, parts_of, path_of
from runner.stages.subject import Subject
from runner.stages.tools import Tools
from runner.tardis.client import DayFile, Fetched
from runner.task import Entry, Fact, Outcome, Task


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Fetch, convert and commit one data type of a task; return its settled or pending entry. What is there stays.

    Candles are committed before the ticks, so ticks in the store mean that their candles are there too. An options
    chain has ticks for each underlying: the last expected one's come after all other objects.
    """
    if task.source is None:
        raise ConfigError(f"{task.id}: the plan names no source for this task; submit the request anew")
    started = time.monotonic()
    if tools.mode is Mode.KEEP and (twin := outputs.made_since(tools.store, task, data_type)):
        return outputs.entry(task, data_type, twin, kept=True, written=False)
    subject = Subject(task, data_type, task.source)
    folder = tools.scratch / f"{task.day}-{data_type}-{layout.name_of(task.key)}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fetched, files = _fetch(subject, folder, tools)
        facts = _commit(subject, files, tools) if files else {}
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        raise TransientError(
            f"{task.id} {data_type}: no space left in {tools.scratch}; give the worker more scratch space"
        ) from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcomes = [Outcome(ticks.metadata["outcome"]) for ticks in files] or [Outcome.PENDING]
    outcome = Outcome.DONE if Outcome.DONE in outcomes else outcomes[-1]
    return Entry(task.id, data_type, outcome, {**facts, **_how(fetched, started)})


def _fetch(subject: Subject, folder: Path, tools: Tools) -> tuple[Fetched[None], tuple[Ticks, ...]]:
    """Return how the fetch ended and the ticks to commit, none when the day is not exported yet."""
    source = subject.source
    file = DayFile(source.exchange, subject.data_type, subject.task.day, source.symbol)
    # What is served of a day that is not exported may be a part of it.
    if not tools.reasons.exported(subject.task) and not tools.tardis.exported(source.exchange, file.day):
        return Fetched(Outcome.PENDING), ()
    with _conversion(subject, folder) as conversion:
        fetched = tools.tardis.fetch(file, conversion.consume)
        if fetched.outcome is Outcome.DONE:
            made = conversion.finish(fetched.source_md5 or "", fetched.source_bytes)
            return fetched, (made,) if isinstance(made, Ticks) else made
    if fetched.outcome is Outcome.PENDING:
        return fetched, ()
    proof = asdict(fetched.proof) if fetched.proof else {}
    parts = parts_of(subject)
    return fetched, tuple(nothing(part, path_of(folder, part), fetched.outcome, proof) for part in parts)


def _conversion(subject: Subject, folder: Path) -> Conversion | SplitConversion:
    if subject.data_type == OPTIONS_CHAIN:
        return SplitConversion(subject, folder)
    return Conversion(subject, path_of(folder, subject))


def _commit(subject: Subject, files: Sequence[Ticks], tools: Tools) -> dict[str, Fact]:
    if tools.mode is Mode.KEEP:
        for ticks in files:
            # else a lost candle would come back beside other ticks
            refuse_other(tools.store, ticks.subject.ticks_key, ticks.metadata)
    for ticks in files:
        for key in ticks.candles:
            body, metadata = candle_object(ticks, key=key)
            commit(tools.store, key, body, metadata, mode=tools.mode)
    done = [commit(tools.store, ticks.subject.ticks_key, ticks.path, _told(ticks), mode=tools.mode) for ticks in files]
    spans, last = [ticks.span for ticks in files], files[-1]
    return {
        "rows": sum(span.rows for span in spans),
        "bytes": sum(committed.info.size for committed in done),
        "min_ts": min((span.min_ts for span in spans if span.min_ts is not None), default=None),
        "max_ts": max((span.max_ts for span in spans if span.max_ts is not None), default=None),
        "source_md5": last.metadata["source_md5"],
        "digest": last.metadata["digest"],
        "generation": done[-1].info.generation,
        "written": any(committed.written for committed in done),
        **last.oddities,
        **_parts(subject, files),
    }


def _told(ticks: Ticks) -> Mapping[str, str]:
    """Return the facts that go with the object: what is strange in it too, where anything is."""
    strange = " ".join(f"{name}={count}" for name, count in ticks.oddities.items())
    return {**ticks.metadata, **({"oddities": strange} if strange else {})}


def _parts(subject: Subject, files: Sequence[Ticks]) -> dict[str, Fact]:
    """Return what is to be said of the parts of an options chain: how many, and those that nobody expected."""
    if subject.data_type != OPTIONS_CHAIN:
        return {}
    expected = {part.key for part in parts_of(subject)}
    strange = [f"{t.subject.key} ({t.span.rows} rows)" for t in files if t.subject.key not in expected]
    return {"parts": len(files), **({"unexpected_parts": ", ".join(strange)} if strange else {})}


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
