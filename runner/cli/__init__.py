"""The command line: parse, call, print. `main` is the only place where errors become exit codes."""

from runner.cli.entry import main

__all__ = ["main"]
