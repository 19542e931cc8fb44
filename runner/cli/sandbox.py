"""`runner sandbox tardis`: our stand-in for the source, in the foreground until it is told to stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.output import emit, say
from runner.errors import Exit
from runner.sandbox.tardis import Options, serve

Seconds = Annotated[float, typer.Option("--lock-ttl", metavar="SECONDS", help="How long an address holds a key.")]


def tardis(  # noqa: PLR0913 one parameter an option
    *,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Day files as the source lays them out.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes any free one.")] = 0,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys, one a line. Default: any key.")] = None,
    generate: Annotated[Path | None, typer.Option(metavar="FILE", help="Whole days to make up (JSON).")] = None,
    egress: Annotated[str, typer.Option(metavar="LIST", help="Client networks and the address of each.")] = "",
    lock_ttl: Seconds = 900.0,
    time_factor: Annotated[float, typer.Option(help="Sandbox seconds that pass in a real one.")] = 1.0,
    redirect: Annotated[bool, typer.Option("--redirect", help="Send day files from a second origin.")] = False,
) -> int:
    """Serve day files and catalogue as Tardis does, on loopback, until Ctrl-C or SIGTERM."""
    options = Options(
        data=data,
        port=port,
        key_file=key_file,
        generate=generate,
        egress=egress,
        lock_ttl_s=lock_ttl,
        time_factor=time_factor,
        redirect=redirect,
    )
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with serve(options) as server:
            emit(f"export RUNNER_TARDIS_URL={server.url}\nexport RUNNER_TARDIS_API_URL={server.api_url}")
            say(f"control {server.control}\nnext: set these in another terminal; Ctrl-C ends this one")
            stopped.wait()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.DONE
