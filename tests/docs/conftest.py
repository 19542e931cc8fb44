"""A newcomer's terminal: a folder of their own, our command, a stand-in for the source with the examples' days."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from runner.sandbox.tardis import Options, serve

ROOT = Path(__file__).resolve().parents[2]
GENERATED = [
    {
        "exchange": exchange,
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "data_types": ["trades", "quotes", "book_snapshot_5"],
        "days": ["2024-08-01", "2024-08-03"],
        "rows_per_day": 500,
        "seed": 7,
    }
    for exchange in ("binance", "binance-futures")
]

Terminal = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve the days of the examples; yield the variables that lead there."""
    with serve(Options(generate=GENERATED, cache=tmp_path_factory.mktemp("generated"))) as server:
        yield {"RUNNER_TARDIS_URL": server.url, "RUNNER_TARDIS_API_URL": server.api_url}


@pytest.fixture
def terminal(source: dict[str, str], tmp_path: Path) -> Terminal:
    """Return a function that runs a line of a document as if in a fresh checkout."""
    for folder in ("examples", "runner/sandbox/data"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_"))}
    env = {**ours, **source, "XDG_STATE_HOME": str(tmp_path / "state"), "TARDIS_API_KEY": "fake-key-1"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line, comments=True)
        assert words[0] == ".venv/bin/runner", line
        # -P: `runner/` here is data alone, the program is the installed one.
        command = [sys.executable, "-P", "-m", "runner", *words[1:]]
        with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=PIPE, stderr=PIPE, text=True) as process:
            if "sandbox" in words:
                return _until_ready(process)
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


def _until_ready(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a server's first line, then tell it to stop."""
    assert process.stdout is not None
    first = process.stdout.readline()
    process.terminate()
    rest, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode if first else 1, first + rest, err)
