import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from runner.cli.app import COMMANDS

RUNNER = (sys.executable, "-m", "runner")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}


def run(cwd: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUNNER, *words],
        cwd=cwd,
        env={**CLEAN, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.removesuffix("\n").isprintable()
    assert all(part in done.stderr for part in parts), done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from runner.cli import main; code = main(['--help']); assert code == 0;"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    heavy = {"pydantic", "pydantic_core", "rich", "numpy", "pyarrow", "urllib3", "yaml", "tenacity", "isal", "requests"}
    imported = set(done.stderr.strip("[]\n").replace("'", "").split(", "))
    assert "typer" in imported
    assert not imported & heavy


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_names_every_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == "runner 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("confg",), ("confg", "did you mean config?")),
        (("config", "--nope"), ("--nope", "runner config --help")),
        (("config", "extra"), ("extra",)),
        (("config", "-o", "jsno"), ("--output", "did you mean json?", "table, json, yaml, name")),
        (("config", "--shards"), ("--shards",)),
        (("config", "--shards", "0"), ("--shards 0", "1 to 100000")),
        (("config", "--shards=-1"), ("--shards -1", "1 to 100000")),
        (("config", "--shards", "1.5"), ("--shards 1.5", "1 to 100000")),
        (("config", "--start-date", "2026-02-30"), ("--start-date 2026-02-30", "calendar")),
        (("config", "--start-date", "2024-02-02", "--end-date", "2024-02-01"), ("--end-date", "before")),
        (("config", "--venues", "BINANSE"), ("did you mean BINANCE?",)),
        (("config", "--data-types", "trade"), ("did you mean trades?",)),
        (("config", "-f", "missing.yaml"), ("missing.yaml", "no such file")),
        (("config", "-f", "."), ("is a directory",)),
        (("config", "--instruments", "a\x1b[31mb"), ("\\x1b",)),
        (("config", "--max-workers", "3", "--parallelism", "4"), ("--parallelism", "twice")),
        (("sandbox",), ("Missing command",)),
        (("sandbox", "tardis", "--port", "70000"), ("--port",)),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_refused(run(tmp_path, *words), *parts)


def test_a_run_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert_refused(run(tmp_path, "config", "-f", "pipe.yaml"), "pipe.yaml", "not a regular file")


def test_wrong_usage_of_a_worker_is_exit_64(tmp_path: Path) -> None:
    assert_refused(run(tmp_path, "worker", "--nope"), "--nope", code=64)


def test_a_traceback_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    assert "Traceback" not in run(tmp_path, "config", "--shards", "0").stderr
    asked = run(tmp_path, "config", "--shards", "0", "--debug")
    assert asked.returncode == 2
    assert "Traceback" in asked.stderr
    assert asked.stderr.splitlines()[-1].startswith("error: flag --shards 0")


def test_the_key_is_never_printed(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "--store", "fake-key-1", "--debug", TARDIS_API_KEY="fake-key-1")
    assert done.returncode == 2
    assert "fake-key-1" not in done.stderr


def test_config_says_each_value_and_its_origin(tmp_path: Path) -> None:
    (tmp_path / "runner.yaml").write_text("parallelism: 2\n")
    (tmp_path / "run.yaml").write_text("shards: 5\n")
    words = ("config", "-f", "run.yaml", "--symbol", "btcusdt", "-o")
    done = run(tmp_path, *words, "json", RUNNER_STORE="file://./s")
    document = json.loads(done.stdout)
    by_key = {row["key"]: (row["value"], row["origin"]) for row in document["settings"]}
    assert document["apiVersion"] == "runner/v1"
    assert by_key["shards"] == (5, "run.yaml:shards")
    assert by_key["parallelism"] == (2, "runner.yaml:parallelism")
    assert by_key["store"] == (f"file://{tmp_path}/s", "env RUNNER_STORE")
    assert by_key["instruments"] == (["BTCUSDT"], "flag --instruments")
    assert by_key["select"] == ("missing", "default")
    assert yaml.safe_load(run(tmp_path, *words, "yaml", RUNNER_STORE="file://./s").stdout) == document
    assert run(tmp_path, *words, "name").stdout.splitlines() == list(by_key)
    table = run(tmp_path, *words, "table").stdout.splitlines()
    assert len(table) == len(by_key) + 1
    assert table[0].split() == ["KEY", "VALUE", "ORIGIN"]


def test_config_without_a_store_says_what_to_do_next(tmp_path: Path) -> None:
    done = run(tmp_path, "config")
    assert done.returncode == 0
    assert done.stderr.count("next: ") == 1
    assert "--store" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*RUNNER, "config", "-o", "json"], cwd=tmp_path, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    assert process.returncode == 0
    assert "rror" not in errors


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUNNER, "config"], cwd=tmp_path, env=CLEAN, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout cannot be written to")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("words", "code"), [("config", 0), ("config --shards 0", 2), ("confg", 2)])
def test_without_any_output_the_exit_code_still_tells(tmp_path: Path, words: str, code: int) -> None:
    shell = f'"{sys.executable}" -m runner {words} >&- 2>&-'
    assert subprocess.run(shell, shell=True, cwd=tmp_path, env=CLEAN, check=False).returncode == code


def test_a_terminal_without_unicode_is_no_error(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "--instruments", "币安人生-USDT", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert "\\u5e01" in done.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_sandbox_serves_until_told_to_stop(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*RUNNER, "sandbox", "tardis", "--data", "."],
        cwd=tmp_path,
        env=CLEAN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        with urllib.request.urlopen(f"{exports['RUNNER_TARDIS_API_URL']}/exchanges", timeout=10) as reply:
            assert json.load(reply) == []
        process.send_signal(sent)
        assert process.wait(timeout=60) == code
