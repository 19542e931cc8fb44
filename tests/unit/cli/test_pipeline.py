"""What `runner pipeline` takes for its days, and its exit codes where no worker is needed to tell them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runner.cli import main
from runner.sandbox.tardis import Options, serve
from tests.unit.backends.kubernetes import api as double

GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT"],
    "data_types": ["trades"],
    "days": ["2024-08-01", "2024-08-08"],
    "rows_per_day": 20,
    "seed": 7,
}
WHAT = "--venues binance --data-types trades --deadline 0 --lookback-days 1"


RECENT = "a source whose newest day is the one before yesterday"


@pytest.fixture
def runner(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable]:
    """Run a line; returns (exit code, stdout, stderr)."""
    newest = str(datetime.now(UTC).date() - timedelta(days=2))
    generated = {**GENERATED, "days": [newest, newest]} if getattr(request, "param", "") == RECENT else GENERATED
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with serve(Options(generate=generated, cache=tmp_path / "generated")) as source:
        for name, value in (
            ("RUNNER_STORE", f"file://{tmp_path}/store"),
            ("RUNNER_TARDIS_URL", source.url),
            ("RUNNER_TARDIS_API_URL", source.api_url),
            ("XDG_STATE_HOME", f"{tmp_path}/state"),
        ):
            monkeypatch.setenv(name, value)

        def run(line: str) -> tuple[int, str, str]:
            code = main(line.split())
            return code, *capsys.readouterr()

        yield run
    root.handlers[:] = before
    root.setLevel(level)


def days_of(out: str) -> dict[str, str]:
    return {day["day"]: day["verdict"] for day in json.loads(out)["days"]}


@pytest.mark.parametrize("runner", [RECENT], indirect=True)
def test_auto_is_yesterday(runner: Callable) -> None:
    before = datetime.now(UTC).date()
    code, out, _ = runner(f"pipeline {WHAT} -o json")
    (day,) = days_of(out)
    assert before - timedelta(days=1) <= datetime.fromisoformat(day).date() < datetime.now(UTC).date()
    assert (code, days_of(out)[day]) == (75, "pending")


def test_in_the_pod_of_a_job_auto_is_the_day_before_its_schedule(
    runner: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with double.serve() as api:
        annotations = {"batch.kubernetes.io/cronjob-scheduled-timestamp": "2024-08-10T08:00:00Z"}
        about = {"name": "pipeline-28719840", "creationTimestamp": "2024-08-11T02:00:00Z", "annotations": annotations}
        api.put("jobs", {"metadata": about})
        # Not by KUBECONFIG: the client library reads that once a process.
        kubeconfig = api.kubeconfig(tmp_path, {"token": "fake-token-1"})
        monkeypatch.setenv("RUNNER_JOB", "pipeline-28719840")

        code, out, err = runner(f"pipeline {WHAT} --kubeconfig {kubeconfig} -o json")

    assert (code, days_of(out)) == (75, {"2024-08-09": "pending"})
    assert "pipeline day=2024-08-09 verdict=pending" in err


@pytest.mark.slow
def test_auto_ends_where_the_source_ended_long_ago(runner: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARDIS_API_KEY", "fake-key-1")
    code, out, err = runner(f"pipeline {WHAT} -o json")
    assert (code, days_of(out)) == (0, {"2024-08-08": "complete"}), err
    assert "source exports end before 2024-08-09: auto goes by that day" in err
    assert "pipeline newest=" not in err, "the day is no news"


@pytest.mark.slow
@pytest.mark.parametrize("runner", [RECENT], indirect=True)
def test_the_newest_day_is_told_as_complete_whatever_is_logged(
    runner: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARDIS_API_KEY", "fake-key-1")
    day = datetime.now(UTC).date() - timedelta(days=2)
    line = f"pipeline {WHAT} --day {day} --log-level ERROR"
    told = [runner(line) for _ in range(2)]
    assert [code for code, _, _ in told] == [0, 0], told
    assert all(f"pipeline newest={day} verdict=complete\n" in err for _, _, err in told)


def test_days_of_a_file_are_taken_and_a_flag_wins(runner: Callable) -> None:
    Path("run.yaml").write_text("startDate: 2030-01-01\nendDate: 2030-01-02\n")
    _, out, _ = runner(f"pipeline -f run.yaml {WHAT} -o json")
    assert list(days_of(out)) == ["2030-01-01", "2030-01-02"]
    _, out, _ = runner(f"pipeline -f run.yaml --day 2030-02-01 {WHAT} -o json")
    assert list(days_of(out)) == ["2030-02-01"]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--day 2024-08-01 --start-date 2024-08-01", 2, "give one of them"),
        ("--day tomorrow", 2, "flag --day tomorrow"),
        ("--day 2024-08-01 --memory 4Gi", 2, "--backend kubernetes"),
        ("--day 2024-07-01", 5, "nothing matches"),
    ],
)
def test_what_cannot_be_done_is_one_line(runner: Callable, line: str, code: int, said: str) -> None:
    found, out, err = runner(f"pipeline {line} {WHAT}")
    assert (found, out) == (code, "")
    assert said in err.splitlines()[-1]


def test_a_day_that_is_late_is_seen_by_every_command(runner: Callable) -> None:
    code, out, err = runner(f"pipeline --day 2030-01-01 {WHAT} -o name")
    run = out.strip()
    assert code == 75
    assert "pending: not exported yet; runner pipeline --day 2030-01-01" in err
    assert runner("list --stage pipeline -o name")[1].split() == [run]
    assert json.loads(runner("list -o json")[1])["runs"][0]["days"] == ["2030-01-01", "2030-01-01"]
    assert runner(f"wait {run}")[0] == 3
    assert "verdict=pending" in runner(f"logs {run}")[1]
    assert runner(f"clean {run} --yes")[0] == 0


def test_no_stage_of_this_name_is_submitted(runner: Callable) -> None:
    code, _, err = runner("submit pipeline --start-date 2024-08-01")
    assert code == 2
    assert "no stage is called pipeline" in err
