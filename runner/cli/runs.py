"""`list`, `status`, `wait`, `logs`, `cancel`, `clean`: runs that exist, wherever they are carried out."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from runner import run_record, runs
from runner.backends.sight import Sight
from runner.cli import follow, here
from runner.cli.carriers import Carriers
from runner.cli.given import CLUSTER, WHERE, Given, takes
from runner.cli.output import API_VERSION, Output, emit, say, say_next, show
from runner.cli.steps import leading, next_step
from runner.cli.told import RunName, print_run, tell_end
from runner.errors import ConfigError, Exit, RunnerError, SpecError
from runner.logs import escape
from runner.report import documents
from runner.report import run as report
from runner.report.tables import table
from runner.run_record import RunRecord
from runner.runs import Carrier, LogQuery, LogText, RunStatus, Watch
from runner.spec.values import choice
from runner.store import Store
from runner.task import Stage


def _stage(value: str | None) -> str | None:
    try:
        return None if value is None else choice("stage", tuple(Stage))(value)
    except ValueError as e:
        raise SpecError(f"flag --stage: {e}") from e


MaybeRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's id or the beginning of it. Default: the newest.", show_default=False),
]
Follow = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end and return its exit code.")]
Shard = Annotated[int | None, typer.Option("--shard", min=0, metavar="N", help="Only this shard.", show_default=False)]
Failed = Annotated[bool, typer.Option("--failed", help="Only attempts that did not end well.")]
FollowLogs = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is new until the run ends.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Give up waiting: exit 6.", show_default=False),
]
Abandon = Annotated[
    bool, typer.Option("--abandon", help="End it in the store alone: its cluster is gone and cannot be asked.")
]
OfStage = Annotated[
    str | None,
    typer.Option("--stage", metavar="STAGE", callback=_stage, help=f"Only of {', '.join(Stage)}.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


_LOGS_LOOK_S = 2.0


@takes(*WHERE, *CLUSTER)
def list_runs(*, stage: OfStage = None, output: Output = "table", given: Given) -> int:
    """List the runs of a store, newest first."""
    store = here.open_spec_store(given.spec())
    carriers = Carriers(store, given)
    records, unreadable = _records(store, f"{stage}-" if stage else "")
    found = [Watch(store, each).status(_sight(carriers, each), with_failures=False) for each in records]
    show(
        output,
        {"kind": "RunList", "runs": list(map(_without_details, records, found))},
        table=table(("RUN", "STATE", "TASKS", "FAILED", "SHARDS", "STARTED", "DAYS"), map(_row, records, found)),
        names=(status.id for status in found),
    )
    for why in unreadable:
        say(f"error: {why}")
    if not found and not unreadable:
        say_next("no runs in this store yet; runner submit starts one")
    return Exit.FAILED if unreadable else Exit.DONE


def _records(store: Store, prefix: str) -> tuple[list[RunRecord], list[str]]:
    """Return the runs of a store, newest first, and why others cannot be read."""
    found, unreadable = [], []
    for run in run_record.run_ids(store, prefix):
        try:
            found.append(run_record.get_run(store, run))
        except ConfigError as e:
            unreadable.append(str(e))
    return sorted(found, key=_newest_first), unreadable


@takes(*WHERE, *CLUSTER)
def status(run: MaybeRun = None, *, watch: Follow = False, output: Output = "table", given: Given) -> int:
    """Show how far a run is, its shards as a grid, and what failed why."""
    spec = given.spec()
    store = here.open_spec_store(spec)
    record = here.find_run(store, run)
    carrier = Carriers(store, given).of(record)
    if watch:
        code, found = follow.follow(carrier, record, store, given)
        print_run(found, output)
        tell_end(record, found, code, given)
        return code
    found = Watch(store, record).status(carrier.settle(record))
    size = shutil.get_terminal_size((100, 40))
    picture = report.text(replace(found, causes=(), failures=()), width=size.columns, height=size.lines - 1)
    # Never cut: there are commands to paste in it.
    why = report.explained(found, places=leading(given))
    show(output, documents.run_document(found), table="\n".join((picture.rstrip("\n"), *why)), names=[found.id])
    if (step := next_step(record, found, follow.verdict_of(store, record), given)) is not None:
        say_next(step)
    return Exit.DONE


@takes(*WHERE, *CLUSTER)
def wait(run: RunName, *, timeout: Timeout = None, output: Output = "table", given: Given) -> int:
    """Wait for a run's end and return its verdict: 0 all settled, 3 some failed or pending, 4 refused, 6 timed out."""
    store = here.open_spec_store(given.spec())
    record = here.find_run(store, run)
    limit_s = float("inf") if timeout is None else timeout
    code, found = follow.follow(Carriers(store, given).of(record), record, store, given, timeout_s=limit_s)
    print_run(found, output)
    tell_end(record, found, code, given)
    return code


@takes(*WHERE, *CLUSTER, short_file=False)
def logs(  # noqa: PLR0913 options
    run: MaybeRun = None,
    *,
    shard: Shard = None,
    failed: Failed = False,
    follow_on: FollowLogs = False,
    output: Output = "table",
    given: Given,
) -> int:
    """Show the logs of a run's shards, oldest attempt first; -f goes on with what is new, of all shards together."""
    store = here.open_spec_store(given.spec())
    record = here.find_run(store, run)
    if shard is not None and shard >= record.shards:
        raise SpecError(f"flag --shard {shard}: run {record.id} has shards 0 to {record.shards - 1}")
    here.start_logging(given.spec())
    carrier, query = Carriers(store, given).of(record), LogQuery(shard, failed)
    if follow_on:
        return _follow_logs(carrier, record, query, output)
    found, is_there = carrier.logs(record, query)(), False
    if output in ("json", "yaml"):
        lines = [{"shard": each.shard, "attempt": each.attempt, "text": each.text} for each in found]
        show(output, {"kind": "Logs", "run": record.id, "logs": lines}, table="", names=())
        is_there = bool(lines)
    else:
        for each in found:  # one at a time: a run has thousands
            is_there = True
            emit(f"{each.shard}/{each.attempt}" if output == "name" else _log(each))
    if not is_there:
        say(f"no such logs yet; a log is written when an attempt at a shard ends: runner status {record.id}")
    return Exit.DONE


def _follow_logs(carrier: Carrier, record: RunRecord, query: LogQuery, output: str) -> int:
    """Print what is new until the run has ended, or Ctrl-C; as JSON a document a line."""
    with here.stoppable() as stop, carrier.watching(record) as sight:
        new, goes_on = carrier.logs(record, query, stop.wait), True
        while goes_on and not stop.is_set():
            # Asked first, so that what was written before the end is read after it.
            goes_on = sight().alive
            for each in new():
                emit(_line(record, each) if output == "json" else _lines(each))
            if goes_on:
                stop.wait(_LOGS_LOOK_S)
    return Exit.INTERRUPTED if stop.is_set() else Exit.DONE


@takes(*WHERE, *CLUSTER)
def cancel(run: RunName, *, abandon: Abandon = False, output: Output = "table", given: Given) -> int:
    """Stop a run and wait until its workers have drained; what is done stays."""
    spec = given.spec()
    store = here.open_spec_store(spec)
    record = here.find_run(store, run)
    carrier = Carriers(store, given).of(record)
    if not abandon:
        carrier.settle(record)  # refuses where it is not; writes the end that it may have had
    was_running = runs.cancel(store, record.id)
    if was_running:
        say(f"run   cancelling {record.id}; what is done stays")
        with here.stoppable() as stop:
            # Nobody at work on it: then this process ends it; else it waits for whoever is.
            if abandon:
                carrier.abandon(record)
            else:
                carrier.cancel(record, spec, stop.is_set)
        if stop.is_set():
            return Exit.INTERRUPTED
    found = Watch(store, record).status(carrier.settle(record))
    print_run(found, output)
    if (step := next_step(record, found, follow.verdict_of(store, record), given)) is not None:
        say_next(step)
    return Exit.DONE


@takes(*WHERE, *CLUSTER)
def clean(run: RunName, *, yes: Yes = False, output: Output = "table", given: Given) -> int:
    """Remove the records of a run that has ended: its plan, ledgers and logs. Data is never touched."""
    store = here.open_spec_store(given.spec())
    if (found := here.find_id(store, run)) != run:
        raise SpecError(f"clean: {run} is not the whole id; if you mean {found}, give that")
    if not yes:
        _ask(f"Remove the records of run {run} from {store.url} (its data stays)?")
    count = _clean(store, run, given)
    document = {"kind": "Cleaned", "run": run, "objects": count}
    show(output, document, table=f"removed {count} objects of run {run}", names=[run])
    return Exit.DONE


def _clean(store: Store, run: str, given: Given) -> int:
    try:
        record = run_record.get_run(store, run)
    except ConfigError:
        # What carries it out, if anything still does, is not known; a record like this stops every other command.
        return runs.clean(store, run, is_readable=False)
    return Carriers(store, given).of(record).clean(run)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise SpecError("clean removes things and there is no terminal to ask on; give --yes")
    if not typer.confirm(question, err=True):
        raise SpecError("clean: nothing was removed, because you said no")


def _newest_first(record: RunRecord) -> tuple[float, str]:
    return (-record.created.timestamp() if record.created else 0.0, record.id)


def _row(record: RunRecord, status: RunStatus) -> tuple[object, ...]:
    started = status.started.strftime("%Y-%m-%d %H:%M:%S") if status.started else "-"
    tasks, days = f"{status.done}/{status.total}", "..".join(dict.fromkeys(record.request["days"]))
    return (status.id, status.state, tasks, status.failed, len(status.shards), started, days)


def _without_details(record: RunRecord, status: RunStatus) -> dict[str, Any]:
    document = {key: value for key, value in documents.run_document(status).items() if key != "failures"}
    return {**document, "shards": len(status.shards), "days": list(record.request["days"])}


def _sight(carriers: Carriers, record: RunRecord) -> Sight:
    """Return what is seen of a run; one that cannot be seen from here is told of, and stops no list."""
    try:
        return carriers.of(record).settle(record)
    except RunnerError as e:
        say(f"{record.id} is not asked after: {e}")
        return Sight()


def _log(each: LogText) -> str:
    return f"--- shard {each.shard} attempt {each.attempt}\n{_lines(each)}"


def _lines(each: LogText) -> str:
    return "\n".join(escape(line) for line in each.text.splitlines())


def _line(record: RunRecord, each: LogText) -> str:
    document = {"apiVersion": API_VERSION, "kind": "Log", "run": record.id}
    return json.dumps({**document, "shard": each.shard, "attempt": each.attempt, "text": each.text})
