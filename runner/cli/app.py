"""The commands and where they live. A module is imported when its command runs: `runner --help` imports none."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from runner import __version__
from runner.cli import aliases
from runner.errors import SpecError

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is: `functions` of module runner.cli.`module`, one, or one for each subcommand of a group.

    A subcommand has the first word of its function's name.
    """

    module: str
    functions: tuple[str, ...]
    help: str
    is_group: bool = False


# In the order in which a newcomer meets them.
COMMANDS: Mapping[str, _Command] = {
    "demo": _Command("demo", ("demo",), "Backfill, kill, resume, verify on this machine: no account, no key."),
    "plan": _Command("requests", ("plan",), "Show what a run would do: tasks, shards, bytes."),
    "render": _Command("render", ("render",), "Print the Kubernetes Job of a request, for kubectl apply."),
    "submit": _Command("requests", ("submit",), "Carry a request out, attach to it, or resume it."),
    "pipeline": _Command("pipeline", ("pipeline",), "Bring days to completeness, stage after stage, and seal them."),
    "validate": _Command("checks", ("validate",), "Compare what should be in the store with what is."),
    "retry": _Command("requests", ("retry",), "Run again what failed in a run."),
    "list": _Command("runs", ("list_runs",), "List the runs of a store."),
    "status": _Command("runs", ("status",), "Show how far a run is and what failed."),
    "wait": _Command("runs", ("wait",), "Wait for a run's end and return its verdict."),
    "logs": _Command("runs", ("logs",), "Show the logs of a run's shards."),
    "cancel": _Command("runs", ("cancel",), "Stop a run; what is done stays."),
    "clean": _Command("runs", ("clean",), "Remove the records of a finished run, never its data."),
    "explain": _Command("checks", ("explain",), "Tell why an object is, or is not, in the store."),
    "instruments": _Command(
        "instruments",
        ("list_instruments", "show_instrument", "changes_of_instruments"),
        "What the store's instrument tables list, and how days differ.",
        is_group=True,
    ),
    "doctor": _Command("doctor", ("doctor",), "Check what a run needs, and say what mends it."),
    "config": _Command("config", ("config",), "Show every setting, its value and where it comes from."),
    "sandbox": _Command(
        "sandbox", ("tardis", "gcs"), "Stand-ins for the outside, for tests and trials.", is_group=True
    ),
    "worker": _Command("worker", ("worker",), "Do one shard of a run; started by a backend, not by hand."),
}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises RunnerError, and typer's errors for wrong usage."""
    program = _typer()
    program.info.cls = _Lazy
    program.callback(help="Sharded, verified backfills of market data.")(_root)
    words = aliases.modern(arguments, COMMANDS)
    code = get_command(program).main(words, prog_name="runner", standalone_mode=False)
    return code if isinstance(code, int) else 0


def load(name: str) -> Any:
    """Return the command of this name, importing its module."""
    entry = COMMANDS[name]
    module = importlib.import_module(f"runner.cli.{entry.module}")
    program = _typer()
    if entry.is_group:
        program.callback(help=entry.help)(_group)
    epilogs: Mapping[str, str] = getattr(module, "EPILOGS", {})
    for function in entry.functions:
        called = function.partition("_")[0] if entry.is_group else name
        program.command(called, epilog=epilogs.get(function))(getattr(module, function))
    return get_command(program)


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        return load(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            known = aliases.nearest(COMMANDS)
            near = difflib.get_close_matches(args[0], known, n=1)
            hint = f" (did you mean {known[near[0]]}?)" if near else ""
            raise SpecError(f"no such command: {args[0]}{hint}; see `runner --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


def _typer() -> typer.Typer:
    # Typer formats with rich, which costs 100 ms, unless told not to.
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, context_settings=_SETTINGS
    )


def _print_version(asked: bool) -> None:  # noqa: FBT001 the signature that typer calls
    if asked:
        typer.echo(f"runner {__version__}")
        raise typer.Exit


def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def _group() -> None:
    pass
