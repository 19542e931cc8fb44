"""What a pipeline does with a day, a morning, a stop in the middle, a twin: in this process, against a real source."""

from __future__ import annotations

import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pyarrow.parquet as pq
import pytest

from runner import layout, run_record
from runner.errors import DrainedError, Exit, NotFoundError
from runner.pipeline import Terms, Verdict
from runner.runs import cancel, verdict
from tests.unit.pipeline.conftest import Mornings

DAY, NEXT = date(2024, 8, 2), date(2024, 8, 3)


def test_a_day_is_brought_to_completeness_stage_after_stage(mornings: Mornings) -> None:
    (end,) = mornings.run("2024-08-02")

    assert (end.day, end.verdict, end.lacks) == (DAY, Verdict.COMPLETE, ())
    record = json.loads(mornings.world.store.get(layout.completeness(DAY, "BINANCE")))
    assert record["dataTypes"]["trades"]["verdict"] == "complete"
    assert mornings.sealed(DAY) == {"false"}, "the days beside are not there"
    missing = pq.read_table(io.BytesIO(mornings.world.store.get(layout.missing_data_reports(DAY))))
    assert missing.num_rows == 0, "the report is of the end, not of the beginning"
    created = sorted(
        (run_record.get_run(mornings.world.store, run) for run in run_record.run_ids(mornings.world.store)),
        key=lambda record: record.created,  # type: ignore[arg-type, return-value]
    )
    assert [record.request["stage"] for record in created] == [
        "pipeline",
        "instruments",
        "availability",
        "download",
        "validate",
        "candles",
        "validate",
        "availability",
    ]
    assert {record.request["parent"].partition(".")[0] for record in created[1:]} == {end.run}
    assert mornings.unfinished() == []
    assert verdict(mornings.world.store, created[0]) == 0


def test_asked_again_it_does_nothing(mornings: Mornings) -> None:
    mornings.run("2024-08-02")
    before = {info.key: info.generation for info in mornings.world.store.list("")}

    (end,) = mornings.run("2024-08-02")

    assert (end.verdict, end.run) == (Verdict.NOTHING, None)
    assert {info.key: info.generation for info in mornings.world.store.list("")} == before


def test_a_range_seals_each_day_by_the_next(mornings: Mornings) -> None:
    ends = mornings.run("2024-08-01..2024-08-03")

    assert [end.verdict for end in ends] == [Verdict.COMPLETE] * 3
    # The first day has nothing before it that was ever listed, the last one waits for the day after.
    assert [mornings.sealed(date(2024, 8, n)) for n in (1, 2, 3)] == [{"true"}, {"true"}, {"false"}]
    assert set(mornings.done.values()) == {1}


def test_nothing_listed_is_passed_over_unless_it_is_the_last_day(mornings: Mornings) -> None:
    ends = mornings.run("2024-07-30..2024-08-01")
    assert [end.verdict for end in ends] == [Verdict.NOTHING, Verdict.NOTHING, Verdict.COMPLETE]
    with pytest.raises(NotFoundError, match="nothing matches"):
        mornings.run("2024-07-30..2024-07-31")


def test_what_changed_since_is_found_and_mended(mornings: Mornings) -> None:
    mornings.run("2024-08-02")
    lost = layout.ticks(DAY, "trades", "BINANCE:SPOT_PAIR:BTC-USDT")
    mornings.world.store.delete(lost)

    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.COMPLETE
    assert end.run is not None
    assert end.run.endswith("-r1")
    assert mornings.world.store.head(lost) is not None
    assert [end.verdict for end in mornings.run("2024-08-02")] == [Verdict.NOTHING]


BAD = {"path": "*/okex/trades/*", "fault": "corrupt", "kind": "gzip_trailer"}
BOTH = {"venues": "binance, okex"}


def test_the_gate_holds_back_a_venue_with_gaps_and_lets_the_others_through(mornings: Mornings) -> None:
    mornings.asked = BOTH
    mornings.world.server.add_faults(BAD)

    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.INCOMPLETE
    (lack,) = end.lacks
    assert (lack.venue, lack.data_type, lack.keys, lack.key) == ("OKX", "trades", 1, "OKX:SPOT_PAIR:BTC-USDT")
    assert "failed in download-" in lack.reason
    assert lack.command.startswith("runner retry download-")
    (candles,) = mornings.runs("candles")
    assert run_record.get_run(mornings.world.store, candles).request["venues"] == ["BINANCE"]
    assert end.run is not None
    assert verdict(mornings.world.store, run_record.get_run(mornings.world.store, end.run)) is Exit.INCOMPLETE


def test_a_gate_that_is_told_to_stand_open_lets_all_through(mornings: Mornings) -> None:
    mornings.asked = BOTH
    mornings.terms = Terms(deadline_s=0.0, poll_s=0.01, allow_incomplete=True)
    mornings.world.server.add_faults(BAD)

    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.INCOMPLETE, "an open gate makes nothing complete"
    (candles,) = mornings.runs("candles")
    assert run_record.get_run(mornings.world.store, candles).request["venues"] == ["BINANCE", "OKX"]


def test_what_failed_is_tried_again_by_the_next_pass_and_nothing_else(mornings: Mornings) -> None:
    mornings.asked = BOTH
    mornings.world.server.add_faults(BAD)
    mornings.run("2024-08-02")
    mornings.world.server.clear_faults()
    mornings.world.server.add_faults({"path": "*/binance/*.csv.gz", "fault": "status", "code": 500})

    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.COMPLETE
    assert mornings.sealed(DAY) == {"false"}


@pytest.mark.slow
def test_mornings_missed_late_and_with_a_venue_down(mornings: Mornings) -> None:
    mornings.asked = BOTH
    # The first day: all is well. Nobody comes the second morning.
    assert mornings.morning("2024-08-02", lookback=2) == {"2024-07-31": "nothing to do", "2024-08-01": "complete"}
    # The third morning: the second day is caught up, the third one's venue is down.
    mornings.world.server.add_faults({**BAD, "path": "*/okex/trades/2024/08/03/*"})
    third = mornings.morning("2024-08-04")
    assert third == {"2024-08-01": "nothing to do", "2024-08-02": "complete", "2024-08-03": "incomplete"}
    assert [mornings.sealed(date(2024, 8, n)) for n in (1, 2)] == [{"true"}, {"true", "false"}]
    # The fourth: the venue is back, and the day itself is not exported, until it is while we wait.
    mornings.world.server.clear_faults()
    mornings.terms = Terms(deadline_s=60.0, poll_s=0.01)
    looks: list[int] = []

    def export_at_the_third_look() -> bool:
        looks.append(1)
        if len(looks) > 40 and not exported:
            exported.append(True)
            mornings.clock("2024-08-05T09:00:00+00:00")
        return False

    exported: list[bool] = []
    mornings.stop = export_at_the_third_look
    mornings.clock("2024-08-05T05:00:00+00:00")
    ends = mornings.run("auto", "2024-08-05T05:00:00+00:00", lookback=4)
    assert [str(end.verdict) for end in ends] == ["nothing to do", "nothing to do", "complete", "complete"]
    assert exported
    assert [mornings.sealed(date(2024, 8, n)) for n in (1, 2, 3)] == [{"true"}] * 3
    assert mornings.unfinished() == []
    assert set(mornings.done.values()) == {1}
    again = mornings.run("auto", "2024-08-05T10:00:00+00:00", lookback=4)
    assert {end.verdict for end in again} == {Verdict.NOTHING}


@pytest.mark.parametrize("venues", [("BINANCE", "OKX"), ("BINANCE",)])
def test_a_venue_whose_catalogue_is_down_is_named_and_stops_no_other(
    mornings: Mornings, venues: tuple[str, ...]
) -> None:
    mornings.asked = {"venues": venues}
    mornings.world.server.add_faults({"path": "*/exchanges/okex", "fault": "status", "code": 503})

    (end,) = mornings.run("2024-08-02")

    assert {(lack.venue, lack.is_pending) for lack in end.lacks} == {(venue, False) for venue in venues[1:]}
    assert end.verdict is (Verdict.INCOMPLETE if end.lacks else Verdict.COMPLETE)
    record = json.loads(mornings.world.store.get(layout.completeness(DAY, "BINANCE")))
    assert record["dataTypes"]["trades"]["verdict"] == "complete"
    mornings.world.server.clear_faults()
    (again,) = mornings.run("2024-08-02")
    assert again.verdict is (Verdict.COMPLETE if end.lacks else Verdict.NOTHING)
    assert mornings.unfinished() == []
    files = [seen for path, seen in mornings.world.server.stats()["paths"].items() if path.endswith(".csv.gz")]
    assert [seen["bodies_completed"] for seen in files] == [1] * (len(venues) + 1)


def test_a_source_whose_catalogues_are_all_down_is_waited_for_and_then_pending(mornings: Mornings) -> None:
    mornings.world.server.add_faults({"path": "*/exchanges/*", "fault": "status", "code": 503})
    (end,) = mornings.run("2024-08-02")
    assert end.verdict is Verdict.PENDING
    assert mornings.runs("download") == []


@pytest.mark.parametrize("spoiled", [layout.completeness(DAY, "BINANCE"), layout.instruments(DAY)])
def test_what_is_wrong_with_one_day_is_told_and_keeps_no_other_from_being_done(
    mornings: Mornings, spoiled: str
) -> None:
    mornings.world.store.put(spoiled, b"spoiled")

    first, second = mornings.run("2024-08-02..2024-08-03")

    assert (first.verdict, spoiled in first.why) == (Verdict.INCOMPLETE, True), first
    record = json.loads(mornings.world.store.get(layout.completeness(NEXT, "BINANCE")))
    assert record["dataTypes"]["trades"]["verdict"] == "complete"
    assert {lack.day for lack in second.lacks} == {DAY}, "it cannot be sealed"
    assert mornings.unfinished() == []


def test_days_that_are_late_share_one_wait(mornings: Mornings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mornings.clock("2024-08-03T05:00:00+00:00")
    mornings.terms = Terms(deadline_s=1.0, poll_s=0.01)

    ends = mornings.run("2024-08-02..2024-08-03")

    assert [end.verdict for end in ends] == [Verdict.PENDING, Verdict.PENDING]
    assert sum(": the deadline" in line for line in caplog.messages) == 2
    assert [line for line in caplog.messages if "day=2024-08-03" in line and "waiting" in line] == []


def test_a_day_that_is_not_exported_by_the_deadline_is_pending_and_done_the_next_time(mornings: Mornings) -> None:
    assert mornings.morning("2024-08-02", lookback=1) == {"2024-08-01": "complete"}
    mornings.clock("2024-08-03T05:00:00+00:00")

    (first, late) = mornings.run("auto", "2024-08-03T05:00:00+00:00", lookback=2)

    assert (first.verdict, late.verdict) == (Verdict.NOTHING, Verdict.PENDING)
    assert all(lack.is_pending for lack in late.lacks)
    assert len(mornings.runs("download")) == 1, "nothing was begun for a day that is not there"
    assert mornings.unfinished() == []
    assert mornings.morning("2024-08-03", lookback=2) == {"2024-08-01": "nothing to do", "2024-08-02": "complete"}
    assert mornings.sealed(date(2024, 8, 1)) == {"true"}


def test_told_to_stop_it_leaves_the_pass_and_the_next_one_goes_on_with_it(mornings: Mornings) -> None:
    mornings.stop = lambda: len(mornings.done) == 3
    with pytest.raises(DrainedError, match="told to stop"):
        mornings.run("2024-08-02")
    assert len(mornings.unfinished()) >= 1
    left = mornings.runs("pipeline")

    mornings.stop = lambda: False
    (end,) = mornings.run("2024-08-02")

    assert (end.verdict, [end.run]) == (Verdict.COMPLETE, left)
    assert mornings.unfinished() == []
    assert set(mornings.done.values()) == {1}


def test_cancelled_it_ends_with_the_run_it_was_at(mornings: Mornings) -> None:
    def cancel_at_the_third_run() -> bool:
        if len(mornings.done) == 2:
            (run,) = mornings.runs("pipeline")
            cancel(mornings.world.store, run)
        return False

    mornings.stop = cancel_at_the_third_run
    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.CANCELLED
    assert mornings.unfinished() == []


def test_a_refused_key_ends_it_at_once_and_says_so(mornings: Mornings) -> None:
    mornings.world.server.add_faults({"path": "*.csv.gz", "fault": "status", "code": 401})
    mornings.world.server.add_faults({"path": "*/api-key-info", "fault": "status", "code": 401})

    ends = mornings.run("2024-08-02..2024-08-03")

    assert [end.verdict for end in ends] == [Verdict.REFUSED]
    assert ends[0].why
    assert mornings.runs("candles") == []
    assert mornings.unfinished() == []


def test_two_at_once_share_one_pass_and_every_run_of_it(mornings: Mornings) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: mornings.run("2024-08-01..2024-08-02"), range(2))

    assert {end.verdict for end in (*one, *other)} <= {Verdict.COMPLETE, Verdict.NOTHING}
    assert len(mornings.runs("pipeline")) == 2
    assert set(mornings.done.values()) == {1}
    assert mornings.unfinished() == []
