"""From the process's arguments to its exit code: one line on stderr for everything that goes wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import MutableMapping, Sequence

import typer

from runner.cli import app, glyphs
from runner.errors import Exit, RunnerError, WorkerExit
from runner.logs import escape, redact

DEBUG = "--debug"
_HELP = frozenset(("-h", "--help", "--version"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (contracts: 0 to 6 and 130; a worker's own table)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != DEBUG]
    is_worker = words[:1] == ["worker"]
    glyphs.register()
    _rename(os.environ)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors=glyphs.ERRORS)  # type: ignore[union-attr] # absent where a test replaced it
    try:
        return _run(words or ["--help"])
    except KeyboardInterrupt:
        return _fail("interrupted", WorkerExit.DRAINED if is_worker else Exit.INTERRUPTED)
    except typer.Abort:
        return _fail("interrupted", Exit.INTERRUPTED)
    except typer.TyperException as e:
        return _fail(_usage(e), WorkerExit.BAD_SPEC if is_worker else Exit.USAGE)
    except RunnerError as e:
        code = e.worker_exit if is_worker else e.exit_code
        return _fail(str(e), code, trace=DEBUG in given)
    except Exception as e:  # noqa: BLE001 the one place of the CLI: a bug is one line too
        line = f"{type(e).__name__}: {e}; this is a bug in runner, {DEBUG} shows where"
        return _fail(line, WorkerExit.BUG if is_worker else Exit.FAILED, trace=DEBUG in given)


def _rename(env: MutableMapping[str, str]) -> None:
    """Give what the seed called by a name of its own to Google's client, which reads the environment itself."""
    if path := env.get("GCP_CREDENTIALS_PATH"):
        env.setdefault("GOOGLE_APPLICATION_CREDENTIALS", path)


def _run(words: Sequence[str]) -> int:
    """Run one command; raises RunnerError where stdout could not take what it printed."""
    try:
        return app.run(words)
    except SystemExit as e:
        # Typer leaves so whatever pipe is broken; only to the reader of its help it does not matter.
        if _HELP.isdisjoint(words) and e.__context__ is not None:
            raise e.__context__ from None
        return Exit.DONE
    except OSError:
        from runner.cli import output  # noqa: PLC0415 - imports the specification, which `--help` does without

        # Where it could not write help, stdout takes nothing else either; any other error is not about stdout.
        output.emit("\n")
        raise


def _fail(line: str, code: int, *, trace: bool = False) -> int:
    secret = os.environ.get("TARDIS_API_KEY", "")
    # Without a stderr, or with a full one, the exit code must do.
    with contextlib.suppress(OSError, AttributeError):
        if trace:
            sys.stderr.write(redact(traceback.format_exc(), [secret]))
        sys.stderr.write(f"error: {escape(redact(line, [secret]))}\n")
    return int(code)


def _usage(error: typer.TyperException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path} --help`" if context else message
