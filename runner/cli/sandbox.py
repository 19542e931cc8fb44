"""`runner sandbox …`: our stand-ins for source and buckets, in the foreground until they are told to stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.output import emit, say
from runner.errors import Exit
from runner.sandbox.corrupt import CORRUPTIONS
from runner.sandbox.faults import OF_SOURCES
from runner.sandbox.gcs import Options as BucketOptions
from runner.sandbox.gcs import serve as serve_buckets
from runner.sandbox.tardis import Options, serve

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
Seconds = Annotated[float, typer.Option("--lock-ttl", metavar="SECONDS", help="How long an address holds a key.")]

_EXAMPLE = '[{"path": "*/trades/2024/08/08/*", "fault": "corrupt", "kind": "torn_row", "count": 2}]'
# Click takes a paragraph that begins with a backspace character as it stands.
EPILOGS = {
    "tardis": f"Faults, set by POST to the control's /faults, e.g. {_EXAMPLE}: {', '.join(sorted(OF_SOURCES))}. "
    "Kinds of corrupt:\n\n\b\n" + "\n".join(f"  {kind:<16} {what}" for kind, what in CORRUPTIONS.items())
}
"""What the help of a command ends with."""


def tardis(  # noqa: PLR0913 one parameter an option
    *,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Day files as the source lays them out.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes any free one.")] = 0,
    host: Host = "127.0.0.1",
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys, one a line. Default: any key.")] = None,
    generate: Annotated[Path | None, typer.Option(metavar="FILE", help="Whole days to make up (JSON).")] = None,
    egress: Annotated[str, typer.Option(metavar="LIST", help="Client networks and the address of each.")] = "",
    lock_ttl: Seconds = 900.0,
    time_factor: Annotated[float, typer.Option(help="Sandbox seconds that pass in a real one.")] = 1.0,
    redirect: Annotated[bool, typer.Option("--redirect", help="Send day files from a second origin.")] = False,
    checksums: Annotated[bool, typer.Option(help="Send x-md5 with day files.")] = True,
) -> int:
    """Serve day files and catalogue as Tardis does, on loopback, until Ctrl-C or SIGTERM."""
    options = Options(
        data=data,
        port=port,
        host=host,
        key_file=key_file,
        generate=generate,
        egress=egress,
        lock_ttl_s=lock_ttl,
        time_factor=time_factor,
        redirect=redirect,
        checksums=checksums,
    )
    with serve(options) as server:
        return _until_stopped(
            f"export RUNNER_TARDIS_URL={server.url}\nexport RUNNER_TARDIS_API_URL={server.api_url}", server.control
        )


def gcs(
    *,
    bucket: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A bucket; may be repeated.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes any free one.")] = 0,
    host: Host = "127.0.0.1",
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep objects here. Default: in memory.")] = None,
    page_size: Annotated[int, typer.Option(min=1, help="The most objects of one page of a list.")] = 1000,
) -> int:
    """Serve buckets as Google Cloud Storage does, on loopback, until Ctrl-C or SIGTERM."""
    buckets = tuple(bucket or ("sandbox",))
    with serve_buckets(BucketOptions(buckets=buckets, data=data, host=host, port=port, page_size=page_size)) as server:
        return _until_stopped(
            f"export STORAGE_EMULATOR_HOST={server.url}\nexport RUNNER_STORE=gs://{buckets[0]}", server.control
        )


def _until_stopped(exports: str, control: str) -> int:
    """Say how to use a server that runs, and wait for Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        emit(exports)
        say(f"control {control}\nnext: set these in another terminal; Ctrl-C ends this one")
        stopped.wait()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.DONE
