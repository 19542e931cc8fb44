from pathlib import Path

import pytest

from runner.cli.given import Given
from runner.cli.steps import next_step
from runner.errors import Exit
from runner.ledger import Pin
from runner.run_record import RunRecord, Size
from runner.runs import RunState, RunStatus

REQUEST = {
    "stage": "download",
    "days": ["2024-08-01", "2024-08-02"],
    "venues": ["BINANCE"],
    "instrumentTypes": [],
    "instruments": ["BINANCE:*:BTC-*"],
    "dataTypes": ["book_snapshot_5", "derivative_ticker", "liquidations", "options_chain", "trades"],
    "maxInstruments": None,
    "select": "missing",
    "parent": None,
}
DAYS = "--start-date 2024-08-01 --end-date 2024-08-02 --venues BINANCE --instruments 'BINANCE:*:BTC-*'"
NOWHERE = Given()
HERE = Given({"store": "file:///a b"}, Path("run.yaml"))


def step(state: RunState, code: Exit, given: Given = NOWHERE, **request: object) -> str | None:
    record = RunRecord("download-3f", {**REQUEST, **request}, {}, Pin("", 0, 0), (Size(1, 1, 1),))
    return next_step(record, RunStatus("download-3f", state, (), (), None, None, 0), code, given)


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (RunState.RUNNING, Exit.FAILED, "runner status download-3f --watch"),
        (RunState.DONE, Exit.DONE, f"runner validate {DAYS}"),
        (RunState.FAILED, Exit.INCOMPLETE, "runner retry download-3f"),
        (RunState.STOPPED, Exit.INTERRUPTED, f"runner submit download {DAYS}"),
        (RunState.CANCELLED, Exit.INTERRUPTED, f"runner submit download {DAYS}"),
    ],
)
def test_the_next_step_is_a_command_to_paste(state: RunState, code: Exit, expected: str) -> None:
    assert step(state, code) == expected


def test_it_names_store_and_file_as_the_last_command_did() -> None:
    assert step(RunState.FAILED, Exit.INCOMPLETE, HERE) == (
        "runner retry download-3f --file run.yaml --store 'file:///a b'"
    )


@pytest.mark.parametrize(
    ("context", "more"),
    [("prod", "--namespace market --context prod --image i"), (None, "--namespace market --image i --values FILE")],
)
def test_a_pipeline_goes_on_where_it_was_and_one_begun_in_a_pod_with_its_installations_values(
    context: str | None, more: str
) -> None:
    spec = {"backend": "kubernetes", "namespace": "market", "context": context, "image": "i"}
    request = {**REQUEST, "stage": "pipeline", "allowIncomplete": False}
    record = RunRecord("pipeline-3f", request, spec, Pin("", 0, 0), (Size(1, 1, 1),))
    status = RunStatus("pipeline-3f", RunState.FAILED, (), (), None, None, 0)
    selected = DAYS.partition("2024-08-02 ")[2]
    command = f"runner pipeline --day 2024-08-01 {selected} --backend kubernetes {more}"
    assert next_step(record, status, Exit.INCOMPLETE, NOWHERE) == command


def test_a_retry_that_stopped_is_submitted_as_the_retry_it_was() -> None:
    command = step(RunState.STOPPED, Exit.INTERRUPTED, select="failed", parent="download-2e")
    assert command == f"runner submit download {DAYS} --select failed --parent download-2e"


def test_a_whole_validation_leaves_nothing_to_do() -> None:
    assert step(RunState.DONE, Exit.DONE, stage="validate") is None


def test_a_validation_with_gaps_leads_to_their_list() -> None:
    assert step(RunState.FAILED, Exit.INCOMPLETE, stage="validate") == f"runner validate {DAYS}"


def test_a_refused_key_is_to_be_corrected_first() -> None:
    assert "TARDIS_API_KEY" in str(step(RunState.FAILED, Exit.NOT_ALLOWED))


def test_a_run_of_instruments_leads_to_their_list() -> None:
    assert step(RunState.DONE, Exit.DONE, stage="instruments") == "runner instruments list"
