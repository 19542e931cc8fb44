"""The end of the process: nothing that is still busy then changes how it ends. Real processes, as users start them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from runner.errors import WorkerExit

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}
MODULE = "import runpy; runpy.run_module('runner', run_name='__main__', alter_sys=True)"
COMMANDS = ("--help", "--version", "config")

# A thread of Arrow's, in C++, waits in a Python function, and comes for the interpreter's lock when that is half gone.
BUSY_THREAD = """
import ctypes, io, os, select, sys, threading
from pyarrow import csv

gate, reading = os.pipe(), threading.Event()

class Source(io.RawIOBase):
    blocks = 3

    def readable(self):
        return True

    def read(self, size=-1):
        self.blocks -= 1
        if self.blocks < 0:
            reading.set()
            os.read(gate[0], 1)
        return b"1,2\\n" * 21

class Late:
    def __del__(self, write=os.write, wait=select.select):
        write(gate[1], b"x")
        wait([], [], [], 10)

reader = csv.open_csv(Source(), read_options=csv.ReadOptions(block_size=84, use_threads=False))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(reader))
assert reading.wait(30)
sys.late = Late()
"""


def installed() -> str:
    """Return what the script that pip installs does, from where its name is given."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["runner"]
    module, function = script.split(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


def run(code: str, *words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=CLEAN,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("start", [MODULE, installed()], ids=["module", "installed"])
@pytest.mark.parametrize(("words", "code"), [(("--version",), 0), (("confg",), 2), (("worker", "--nope"), 64)])
def test_a_library_thread_that_is_busy_at_the_end_does_not_abort(start: str, words: tuple[str, ...], code: int) -> None:
    done = run(BUSY_THREAD + start, *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == bool(code)


@pytest.mark.parametrize("start", [MODULE, installed()], ids=["module", "installed"])
def test_threads_and_clean_ups_are_waited_for(start: str, tmp_path: Path) -> None:
    late = tmp_path / "late"
    code = f"""
import pathlib, sys, threading, types

def linger():
    threading.main_thread().join()
    pathlib.Path({str(late)!r}).write_text("thread")

# What a command imports, imported with it: a clean-up registered then, a thread that outlives the command.
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "runner.cli.config":
            sys.meta_path.remove(self)
            import atexit
            atexit.register(lambda: print("cleaned", pathlib.Path({str(late)!r}).read_text()))
            threading.Thread(target=linger).start()

sys.meta_path.insert(0, Finder())
"""
    done = run(code + start, "config", "-o", "name")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "cleaned thread"


@pytest.mark.parametrize("start", [MODULE, installed()], ids=["module", "installed"])
def test_a_worker_that_is_told_to_stop_while_it_starts_goes_as_one_that_drained(start: str) -> None:
    code = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "runner.worker":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
"""
    done = run(code + start, "worker")
    assert (done.returncode, done.stderr) == (WorkerExit.DRAINED, "")


@pytest.mark.parametrize("word", COMMANDS)
def test_a_reader_that_goes_away_is_no_error(word: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(MODULE, word, stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert "rror" not in done.stderr


@pytest.mark.parametrize("word", COMMANDS)
def test_a_full_disk_is_told_in_one_line(word: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(MODULE, word, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout cannot be written to: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("words", "code"), [("confg", 2), ("config --shards 0", 2), ("config", 0)])
def test_messages_that_cannot_be_written_change_no_exit_code(words: str, code: int) -> None:
    shell = f'"{sys.executable}" -m runner {words} >/dev/null 2>/dev/full'
    assert subprocess.run(shell, shell=True, env=CLEAN, check=False).returncode == code


@pytest.mark.parametrize(("word", "code"), [("confg", 2), ("config", 0), ("worker", 64)])
def test_messages_that_nobody_reads_change_no_exit_code(word: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "runner", word]
        done = subprocess.run(command, env=CLEAN, stdout=subprocess.DEVNULL, stderr=writer, check=False)
    finally:
        os.close(writer)
    assert done.returncode == code
