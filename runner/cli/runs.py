"""`list`, `status`, `logs`, `cancel`, `clean`: runs that exist."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated, Any

import typer

from runner import ledger, runs
from runner.cli import follow, here
from runner.cli.given import WHERE, Given, takes
from runner.cli.output import Output, say, say_next, show
from runner.cli.requests import RunName, print_run, tell_end
from runner.cli.steps import next_step
from runner.errors import Exit, SpecError
from runner.ledger import RunRecord
from runner.logs import escape
from runner.report import documents
from runner.report import run as report
from runner.report.tables import table
from runner.runs import RunStatus, Watch

MaybeRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's id or the beginning of it. Default: the newest.", show_default=False),
]
Follow = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end and return its exit code.")]
Shard = Annotated[int | None, typer.Option("--shard", min=0, metavar="N", help="Only this shard.", show_default=False)]
Failed = Annotated[bool, typer.Option("--failed", help="Only attempts that did not end well.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@takes(*WHERE)
def list_runs(*, output: Output = "table", given: Given) -> int:
    """List the runs of a store, newest first."""
    store = here.open_spec_store(given.spec())
    local = here.local(store)
    records = sorted((ledger.get_run(store, run) for run in ledger.run_ids(store)), key=_newest_first)
    found = [Watch(store, record).status(alive=local.alive(record.id), with_failures=False) for record in records]
    show(
        output,
        {"kind": "RunList", "runs": [_without_details(status) for status in found]},
        table=table(("RUN", "STATE", "TASKS", "FAILED", "SHARDS", "STARTED"), map(_row, found)),
        names=(status.id for status in found),
    )
    if not found:
        say_next("no runs in this store yet; runner submit starts one")
    return Exit.DONE


@takes(*WHERE)
def status(run: MaybeRun = None, *, watch: Follow = False, output: Output = "table", given: Given) -> int:
    """Show how far a run is, its shards as a grid, and what failed why."""
    spec = given.spec()
    store = here.open_spec_store(spec)
    record = here.find_run(store, run)
    if watch:
        code, found = follow.follow(record, store)
        print_run(found, output)
        tell_end(record, found, code, given)
        return code
    found = Watch(store, record).status(alive=here.local(store).alive(record.id))
    size = shutil.get_terminal_size((100, 40))
    picture = report.text(found, width=size.columns, height=size.lines - 1)
    show(output, documents.run_document(found), table=picture, names=[found.id])
    if (step := next_step(record, found, follow.verdict_of(store, record), given)) is not None:
        say_next(step)
    return Exit.DONE


@takes(*WHERE)
def logs(
    run: MaybeRun = None,
    *,
    shard: Shard = None,
    failed: Failed = False,
    output: Output = "table",
    given: Given,
) -> int:
    """Show the logs of a run's shards, oldest attempt first."""
    store = here.open_spec_store(given.spec())
    record = here.find_run(store, run)
    found = list(runs.logs(store, record.id, shard=shard, failed=failed))
    if shard is not None and shard >= record.shards:
        raise SpecError(f"flag --shard {shard}: run {record.id} has shards 0 to {record.shards - 1}")
    lines = [{"shard": number, "attempt": attempt, "text": text} for number, attempt, text in found]
    show(
        output,
        {"kind": "Logs", "run": record.id, "logs": lines},
        table="\n".join(_log(*each) for each in found),
        names=(f"{number}/{attempt}" for number, attempt, _ in found),
    )
    if not found:
        say(f"no such logs yet; a log is written when an attempt at a shard ends: runner status {record.id}")
    return Exit.DONE


@takes(*WHERE)
def cancel(run: RunName, *, output: Output = "table", given: Given) -> int:
    """Stop a run and wait until its workers have drained; what is done stays."""
    spec = given.spec()
    store = here.open_spec_store(spec)
    record = here.find_run(store, run)
    was_running = runs.cancel(store, record.id)
    if was_running:
        say(f"run   cancelling {record.id}; what is done stays")
        with here.stoppable() as stop:
            # Nobody at work on it: then this process ends it; else it waits for whoever is.
            code = here.local(store).carry_out(record, spec, stop.is_set, lambda _: None)
        if stop.is_set():
            return code
    found = Watch(store, record).status(alive=False)
    print_run(found, output)
    if (step := next_step(record, found, follow.verdict_of(store, record), given)) is not None:
        say_next(step)
    return Exit.DONE


@takes(*WHERE)
def clean(run: RunName, *, yes: Yes = False, output: Output = "table", given: Given) -> int:
    """Remove the records of a run that has ended: its plan, ledgers and logs. Data is never touched."""
    store = here.open_spec_store(given.spec())
    record = here.find_run(store, run)
    if record.id != run:
        raise SpecError(f"clean: {run} is not the whole id; if you mean {record.id}, give that")
    if not yes:
        _ask(f"Remove the records of run {record.id} from {store.url} (its data stays)?")
    count = runs.clean(store, record.id)
    document = {"kind": "Cleaned", "run": record.id, "objects": count}
    show(output, document, table=f"removed {count} objects of run {record.id}", names=[record.id])
    return Exit.DONE


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise SpecError("clean removes things and there is no terminal to ask on; give --yes")
    if not typer.confirm(question, err=True):
        raise SpecError("clean: nothing was removed, because you said no")


def _newest_first(record: RunRecord) -> tuple[float, str]:
    return (-record.created.timestamp() if record.created else 0.0, record.id)


def _row(status: RunStatus) -> tuple[object, ...]:
    started = status.started.strftime("%Y-%m-%d %H:%M:%S") if status.started else "-"
    return (status.id, status.state, f"{status.done}/{status.total}", status.failed, len(status.shards), started)


def _without_details(status: RunStatus) -> dict[str, Any]:
    document = documents.run_document(status)
    return {**{key: value for key, value in document.items() if key != "failures"}, "shards": len(status.shards)}


def _log(shard: int, attempt: str, text: str) -> str:
    body = "\n".join(escape(line) for line in text.splitlines())
    return f"--- shard {shard} attempt {attempt}\n{body}"
