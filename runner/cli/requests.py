"""`plan`, `submit`, `retry`: requests, shown or carried out."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from runner import task
from runner.backends.kubernetes.values import Layer
from runner.backends.sight import Sight
from runner.cli import dry, follow, here
from runner.cli.carriers import Carriers
from runner.cli.given import RUN, SELECTION, SOURCE, WHERE, Given, selection, takes
from runner.cli.output import Output, say, say_next, show
from runner.cli.place import Memory, Placement, Values, layers
from runner.cli.steps import next_pass, pasted, places
from runner.cli.steps import selection as selection_words
from runner.cli.told import RunName, print_run, tell_end
from runner.errors import Exit, SpecError
from runner.report import plans
from runner.run_record import RunRecord
from runner.runs import Carrier, Watch, place
from runner.runs.request import draft
from runner.runs.submit import State, Submission
from runner.runs.submit import submit as submit_run
from runner.spec import Backend, RunSpec
from runner.spec.model import fields
from runner.spec.resolve import PLACE
from runner.store import Store

Stage = Annotated[
    str | None,
    typer.Argument(metavar="[STAGE]", help=f"{', '.join(task.WORKER_STAGES)}. Default: download.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", "--force-download", help="Do everything again: --select all.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow a cluster's run to its end and return its verdict.")]
_OF_A_RUN = frozenset(key.split(".")[0] for key in fields()) - set(WHERE)
"""What a retry takes from its run; where the store is now, and how much is told, the command at hand says."""
_RESOURCES = tuple(key for key in RUN if key not in ("select", "parent"))


@takes(*SELECTION, *RUN, *WHERE, *SOURCE)
def plan(stage: Stage = None, *, force: Force = False, output: Output = "table", given: Given) -> int:
    """Show what submitting this request would do: its run, tasks, shards and bytes. Starts nothing."""
    spec = given.also(stage=stage, select=selection(given.flags["select"], force=force)).spec()
    here.start_logging(spec)
    drafted = draft(spec, here.open_spec_store(spec), here.open_tardis(spec))
    # Of millions of tasks, so only where it is printed.
    document = plans.document(drafted, spec.parallelism) if output in ("json", "yaml") else {}
    show(
        output,
        document,
        table=plans.screen(drafted, spec.parallelism),
        names=(task.id for task in drafted.plan.tasks),
    )
    if drafted.plan.shards:
        words = [spec.stage, *selection_words(drafted.request), "--shards", str(spec.shards), *places(given, "submit")]
        say_next(f"runner submit {shlex.join([*words, *pasted(given, PLACE)])}")
    return Exit.DONE


@takes(*SELECTION, *RUN, *WHERE, *SOURCE)
def submit(  # noqa: PLR0913 options
    stage: Stage = None,
    *,
    force: Force = False,
    wait: Wait = False,
    dry_run: dry.DryRun = "none",
    placement: Placement = None,
    values: Values = None,
    memory: Memory = None,
    output: Output = "table",
    given: Given,
) -> int:
    """Carry a request out here or on a cluster, attach to its run that is at work, or resume the one that stopped.

    On a cluster it returns once the run is recorded and its Job is there; --wait follows it.
    """
    asked = given.over(values).also(stage=stage, select=selection(given.flags["select"], force=force))
    over = layers(placement, values, memory)
    if dry_run != "none":
        return dry.show_job(dry_run, asked, over)
    return carry_out(asked, output, over, wait=wait)


@takes(*_RESOURCES, *WHERE, *SOURCE)
def retry(  # noqa: PLR0913 options
    run: RunName,
    *,
    wait: Wait = False,
    placement: Placement = None,
    values: Values = None,
    memory: Memory = None,
    output: Output = "table",
    given: Given,
) -> int:
    """Run again, as a new small run, the tasks of RUN that have no settled outcome.

    It is carried out as RUN was, at the same source and as deep, and its pods get the values that those of RUN had;
    options, --file, --placement, --values and --memory lie over that.
    """
    store = here.open_spec_store(given.spec())
    record = here.find_run(store, run)
    if record.request["stage"] == task.Stage.PIPELINE:
        raise SpecError(f"run {record.id} is a pipeline, whose next pass is: {next_pass(record, given)}")
    asked = {key: record.request[key] for key in ("stage", *SELECTION[2:])}
    first, last = record.request["days"]
    began_as = {key: value for key, value in record.spec.items() if key in _OF_A_RUN and value is not None}
    again = given.over(values).under(f"run {record.id}", began_as)
    again = again.also(**asked, startDate=first, endDate=last, select="failed", parent=record.id)
    began = place.read(store, record.id)
    over = [*(began.values if began else ()), *layers(placement, values, memory)]
    return carry_out(again, output, over, wait=wait)


def carry_out(given: Given, output: str, over: list[Layer], *, wait: bool) -> int:
    """Submit a request, have its run carried out and print what became of it; return the run's verdict."""
    store = here.open_spec_store(given.spec())
    carriers = Carriers(store, given, over)
    asked = given.spec()
    spec = placed(carriers, asked, over)
    submission = submit_run(spec, store, here.open_tardis(spec), lambda record: carriers.of(record).settle(record))
    record = submission.record
    if submission.state is State.NOTHING or record is None:
        _tell_begin(submission, spec)
        _print_nothing(record, store, output)
        return Exit.DONE
    carrier = carriers.same(record, spec) if submission.state is not State.FAILED else carriers.of(record)
    _tell_begin(submission, spec, carrier)
    if submission.state is State.FAILED:
        status, code = Watch(store, record).status(carrier.settle(record)), Exit.INCOMPLETE
    elif not wait and carrier.start(record, spec):
        status, code = Watch(store, record).status(carrier.settle(record)), Exit.DONE
    else:
        code, status = follow.carry_out(carrier, record, spec, store, given)
    print_run(status, output)
    tell_end(record, status, code, given)
    return code


def _print_nothing(record: RunRecord | None, store: Store, output: str) -> None:
    if record is not None:
        print_run(Watch(store, record).status(Sight(alive=False)), output)
    else:
        show(output, {"kind": "Run", "id": None, "state": str(State.NOTHING)}, table="", names=[])


def placed(carriers: Carriers, asked: RunSpec, over: list[Layer]) -> RunSpec:
    """Return the spec with where it is carried out, which the user is told before anything starts there."""
    if over and asked.backend is Backend.LOCAL:
        raise SpecError("flags --placement, --values and --memory are for a cluster's pods: give --backend kubernetes")
    spec = carriers.for_spec(asked).placed(asked)
    here.start_logging(spec)
    if where := carriers.for_spec(spec).place(spec):
        say(f"where {where} · store {spec.store}")
    return spec


def _tell_begin(submission: Submission, spec: RunSpec, carrier: Carrier | None = None) -> None:
    record, drafted = submission.record, submission.draft
    if drafted is not None:
        asked = f" · {spec.shards} shards asked for" if 0 < len(drafted.plan.shards) < spec.shards else ""
        say(f"plan  {plans.line(drafted, spec.parallelism)}{asked}")
    if submission.state is State.CREATED and record is not None:
        say(f"run   {record.id}")
    elif submission.state is State.UNFINISHED and record is not None and carrier is not None:
        how = "attached to" if carrier.settle(record).alive else "resuming"
        other = f" with its own {record.shards} shards" if record.shards != spec.shards else ""
        say(f"run   {how} {record.id}{other}")
    elif submission.state is State.FAILED and record is not None:
        say(f"run   {record.id} has ended, and some of its tasks failed")
