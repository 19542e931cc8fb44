"""The commands that make and show runs, as a user types them, against a real server and real worker processes."""

import fnmatch
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import layout
from runner.cli import main
from runner.sandbox.tardis import Options, Server, serve
from runner.store import open_store

GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "data_types": ["trades"],
    "days": ["2024-08-01", "2024-08-03"],
    "rows_per_day": 200,
    "seed": 7,
}
RUNNER = (sys.executable, "-m", "runner")
TWO_DAYS = ("--venues", "binance", "--data-types", "trades", "--start-date", "2024-08-01", "--end-date", "2024-08-02")
HELD = "*/trades/2024/08/02/ETHUSDT*"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(Options(generate=GENERATED, cache=tmp_path_factory.mktemp("generated"))) as server:
        yield server


@pytest.fixture
def env(source: Server, tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}
    source.clear_faults()
    return {
        **ours,
        "RUNNER_STORE": f"file://{tmp_path}/store",
        "RUNNER_TARDIS_URL": source.url,
        "RUNNER_TARDIS_API_URL": source.api_url,
        "RUNNER_TARDIS_ATTEMPTS": "1",
        "RUNNER_RETRY_LIMIT": "0",
        "TARDIS_API_KEY": "fake-key-1",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "xterm",
        "LINES": "24",
        "COLUMNS": "80",
    }


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """Undo what a command of this very process does to the log."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def run(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUNNER, *words], env=env, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL
    )


def answer(env: dict[str, str], *words: str, said: str) -> int:
    """Return the exit code of a command that asks on a terminal and is answered."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*RUNNER, *words], env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, said.encode())
        read_all(ours)
    return process.returncode


def wait_for_held_body(source: Server) -> None:
    """Return once the server holds a body open: the worker is then in the middle of a task."""
    while not any(
        figures["in_flight"] for path, figures in source.stats()["paths"].items() if fnmatch.fnmatch(path, HELD)
    ):
        time.sleep(0.02)


def test_plan_shows_tasks_and_starts_nothing(env: dict[str, str]) -> None:
    done = run(env, "plan", *TWO_DAYS, "--shards", "3", "-o", "json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["apiVersion"] == "runner/v1"
    assert [len(shard["tasks"]) for shard in document["shards"]] == [2, 1, 1]
    assert run(env, "list", "-o", "name").stdout == ""


def test_a_run_that_only_waits_for_the_source_says_so(env: dict[str, str]) -> None:
    asked = ("submit", "download", "--venues", "binance", "--data-types", "trades", "--start-date", "2024-08-04")
    done = run(env, *asked, "--end-date", "2024-08-04", "-o", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["tasks"]) == (3, {"total": 2, "done": 2, "failed": 0, "pending": 2})
    assert "2 pending, not exported yet" in run(env, "status", document["id"]).stdout


def test_a_run_is_submitted_shown_validated_explained_and_cleaned(env: dict[str, str]) -> None:
    first = run(env, "submit", "download", *TWO_DAYS, "--shards", "2", "-o", "json")
    document = json.loads(first.stdout)
    assert first.returncode == 0, first.stderr
    assert (document["state"], document["tasks"]) == ("done", {"total": 4, "done": 4, "failed": 0, "pending": 0})
    again = run(env, "submit", "download", *TWO_DAYS, "--shards", "2", "-o", "name")
    assert (again.returncode, again.stdout.strip()) == (0, document["id"])
    assert "nothing to do" in again.stderr
    assert run(env, "list", "-o", "name").stdout.split() == [document["id"]]
    assert "■■" in run(env, "status").stdout
    assert run(env, "status", document["id"][:12], "--watch").returncode == 0
    assert "download/2024-08-01/BINANCE:SPOT_PAIR:BTC-USDT" in run(env, "logs", "--shard", "0").stdout
    assert run(env, "validate", *TWO_DAYS).stdout.splitlines() == [
        "4 of 4 verified · 0 missing · 0 duplicated",
        "sealed  not yet: candles of 4 instrument-days; runner submit candles",
    ]
    gaps = run(env, "validate", *TWO_DAYS[:-1], "2024-08-03", "-o", "json")
    assert gaps.returncode == 3
    assert [gap["day"] for gap in json.loads(gaps.stdout)["gaps"]] == ["2024-08-03", "2024-08-03"]
    assert gaps.stderr.startswith("next: runner submit download")
    why = run(env, "explain", "binance:spot_pair:btc-usdt", "2024-08-01", "--data-types", "trades", "-o", "json")
    assert json.loads(why.stdout)["objects"][0]["state"] == "present"
    beginning = run(env, "clean", document["id"][:-1], "--yes")
    assert (beginning.returncode, document["id"] in beginning.stderr) == (2, True)
    refused = run(env, "clean", document["id"])
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--yes" in refused.stderr
    assert answer(env, "clean", document["id"], said="n\n") == 2
    assert run(env, "list", "-o", "name").stdout.split() == [document["id"]]
    assert answer(env, "clean", document["id"], said="y\n") == 0
    assert run(env, "list", "-o", "name").stdout == ""
    assert run(env, "validate", *TWO_DAYS).returncode == 0


def test_failed_tasks_are_told_and_retry_runs_them_alone(env: dict[str, str], source: Server) -> None:
    source.add_faults({"path": HELD, "fault": "corrupt", "kind": "gzip_trailer"})
    first = run(env, "submit", *TWO_DAYS, "--shards", "2", "-o", "json")
    document = json.loads(first.stdout)
    assert first.returncode == 3, first.stderr
    assert [failure["task"] for failure in document["failures"]] == ["download/2024-08-02/BINANCE:SPOT_PAIR:ETH-USDT"]
    assert first.stderr.splitlines()[-1] == f"next: runner retry {document['id']}"
    source.clear_faults()
    again = run(env, "retry", document["id"], "-o", "json")
    assert again.returncode == 0, again.stderr
    retried = json.loads(again.stdout)
    assert retried["id"] != document["id"]
    assert retried["tasks"]["total"] == 1


def test_a_retry_is_carried_out_as_its_run_was_unless_something_else_is_said(
    env: dict[str, str], source: Server, tmp_path: Path
) -> None:
    def spec_of(name: str) -> dict:
        return json.loads((tmp_path / "store" / "_runs" / name / "run.json").read_text())["spec"]

    source.add_faults({"path": HELD, "fault": "corrupt", "kind": "gzip_trailer"})
    own = tmp_path / "own.yaml"
    own.write_text("parallelism: 3\ntardis: {attempts: 2, stallSeconds: 77}\nretry: {limit: 1}\n")
    name = run(env, "submit", *TWO_DAYS, "-f", str(own), "-o", "name").stdout.strip()
    another = tmp_path / "another.yaml"
    another.write_text("tardis: {attempts: 1}\n")
    again = run({**env, "RUNNER_TARDIS_STALL_SECONDS": "5"}, "retry", name, "-f", str(another), "-o", "name")
    assert again.returncode == 3, again.stderr
    began, retried = spec_of(name), spec_of(again.stdout.strip())
    assert retried["tardis"] == {**began["tardis"], "attempts": 1}
    assert (retried["tardis"]["stallSeconds"], retried["parallelism"]) == (77, 3)
    assert (retried["retry"], retried["select"], retried["parent"]) == (began["retry"], "failed", name)


def test_status_and_wait_of_a_run_with_failures_load_no_arrow(env: dict[str, str], source: Server) -> None:
    source.add_faults({"path": HELD, "fault": "corrupt", "kind": "gzip_trailer"})
    name = run(env, "submit", *TWO_DAYS, "-o", "name").stdout.strip()
    code = (
        "import sys; from runner.cli import main;"
        "codes = [int(main([word, *sys.argv[1:]])) for word in ('status', 'wait')];"
        "print(codes, *sorted({'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], env=env, capture_output=True, text=True, timeout=100, check=True
    )
    assert "ETH-USDT" in done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 3]"


def test_a_run_whose_record_cannot_be_read_hides_no_other_and_is_cleaned(env: dict[str, str]) -> None:
    names = [run(env, "submit", *TWO_DAYS, "--shards", "1", "--select", s, "-o", "name") for s in ("missing", "all")]
    old, sound = (done.stdout.strip() for done in names)
    store, key = open_store(env["RUNNER_STORE"]), layout.run_record(old)
    record = json.loads(store.get(key))
    del record["plan"]["sizes"]
    store.put(key, json.dumps(record).encode(), if_generation=store.head(key).generation)
    listed = run(env, "list", "-o", "name")
    assert (listed.returncode, listed.stdout.split()) == (1, [sound])
    assert listed.stderr.splitlines()[-1].startswith("error: ")
    assert f"runner clean {old}" in listed.stderr
    assert run(env, "status", old).returncode == 1
    assert run(env, "clean", old, "--yes").returncode == 0
    assert run(env, "list", "-o", "name").stdout.split() == [sound]


def test_ctrl_c_drains_and_the_same_submit_resumes(env: dict[str, str], source: Server) -> None:
    source.add_faults({"path": HELD, "fault": "hold"})
    words = [*RUNNER, "submit", *TWO_DAYS, "--shards", "1"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_held_body(source)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("next: ")
    assert "stopped" in run(env, "status").stdout
    too_early = run(env, "retry", "download-")
    assert (too_early.returncode, "has not ended" in too_early.stderr) == (2, True)
    source.clear_faults()
    resumed = run(env, "submit", *TWO_DAYS, "--shards", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stderr


def test_cancel_from_another_terminal_ends_a_run(env: dict[str, str], source: Server) -> None:
    source.add_faults({"path": HELD, "fault": "hold"})
    words = [*RUNNER, "submit", *TWO_DAYS, "--shards", "1"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_held_body(source)
        cancelled = run(env, "cancel", "download-", "-o", "json")
        _, errors = process.communicate(timeout=60)
    assert cancelled.returncode == 0, cancelled.stderr
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    assert process.returncode == 130, errors


def test_a_terminal_gets_a_picture(env: dict[str, str], source: Server) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*RUNNER, "submit", *TWO_DAYS], env=env, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = read_all(ours)
    assert process.returncode == 0, shown
    assert "\x1b[" in shown
    assert any(glyph in shown for glyph in "·▒▓■")


def test_a_dumb_terminal_gets_lines(env: dict[str, str], source: Server) -> None:
    ours, theirs = pty.openpty()
    words, dumb = [*RUNNER, "submit", *TWO_DAYS], {**env, "TERM": "dumb"}
    with subprocess.Popen(words, env=dumb, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = read_all(ours)
    assert process.returncode == 0, shown
    assert "\x1b" not in shown
    assert "tasks (" in shown


def read_all(terminal: int) -> str:
    """Return what a terminal shows until its last writer has closed it."""
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:
        pass  # Linux says EIO where others say end of file
    os.close(terminal)
    return b"".join(parts).decode()


@pytest.mark.usefixtures("log_as_before")
@pytest.mark.parametrize(
    "given",
    [
        (("submit", "--store", "memory://x", *TWO_DAYS), 2, "memory://"),
        (("submit", "--instruments", "NOPE", *TWO_DAYS), 5, "NOPE"),
        (("submit", "downlod"), 2, "did you mean download?"),
        (("submit", "--force", "--select", "failed"), 2, "--force"),
        (("submit", "--store", "s3://some-bucket", *TWO_DAYS), 2, "unknown scheme"),
        (("status", "nope"), 5, "nope"),
        (("status",), 5, "no runs"),
        (("logs", "nope"), 5, "nope"),
        (("cancel", "nope"), 5, "nope"),
        (("retry", "nope"), 5, "nope"),
        (("clean", "nope", "--yes"), 5, "nope"),
        (("retry",), 2, "RUN"),
        (("cancel", ""), 2, "RUN is empty"),
        (("status", "../../etc"), 5, "../../etc"),
        (("explain", "BINANCE:SPOT_PAIR:BTC-USDX", "2024-08-01"), 5, "did you mean BINANCE:SPOT_PAIR:BTC-USDT?"),
        (("explain", "BINANCE:SPOT_PAIR:BTC-USDT", "2024-02-30"), 2, "2024-02-30"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    given: tuple[tuple[str, ...], int, str],
) -> None:
    words, code, part = given
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(words) == code
    out, errors = capfd.readouterr()
    assert out == ""
    told = [line for line in errors.splitlines() if " warning " not in line]
    assert len(told) == 1
    assert told[0].startswith("error: ")
    assert part in told[0]


def test_an_empty_list_says_what_to_do(env: dict[str, str]) -> None:
    done = run(env, "list")
    assert (done.returncode, done.stdout.split()[0]) == (0, "RUN")
    assert done.stderr.startswith("next: ")


def test_what_a_terminal_cannot_show_is_drawn_in_ascii(env: dict[str, str]) -> None:
    ascii_only = env | {"PYTHONIOENCODING": "ascii"}
    made = run(ascii_only, "submit", "download", *TWO_DAYS)
    assert made.returncode == 0, made.stderr
    seen = run(ascii_only, "status")
    assert "\n####\n# 4 done\n" in seen.stdout
    assert run(env | {"PYTHONIOENCODING": "utf-8"}, "status").stdout == seen.stdout.replace("#", "■")
    assert "\\u" not in made.stdout + made.stderr + seen.stdout + seen.stderr


def test_a_request_too_long_for_a_worker_is_one_line_and_no_run(env: dict[str, str], tmp_path: Path) -> None:
    keys = [f"BINANCE:SPOT_PAIR:COIN{n:05}-USDT" for n in range(4000)]
    (tmp_path / "many.yaml").write_text("instruments: [" + ", ".join(["BINANCE:SPOT_PAIR:*", *keys]) + "]\n")
    done = run(env, "submit", "download", "-f", str(tmp_path / "many.yaml"), *TWO_DAYS)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the request is too long for a worker's environment")
    assert "4,001" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()
