"""What commands print: data on stdout in the form asked for, messages on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from runner.errors import RunnerError, SpecError
from runner.logs import escape
from runner.spec.files import dump
from runner.spec.values import choice

API_VERSION = "runner/v1"
_FORMATS = ("table", "json", "yaml", "name")


def _format(value: str) -> str:
    try:
        return choice("output format", _FORMATS)(value)
    except ValueError as e:
        raise SpecError(f"flag --output: {e}") from e


Output = Annotated[
    str, typer.Option("--output", "-o", metavar="|".join(_FORMATS), callback=_format, help="How to print the data.")
]


def show(how: str, document: Mapping[str, Any], *, table: str, names: Iterable[str]) -> None:
    """Print one document to stdout: its table, its names one a line, or all of it as JSON or YAML."""
    whole = {"apiVersion": API_VERSION, **document}
    if how == "json":
        emit(json.dumps(whole, indent=2))
    elif how == "yaml":
        # Through JSON, so that both forms say the same.
        emit(dump(json.loads(json.dumps(whole))))
    elif how == "name":
        emit("\n".join(escape(name) for name in names))
    else:
        emit(table)


def emit(text: str) -> None:
    """Write text to stdout, ended by a newline; a reader that has gone away is no error.

    Raises RunnerError when stdout cannot take it, a full disk for one.
    """
    # Started without a stdout, as `>&-` does: there is nobody to tell.
    if not text or sys.stdout is None:
        return
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunnerError(f"stdout cannot be written to: {e.strerror}; free space or give another place") from e


def say(text: str) -> None:
    """Write a message to stderr; where that cannot be written to, the exit code must do."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def say_next(command: str) -> None:
    """Write the one line that tells what to do next."""
    say(f"next: {command}")
