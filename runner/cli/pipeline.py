"""`pipeline`: days brought to completeness, stage after stage, as often as it is asked for and from wherever."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from runner.cli import follow, here
from runner.cli.carriers import Carriers
from runner.cli.given import RUN, SELECTION, SOURCE, WHERE, Given, takes
from runner.cli.output import Output, say, show
from runner.cli.place import Memory, Placement, Values, layers
from runner.cli.requests import placed
from runner.cli.steps import leading
from runner.errors import DrainedError, Exit, SpecError, WorkerExit
from runner.pipeline import AUTO, DayEnd, Means, Source, Terms, Verdict, capped, days_of, newest, run_days
from runner.report.live import View
from runner.report.tables import table
from runner.run_record import RunRecord
from runner.runs import Watch
from runner.spec import RunSpec
from runner.store import Store

Day = Annotated[
    str | None,
    typer.Option(
        "--day", metavar="DAYS", help="auto, a UTC day, or a range D..D. Default: the dates given, else auto."
    ),
]
Lookback = Annotated[int, typer.Option("--lookback-days", min=1, max=366, metavar="N", help="auto: days looked at.")]
Deadline = Annotated[
    float, typer.Option("--deadline", min=0, metavar="SECONDS", help="Longest wait for the export of a day.")
]
Poll = Annotated[float, typer.Option("--poll", min=0.01, metavar="SECONDS", help="Between two looks for the export.")]
AllowIncomplete = Annotated[
    bool, typer.Option("--allow-incomplete", help="Make candles of venues that are not complete too.")
]
JOB_VARIABLE = "RUNNER_JOB"
"""The name of the Job whose pod this is, where it is one's: its schedule tells the day."""

_NEW = timedelta(days=2)
_WHOLE = (Verdict.COMPLETE, Verdict.NOTHING)
_RUN = tuple(key for key in RUN if key not in ("select", "parent"))
_CODES = {
    Verdict.REFUSED: Exit.NOT_ALLOWED,
    Verdict.CANCELLED: Exit.INTERRUPTED,
    Verdict.INCOMPLETE: Exit.INCOMPLETE,
    Verdict.PENDING: WorkerExit.TRANSIENT,
}
"""Gravest first."""


@takes(*SELECTION, *_RUN, *WHERE, *SOURCE)
def pipeline(  # noqa: PLR0913 options
    *,
    day: Day = None,
    lookback_days: Lookback = 14,
    deadline: Deadline = 14_400.0,
    poll: Poll = 60.0,
    allow_incomplete: AllowIncomplete = False,
    placement: Placement = None,
    values: Values = None,
    memory: Memory = None,
    output: Output = "table",
    given: Given,
) -> int:
    """Do what days lack: instruments, availability, download, validate, candles, sealing of the day before, validate.

    auto is the day before today's (in a Job's pod: before its schedule's) and those before it, --lookback-days in all;
    of a source whose exports ended longer ago, the last ones.
    Exit 3 when a day is not complete, 75 when it is not exported by the deadline.
    """
    over, given = layers(placement, values, memory), given.over(values)
    asked = given.spec()
    store = here.open_spec_store(asked)
    carriers = Carriers(store, given, over)
    spec = placed(carriers, asked, over)
    days = days_of(_days(day, given, spec), lambda: _now(carriers, spec, lookback_days), lookback_days)
    with here.stoppable() as stop, here.view(leading(given)) as view:
        here.start_logging(spec)
        means = _means(spec, store, carriers, stop, view)
        try:
            ends = list(run_days(means, spec, Terms(deadline, poll, allow_incomplete), days))
        except DrainedError as e:
            say(f"{e}")
            return WorkerExit.DRAINED if stop.by == signal.SIGTERM else Exit.INTERRUPTED
    if ends and ends[-1].day >= datetime.now(UTC).date() - _NEW and ends[-1].verdict in _WHOLE:
        say(f"pipeline newest={ends[-1].day} verdict=complete")  # an alert listens for it, whatever the log level
    return _tell(ends, output)


def _days(day: str | None, given: Given, spec: RunSpec) -> str:
    """Return the days as --day writes them."""
    if day is not None:
        if given.flags.get("startDate") or given.flags.get("endDate"):
            raise SpecError("flags --day and --start-date both tell the days; give one of them")
        return day
    return f"{spec.start_date}..{spec.end_date or spec.start_date}" if spec.start_date else AUTO


def _now(carriers: Carriers, spec: RunSpec, lookback_days: int) -> datetime:
    """Return the time that `auto` goes by: in a Job's pod that of its schedule, so that a late pod does its own day."""
    job = os.environ.get(JOB_VARIABLE)
    now = carriers.cluster(spec).scheduled(job) if job else datetime.now(UTC)
    found = capped(now, newest(spec, here.open_tardis(spec)), lookback_days)
    if found != now:
        say(f"source exports end before {found.date()}: auto goes by that day")
    return found


def _means(spec: RunSpec, store: Store, carriers: Carriers, stop: here.Stop, view: View) -> Means:
    def shown(record: RunRecord) -> Any:
        return follow.shown(Watch(store, record), view)

    return Means(store, Source(lambda: here.open_tardis(spec)), carriers.same, stop.is_set, shown)


def _tell(ends: list[DayEnd], output: str) -> int:
    """Print what became of the days, and a line for everything that is missing; return the gravest exit code."""
    rows = [(end.day, end.verdict, len(end.lacks) or "-", end.run or "-") for end in ends]
    show(
        output,
        {"kind": "Pipeline", "days": [_document(end) for end in ends]},
        table=table(("DAY", "VERDICT", "MISSING", "RUN"), rows),
        names=(end.run for end in ends if end.run),
    )
    for end in ends:
        if end.why and not end.lacks:
            say(f"{end.day} {end.why}")
        for lack in end.lacks:
            more = f" and {lack.keys - 1} more" if lack.keys > 1 else ""
            say(f"{lack.day} {lack.venue} {lack.data_type} {lack.key}{more}: {lack.reason}; {lack.command}")
    found = {end.verdict for end in ends}
    return next((int(code) for verdict, code in _CODES.items() if verdict in found), int(Exit.DONE))


def _document(end: DayEnd) -> dict[str, Any]:
    return {
        "day": str(end.day),
        "verdict": str(end.verdict),
        "run": end.run,
        "why": end.why,
        "missing": [
            {
                "day": str(lack.day),
                "venue": lack.venue,
                "dataType": lack.data_type,
                "keys": lack.keys,
                "key": lack.key,
                "reason": lack.reason,
                "command": lack.command,
            }
            for lack in end.lacks
        ],
    }
