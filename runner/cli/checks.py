"""`validate`, `explain`: what should be in the store against what is."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from runner.cli import here
from runner.cli.given import SELECTION, SOURCE, WHERE, Given, takes
from runner.cli.output import Output, say_next, show
from runner.cli.steps import pasted
from runner.errors import Exit, SpecError
from runner.report import gaps
from runner.report.tables import table
from runner.spec.values import day as read_day
from runner.spec.values import shown
from runner.stages.report import explain as explain_key
from runner.stages.report import report

Deep = Annotated[bool, typer.Option("--deep", help="Read every object again and recompute its digest.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="An instrument as VENUE:TYPE:SYMBOL.", show_default=False)]
Day = Annotated[str, typer.Argument(metavar="DAY", help="A UTC day, YYYY-MM-DD.", show_default=False)]


@takes(*SELECTION, *WHERE, *SOURCE)
def validate(*, deep: Deep = False, output: Output = "table", given: Given) -> int:
    """Compare what the catalogue offers of this selection with what the store holds; list the gaps. Exit 3 if any."""
    spec = given.also(deep=True if deep else None, stage="validate").spec()
    here.start_logging(spec)
    found = report(spec, here.open_spec_store(spec), here.open_tardis(spec))
    show(
        output,
        gaps.document(found),
        table=gaps.screen(found),
        names=(each for gap in found.gaps for each in gap.objects),
    )
    if not found.gaps:
        return Exit.DONE
    say_next(_led(found.gaps[0].command, given))
    return Exit.INCOMPLETE


@takes("dataTypes", *WHERE, *SOURCE)
def explain(key: Key, day: Day, *, output: Output = "table", given: Given) -> int:
    """Tell, for each data type, why the outputs of an instrument and day are or are not in the store."""
    try:
        wanted = read_day(day)
    except ValueError as e:
        raise SpecError(f"DAY {shown(day)}: {e}") from e
    spec = given.spec()
    here.start_logging(spec)
    found = explain_key(spec, here.open_spec_store(spec), here.open_tardis(spec), key, wanted)
    rows = [(each.data_type, each.state, each.reason, each.object_key) for each in found]
    show(
        output,
        gaps.explanations(key.upper(), str(wanted), found),
        table=table(("DATA TYPE", "STATE", "REASON", "OBJECT"), rows),
        names=(each.object_key for each in found),
    )
    if commands := [each.command for each in found if each.command]:
        say_next(_led(commands[0], given))
    return Exit.DONE


def _led(command: str, given: Given) -> str:
    """Return a command, which names its store, with the run file and the source that this one was given."""
    words = ["--file", str(given.file)] if given.file else []
    return " ".join((command, shlex.join([*words, *pasted(given, SOURCE)]))).rstrip()
