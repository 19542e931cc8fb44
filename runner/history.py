"""What the ledgers of all runs of a stage say together: sizes to plan by, reasons to show.

They are other runs' ledgers: one that is gone meanwhile, or that nobody can read, is passed over.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

from runner import layout, ledger, run_record
from runner.errors import ConfigError, NotFoundError
from runner.ledger import Attempt
from runner.store import ObjectInfo, Store
from runner.task import Entry, Outcome

_READ_AT_ONCE = 16
_LEDGERS_READ = 2_000
_LEDGER_BYTES_READ = 256 << 20

log = logging.getLogger(__name__)

Days = tuple[date, date]
"""First and last day, both included."""


def newest_entries(store: Store, stage: str, days: Days | None = None) -> dict[tuple[str, str], tuple[str, Entry]]:
    """Return the newest (run, entry) of each (task id, data type) of these days, from the ledgers of a stage's runs.

    Settled entries without their facts. Reads the ledgers of the runs that were asked for any of the days (None: of
    all), a few at a time, and holds nothing but what it returns.
    """
    first, last = map(str, days or (date.min, date.max))
    newest: dict[tuple[str, str], tuple[str, Entry]] = {}
    for run, attempt in _attempts(store, _ledgers(store, stage, days)):
        for entry in attempt.entries:
            if first <= entry.task_id.split("/", 2)[1] <= last:
                kept = replace(entry, facts={}) if entry.outcome.settled else entry
                newest[entry.task_id, entry.data_type] = run, kept
    return newest


def duplicated(store: Store, stage: str, days: Days) -> int:
    """Count what was written by more than one attempt of a run that was asked for any of these days.

    By the rules of the commit nothing ever is.
    """
    found = _attempts(store, _ledgers(store, stage, days))
    entries = ((run, entry) for run, attempt in found for entry in attempt.entries if entry.facts.get("written"))
    return sum(n > 1 for n in Counter((run, entry.task_id, entry.data_type) for run, entry in entries).values())


def known_sizes(store: Store, stage: str, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the newest known compressed bytes of those (key, data type) that have any, from a stage's ledgers.

    Reads the newest ledgers first, one at a time, until all are known or enough has been read to go by.
    """
    unknown, sizes, left = set(wanted), dict[tuple[str, str], int](), _LEDGER_BYTES_READ
    if not unknown:
        return sizes
    for info in reversed(_ledgers(store, stage)[-_LEDGERS_READ:]):
        if not unknown or (left := left - info.size) < 0:
            break
        attempt = _read(store, info)
        for entry in reversed(attempt.entries if attempt else ()):
            key = entry.task_id.split("/", 2)[-1], entry.data_type
            size = entry.facts.get("source_bytes")
            if key in unknown and entry.outcome is Outcome.DONE and isinstance(size, int):
                sizes[key] = size
                unknown.discard(key)
    return sizes


def _ledgers(store: Store, stage: str, days: Days | None = None) -> list[ObjectInfo]:
    """Return the ledgers of a stage's runs, oldest first; of those alone that were asked for any of `days`."""
    found: list[ObjectInfo] = []
    beside: set[str] = set()
    for info in store.list(f"{layout.RUNS}/{stage}-"):
        if "/shards/" in info.key:
            found.append(info)
        elif days and info.key == layout.run_record(_run(info)) and not _overlap(run_record.days_of(store, info), days):
            beside.add(_run(info))
    return sorted((info for info in found if _run(info) not in beside), key=lambda info: info.updated)


def _overlap(asked: tuple[str, str] | None, days: Days) -> bool:
    return asked is None or (asked[0] <= str(days[1]) and str(days[0]) <= asked[1])


def _attempts(store: Store, ledgers: list[ObjectInfo]) -> Iterator[tuple[str, Attempt]]:
    # One after the other they would take minutes: each is small, and its store is far away.
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        for start in range(0, len(ledgers), _READ_AT_ONCE):
            some = ledgers[start : start + _READ_AT_ONCE]
            for info, attempt in zip(some, pool.map(lambda info: _read(store, info), some), strict=True):
                if attempt is not None:
                    yield _run(info), attempt


def _read(store: Store, info: ObjectInfo) -> Attempt | None:
    try:
        return ledger.read_attempt(store, info)
    except NotFoundError:
        return None  # its run was cleaned
    except ConfigError as e:
        log.warning("passed over: %s", e)
        return None


def _run(info: ObjectInfo) -> str:
    return info.key.split("/")[1]
