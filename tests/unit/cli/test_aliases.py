"""Every old command line does what its new one does, and says the new name once."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cli import main
from runner.sandbox.tardis import Options, Server, serve

DAY = "--start-date 2024-08-01 --end-date 2024-08-02"
WHAT = f"{DAY} --venues binance --data-types trades"
ON_A_CLUSTER = "--backend kubernetes --dry-run client --image x --store gs://bucket"
GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "data_types": ["trades"],
    "days": ["2024-08-01", "2024-08-02"],
    "rows_per_day": 20,
    "seed": 7,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(Options(generate=GENERATED, cache=tmp_path_factory.mktemp("generated"))) as server:
        yield server


@pytest.fixture
def runner(
    source: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable]:
    """Run a line; returns (exit code, stdout, the lines of stderr)."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("RUNNER_STORE", f"file://{tmp_path}/store"),
        ("RUNNER_TARDIS_URL", source.url),
        ("RUNNER_TARDIS_API_URL", source.api_url),
        ("TARDIS_API_KEY", "fake-key-1"),
        ("XDG_STATE_HOME", f"{tmp_path}/state"),
    ):
        monkeypatch.setenv(name, value)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def run(line: str) -> tuple[int, str, list[str]]:
        code = main(line.split())
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    yield run
    root.handlers[:] = before
    root.setLevel(level)


# An old line, the new one, and what is said of it.
SUBMITTED = [
    (f"download {WHAT}", f"submit download {WHAT}", ["download is now: runner submit download"]),
    (f"instruments {DAY}", f"submit instruments {DAY}", ["instruments is now: runner submit instruments"]),
    (f"check-gaps {WHAT}", f"submit availability {WHAT}", ["check-gaps is now: runner submit availability"]),
    (f"missing-reports {WHAT}", f"submit availability {WHAT}", ["missing-reports is now: runner submit availability"]),
    (
        f"missing-tick-reports {WHAT}",
        f"submit availability {WHAT}",
        ["missing-tick-reports is now: runner submit availability"],
    ),
    (
        f"available-tick-reports {WHAT}",
        f"submit availability {WHAT}",
        ["available-tick-reports is now: runner submit availability"],
    ),
    (f"candle-processing {WHAT}", f"submit candles {WHAT}", ["candle-processing is now: runner submit candles"]),
    (
        f"download {WHAT} --force-download",
        f"submit download {WHAT} --select all",
        ["download is now: runner submit download", "--force (--force-download) is now: --select all"],
    ),
    (f"submit {WHAT} --force", f"submit {WHAT} --select all", ["--force (--force-download) is now: --select all"]),
    (
        f"download {WHAT} --symbol BTCUSDT --max-workers 3 --max-instruments 4 --instrument-types spot",
        f"submit download {WHAT} --instruments BTCUSDT --parallelism 3 --max-instruments 4 --instrument-types spot",
        [
            "download is now: runner submit download",
            "--max-workers is now: --parallelism",
            "--symbol is now: --instruments",
        ],
    ),
    (
        f"submit check-gaps {WHAT}",
        f"submit availability {WHAT}",
        ["submit check-gaps is now: runner submit availability"],
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), SUBMITTED, ids=[old.replace(WHAT, "…") for old, _, _ in SUBMITTED])
def test_an_old_line_asks_for_the_very_run_of_the_new_one(
    runner: Callable, old: str, new: str, said: list[str]
) -> None:
    """The Job of a line, which nobody is asked for, holds all of its request."""
    code, job, messages = runner(f"{new} {ON_A_CLUSTER}")
    assert (code, messages) == (0, [])
    assert runner(f"{old} {ON_A_CLUSTER}") == (0, job, said)


@pytest.mark.parametrize("old", ["full-pipeline", "full-pipeline-ticks", "run-full-pipeline-candles"])
def test_old_pipelines_do_what_the_new_one_does(runner: Callable, old: str) -> None:
    late = "--start-date 2030-01-01 --end-date 2030-01-01 --venues binance --data-types trades --deadline 0"
    code, out, lines = runner(f"{old} {late}")
    assert code == 75
    assert "2030-01-01  pending" in out
    assert lines[0] == f"{old} is now: runner pipeline"
    assert "pending: not exported yet; runner pipeline --day 2030-01-01" in lines[-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bigquery-upload", "runner submit load"),
        ("upload", "runner submit load"),
        ("mft-processing", "runner submit mft"),
        ("streaming-ticks --symbol BTC-USDT --duration 0", "runner stream"),
        ("streaming-candles --duration 60", "runner stream"),
    ],
)
def test_what_is_to_come_is_refused_with_its_new_name(runner: Callable, old: str, new: str) -> None:
    code, out, (line,) = runner(f"{old} {DAY}")
    assert (code, out) == (2, "")
    assert line.startswith(
        f"error: {old.split(maxsplit=1)[0]}: is now `{new}`, and this version does not have that yet"
    )


def test_what_an_old_line_asked_beside_is_refused_with_its_new_name(runner: Callable) -> None:
    code, out, (told, line) = runner(f"run-full-pipeline-candles --upload-to-bigquery {DAY}")
    assert (code, out, told) == (2, "", "run-full-pipeline-candles is now: runner pipeline")
    assert line.startswith("error: --upload-to-bigquery: is now a run of its own, `runner submit load`")


def test_old_lines_carry_work_out(runner: Callable, tmp_path: Path) -> None:
    assert runner(f"instruments {WHAT} --max-workers 1")[0] == 0
    assert runner(f"download {WHAT} --symbol BTCUSDT --max-workers 1")[0] == 0
    assert runner(f"check-gaps {WHAT} --max-workers 1")[0] == 0
    code, out, said = runner(f"validate {WHAT} --symbol BTCUSDT")
    assert (code, out.splitlines()[0]) == (0, "2 of 2 verified · 0 missing · 0 duplicated")
    assert said[0] == "--symbol is now: --instruments"
    store = tmp_path / "store"
    for kind in ("missing_data_reports", "available_tick_data", "instrument_availability"):
        assert len(list((store / kind / "by_date").glob("day-*/*.parquet"))) == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("downlaod", "submit download"),
        ("valdate", "validate"),
        ("candels", "submit candles"),
        ("chek-gaps", "submit availability"),
        ("instrumnets", "instruments"),
        ("submti", "submit"),
    ],
)
def test_what_is_mistyped_is_told_what_was_meant(runner: Callable, typed: str, meant: str) -> None:
    code, out, (line,) = runner(typed)
    assert (code, out) == (2, "")
    assert f"did you mean {meant}?" in line


def test_nothing_is_said_of_new_lines_and_a_group_keeps_its_help(runner: Callable) -> None:
    code, out, messages = runner("instruments --help")
    assert (code, messages) == (0, [])
    assert all(word in out for word in ("list", "show", "changes"))
