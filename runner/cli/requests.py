"""`plan`, `submit`, `retry`: requests, shown or carried out."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from runner.cli import follow, here
from runner.cli.given import RUN, SELECTION, SOURCE, WHERE, Given, selection, takes
from runner.cli.output import Output, say, say_next, show
from runner.cli.steps import next_step, places
from runner.cli.steps import selection as selection_words
from runner.errors import Exit
from runner.ledger import RunRecord
from runner.report import documents, plans
from runner.report import run as report
from runner.runs import RunStatus, State, Submission, Watch, draft
from runner.runs import submit as submit_run
from runner.spec import RunSpec
from runner.store import Store

Stage = Annotated[str | None, typer.Argument(metavar="[STAGE]", help="download or validate.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", "--force-download", help="Do everything again: --select all.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or the beginning of it.", show_default=False)]
_RESOURCES = tuple(key for key in RUN if key not in ("select", "parent"))


@takes(*SELECTION, *RUN, *WHERE, *SOURCE)
def plan(stage: Stage = None, *, force: Force = False, output: Output = "table", given: Given) -> int:
    """Show what submitting this request would do: its run, tasks, shards and bytes. Starts nothing."""
    spec = given.also(stage=stage, select=selection(given.flags["select"], force=force)).spec()
    here.start_logging(spec)
    drafted = draft(spec, here.open_spec_store(spec), here.open_tardis(spec))
    show(
        output,
        documents.plan_document(drafted, spec.parallelism),
        table=plans.screen(drafted, spec.parallelism),
        names=(task.id for task in drafted.plan.tasks),
    )
    if drafted.plan.shards:
        words = [spec.stage, *selection_words(drafted.request), "--shards", str(spec.shards), *places(given)]
        say_next(f"runner submit {shlex.join(words)}")
    return Exit.DONE


@takes(*SELECTION, *RUN, *WHERE, *SOURCE)
def submit(stage: Stage = None, *, force: Force = False, output: Output = "table", given: Given) -> int:
    """Carry a request out here, attach to the run of it that is at work, or resume the one that stopped."""
    return carry_out(given.also(stage=stage, select=selection(given.flags["select"], force=force)), output)


@takes(*_RESOURCES, *WHERE, *SOURCE)
def retry(run: RunName, *, output: Output = "table", given: Given) -> int:
    """Run again, as a new small run, the tasks of RUN that have no settled outcome."""
    record = here.find_run(here.open_spec_store(given.spec()), run)
    asked = {key: record.request[key] for key in ("stage", *SELECTION[2:])}
    first, last = record.request["days"]
    again = given.also(**asked, startDate=first, endDate=last, select="failed", parent=record.id)
    return carry_out(again, output)


def carry_out(given: Given, output: str) -> int:
    """Submit a request, follow its run to the end and print what became of it; return the run's verdict."""
    spec = given.spec()
    here.start_logging(spec)
    store = here.open_spec_store(spec)
    submission = submit_run(spec, store, here.open_tardis(spec))
    record = submission.record
    _tell_begin(submission, spec, store)
    if submission.state is State.NOTHING or record is None:
        _print_nothing(record, store, output)
        return Exit.DONE
    if submission.state is State.FAILED:
        status = Watch(store, record).status(alive=False)
        code = Exit.INCOMPLETE
    else:
        code, status = follow.carry_out(record, spec, store)
    print_run(status, output)
    tell_end(record, status, code, given)
    return code


def print_run(status: RunStatus, output: str) -> None:
    """Print a run in the form asked for; as a table it is one line."""
    show(output, documents.run_document(status), table=report.line(status), names=[status.id])


def tell_end(record: RunRecord, status: RunStatus, code: Exit, given: Given) -> None:
    """Say on stderr what failed and what there is to do next."""
    for text in report.failures(status, places=shlex.join(places(given))):
        say(text)
    if (step := next_step(record, status, code, given)) is not None:
        say_next(step)


def _print_nothing(record: RunRecord | None, store: Store, output: str) -> None:
    if record is not None:
        print_run(Watch(store, record).status(alive=False), output)
    else:
        show(output, {"kind": "Run", "id": None, "state": str(State.NOTHING)}, table="", names=[])


def _tell_begin(submission: Submission, spec: RunSpec, store: Store) -> None:
    record, drafted = submission.record, submission.draft
    if drafted is not None:
        asked = f" · {spec.shards} shards asked for" if 0 < len(drafted.plan.shards) < spec.shards else ""
        say(f"plan  {plans.line(drafted, spec.parallelism)}{asked}")
    if submission.state is State.CREATED and record is not None:
        say(f"run   {record.id}")
    elif submission.state is State.UNFINISHED and record is not None:
        how = "attached to" if here.local(store).alive(record.id) else "resuming"
        other = f" with its own {record.shards} shards" if record.shards != spec.shards else ""
        say(f"run   {how} {record.id}{other}")
    elif submission.state is State.FAILED and record is not None:
        say(f"run   {record.id} has ended, and some of its tasks failed")
