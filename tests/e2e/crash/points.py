"""Where a process may be made to die. Known to the tests and to the process; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Seam(StrEnum):
    """What is wrapped: the store's `get` and `put`, the `os.link` that commits a new object, a body on the wire."""

    GET = "get"
    PUT = "put"
    LINK = "link"
    BODY = "body"


class CrashPoint(StrEnum):
    PLAN_GET_BEFORE = "plan_get_before"
    PLAN_GET_AFTER = "plan_get_after"
    PROGRESS_BEFORE = "progress_before"
    PROGRESS_INSIDE = "progress_inside"
    PROGRESS_AFTER = "progress_after"
    BODY_BEFORE = "body_before"
    BODY_MIDDLE = "body_middle"
    BODY_AFTER = "body_after"
    CANDLE_FIRST_BEFORE = "candle_first_before"
    CANDLE_FIRST_INSIDE = "candle_first_inside"
    CANDLES_BETWEEN = "candles_between"
    CANDLE_LAST_AFTER = "candle_last_after"
    TICKS_BEFORE = "ticks_before"
    TICKS_INSIDE = "ticks_inside"
    TICKS_COMMITTED = "ticks_committed"
    TICKS_AFTER = "ticks_after"
    LEDGER_BEFORE = "ledger_before"
    LEDGER_INSIDE = "ledger_inside"
    LEDGER_COMMITTED = "ledger_committed"
    LEDGER_AFTER = "ledger_after"
    LOG_BEFORE = "log_before"
    LOG_AFTER = "log_after"
    TABLE_BEFORE = "table_before"
    TABLE_AFTER = "table_after"
    PLAN_PUT_BEFORE = "plan_put_before"
    PLAN_PUT_INSIDE = "plan_put_inside"
    PLAN_PUT_AFTER = "plan_put_after"
    RECORD_BEFORE = "record_before"
    RECORD_COMMITTED = "record_committed"
    RECORD_AFTER = "record_after"
    ENDING_BEFORE = "ending_before"
    ENDING_AFTER = "ending_after"


@dataclass(frozen=True, slots=True)
class Point:
    """One place: which calls of a seam, by a pattern searched in the key (or URL), and on which side of them.

    `share` is how much of a body has come. `hits` is how often every worker of the tests' job passes by, at least.
    """

    seam: Seam
    pattern: str
    after: bool = False
    share: float = 0.0
    hits: int = 1
    is_worker: bool = True


_TICKS, _CANDLES = r"raw_tick_data/.*\.parquet$", r"processed_candles/.*timeframe-{}/.*\.parquet$"
_BODIES, _TRADES = 4, 2

POINTS: Mapping[CrashPoint, Point] = {
    CrashPoint.PLAN_GET_BEFORE: Point(Seam.GET, r"/plan\.parquet$"),
    CrashPoint.PLAN_GET_AFTER: Point(Seam.GET, r"/plan\.parquet$", after=True),
    CrashPoint.PROGRESS_BEFORE: Point(Seam.PUT, r"_runs/.*/progress/"),
    CrashPoint.PROGRESS_INSIDE: Point(Seam.LINK, r"_runs/.*/progress/"),
    CrashPoint.PROGRESS_AFTER: Point(Seam.PUT, r"_runs/.*/progress/", after=True),
    CrashPoint.BODY_BEFORE: Point(Seam.BODY, r"\.csv\.gz$", share=0.0, hits=_BODIES),
    CrashPoint.BODY_MIDDLE: Point(Seam.BODY, r"\.csv\.gz$", share=0.5, hits=_BODIES),
    CrashPoint.BODY_AFTER: Point(Seam.BODY, r"\.csv\.gz$", share=1.0, hits=_BODIES),
    CrashPoint.CANDLE_FIRST_BEFORE: Point(Seam.PUT, _CANDLES.format("15s"), hits=_TRADES),
    CrashPoint.CANDLE_FIRST_INSIDE: Point(Seam.LINK, _CANDLES.format("15s"), hits=_TRADES),
    CrashPoint.CANDLES_BETWEEN: Point(Seam.PUT, _CANDLES.format("1h"), hits=_TRADES),
    CrashPoint.CANDLE_LAST_AFTER: Point(Seam.PUT, _CANDLES.format("24h"), after=True, hits=_TRADES),
    CrashPoint.TICKS_BEFORE: Point(Seam.PUT, _TICKS, hits=_BODIES),
    CrashPoint.TICKS_INSIDE: Point(Seam.LINK, _TICKS, hits=_BODIES),
    CrashPoint.TICKS_COMMITTED: Point(Seam.LINK, _TICKS, after=True, hits=_BODIES),
    CrashPoint.TICKS_AFTER: Point(Seam.PUT, _TICKS, after=True, hits=_BODIES),
    CrashPoint.LEDGER_BEFORE: Point(Seam.PUT, r"_runs/.*/shards/"),
    CrashPoint.LEDGER_INSIDE: Point(Seam.LINK, r"_runs/.*/shards/"),
    CrashPoint.LEDGER_COMMITTED: Point(Seam.LINK, r"_runs/.*/shards/", after=True),
    CrashPoint.LEDGER_AFTER: Point(Seam.PUT, r"_runs/.*/shards/", after=True),
    CrashPoint.LOG_BEFORE: Point(Seam.PUT, r"_runs/.*/logs/"),
    CrashPoint.LOG_AFTER: Point(Seam.PUT, r"_runs/.*/logs/", after=True),
    CrashPoint.TABLE_BEFORE: Point(Seam.PUT, r"/instruments\.parquet$", is_worker=False),
    CrashPoint.TABLE_AFTER: Point(Seam.PUT, r"/instruments\.parquet$", after=True, is_worker=False),
    CrashPoint.PLAN_PUT_BEFORE: Point(Seam.PUT, r"/plan\.parquet$", is_worker=False),
    CrashPoint.PLAN_PUT_INSIDE: Point(Seam.LINK, r"/plan\.parquet$", is_worker=False),
    CrashPoint.PLAN_PUT_AFTER: Point(Seam.PUT, r"/plan\.parquet$", after=True, is_worker=False),
    CrashPoint.RECORD_BEFORE: Point(Seam.PUT, r"/run\.json$", is_worker=False),
    CrashPoint.RECORD_COMMITTED: Point(Seam.LINK, r"/run\.json$", after=True, is_worker=False),
    CrashPoint.RECORD_AFTER: Point(Seam.PUT, r"/run\.json$", after=True, is_worker=False),
    CrashPoint.ENDING_BEFORE: Point(Seam.PUT, r"/end\.json$", is_worker=False),
    CrashPoint.ENDING_AFTER: Point(Seam.PUT, r"/end\.json$", after=True, is_worker=False),
}
WORKER_POINTS = tuple(point for point in CrashPoint if POINTS[point].is_worker)
SUBMIT_POINTS = tuple(point for point in CrashPoint if not POINTS[point].is_worker)
