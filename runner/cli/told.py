"""A run that commands are given by name, and how they tell what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.given import Given
from runner.cli.output import say, say_next, show
from runner.cli.steps import leading, next_step
from runner.errors import Exit
from runner.report import documents
from runner.report import run as report
from runner.run_record import RunRecord
from runner.runs import RunStatus

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or the beginning of it.", show_default=False)]


def print_run(status: RunStatus, output: str) -> None:
    """Print a run in the form asked for; as a table it is one line."""
    show(output, documents.run_document(status), table=report.line(status), names=[status.id])


def tell_end(record: RunRecord, status: RunStatus, code: Exit, given: Given) -> None:
    """Say on stderr what failed and what there is to do next."""
    for text in report.explained(status, places=leading(given)):
        say(text)
    if (step := next_step(record, status, code, given)) is not None:
        say_next(step)
