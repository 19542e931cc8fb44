"""What is expected against what is there: holes, damage and strangers are found exactly, and records stay put."""

import json
import os
import random
from datetime import date
from pathlib import Path

import pytest

from runner import layout, ledger, run_record
from runner.errors import ConfigError, Exit, NotFoundError, TransientError
from runner.stages import content
from runner.stages import report as reports
from runner.stages.validate import Verdict

DAYS = [date(2024, 8, n) for n in (1, 2, 3)]
BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
TYPES = ("trades", "quotes", "book_snapshot_5")
RECORD = layout.completeness(DAYS[0], "BINANCE")


def whole(world, **more):
    return world.spec(**{"stage": "validate", "data_types": " ".join(TYPES), "end_date": "2024-08-03"} | more)


def judged(world, **more):
    return reports.report(whole(world, **more), world.store, world.tardis)


def path_of(world, key: str) -> Path:
    return Path(world.store.url.removeprefix("file://")) / key


def test_a_complete_store_is_complete(complete) -> None:
    found = judged(complete)
    assert (found.tasks, found.verified, found.gaps, found.duplicated, found.doubts) == (6, 6, (), 0, ())
    assert {(j.day, j.data_type) for j in found.judgements} == {(d, t) for d in DAYS for t in TYPES}
    assert {j.verdict for j in found.judgements} == {Verdict.COMPLETE}
    trades = next(j for j in found.judgements if (j.day, j.data_type) == (DAYS[0], "trades"))
    assert (trades.expected, trades.objects, trades.rows) == ((BTC, ETH), 16, 120)


@pytest.mark.parametrize("seed", range(4))
def test_holes_made_at_random_are_found_exactly(complete, seed: int) -> None:
    rng = random.Random(seed)
    every = [(d, t, k) for d in DAYS for t in TYPES for k in (BTC, ETH)]
    holes: dict[tuple, list[str]] = {}
    for hole in rng.sample(every, rng.randrange(1, 9)):
        outputs = layout.outputs(*hole)
        holes[hole] = rng.sample(outputs, rng.randrange(1, len(outputs) + 1))
        for key in holes[hole]:
            assert complete.store.delete(key)
    found = judged(complete)
    assert {(g.day, g.data_type, g.key): set(g.objects) for g in found.gaps} == {h: set(k) for h, k in holes.items()}
    assert found.verified == 6 - len({(d, k) for d, _, k in holes})
    incomplete = {(d, t) for d, t, _ in holes}
    for judgement in found.judgements:
        is_hole = (judgement.day, judgement.data_type) in incomplete
        assert judgement.verdict is (Verdict.INCOMPLETE if is_hole else Verdict.COMPLETE)
    run = next(run_record.run_ids(complete.store))
    assert {g.reason for g in found.gaps} == {f"done in {run}, and gone from the store since"}


def test_gaps_come_by_day_and_key_with_data_types_as_asked_for(complete) -> None:
    holes = [(day, key, t) for day in (DAYS[0], DAYS[2]) for key in (BTC, ETH) for t in TYPES]
    for day, key, data_type in holes:
        complete.store.delete(layout.ticks(day, data_type, key))
    assert [(g.day, g.key, g.data_type) for g in judged(complete).gaps] == holes


def test_the_repairing_command_repairs(complete) -> None:
    complete.store.delete(layout.ticks(DAYS[1], "quotes", ETH))
    (gap,) = judged(complete).gaps
    words = gap.command.split()
    assert words[:3] == ["runner", "submit", "download"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert flags.pop("--store") == complete.store.url
    spec = complete.spec(**{name.removeprefix("--").replace("-", "_"): value for name, value in flags.items()})
    record = complete.submit(spec).record
    assert record.tasks == 1
    assert complete.carry_out(record, spec) is Exit.DONE
    assert judged(complete).gaps == ()


# A partial request.


def test_a_partial_request_reports_its_part_and_never_narrows_what_is_expected(complete) -> None:
    complete.store.delete(layout.ticks(DAYS[0], "trades", ETH))
    part = judged(complete, instruments=BTC, data_types="trades", end_date="2024-08-01")
    assert (part.tasks, part.verified, part.gaps) == (1, 1, ())
    (judgement,) = part.judgements
    assert (judgement.verdict, judgement.expected) == (Verdict.INCOMPLETE, (BTC, ETH))
    document = json.loads(complete.store.get(RECORD))
    assert document["dataTypes"]["trades"]["verdict"] == "incomplete"
    assert [m["key"] for m in document["dataTypes"]["trades"]["missing"]] == [ETH]


def test_data_types_are_merged_one_by_one(complete) -> None:
    judged(complete, data_types="trades")
    first = json.loads(complete.store.get(RECORD))
    assert list(first["dataTypes"]) == ["trades"]
    complete.store.delete(layout.ticks(DAYS[0], "quotes", ETH))
    judged(complete, data_types="quotes")
    second = json.loads(complete.store.get(RECORD))
    assert second["dataTypes"]["trades"] == first["dataTypes"]["trades"]
    assert second["dataTypes"]["quotes"]["verdict"] == "incomplete"
    assert (second["day"], second["venue"], second["apiVersion"]) == ("2024-08-01", "BINANCE", "runner/v1")


def test_a_record_does_not_change_while_nothing_does(complete) -> None:
    judged(complete)
    first = complete.store.get(RECORD)
    judged(complete)
    assert complete.store.get(RECORD) == first
    complete.store.delete(layout.ticks(DAYS[0], "quotes", ETH))
    judged(complete)
    incomplete = json.loads(complete.store.get(RECORD))["dataTypes"]["quotes"]
    spec = complete.spec(data_types="quotes")
    complete.carry_out(complete.submit(spec).record, spec)
    judged(complete)
    again = json.loads(complete.store.get(RECORD))["dataTypes"]["quotes"]
    before = json.loads(first)["dataTypes"]["quotes"]
    assert again["verdict"] == "complete"
    assert again["expectedDigest"] == incomplete["expectedDigest"] == before["expectedDigest"]
    assert len({each["generationsDigest"] for each in (before, incomplete, again)}) == 3


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"dataTypes": 3}'])
def test_a_damaged_record_is_named(complete, body: bytes) -> None:
    complete.store.put(RECORD, body)
    with pytest.raises(ConfigError, match=rf"{RECORD} in .* is no completeness record"):
        judged(complete)


def test_a_type_that_nobody_offers_is_never_complete(complete) -> None:
    found = judged(complete, data_types="trades liquidations", end_date="2024-08-01")
    assert {j.data_type: j.verdict for j in found.judgements} == {
        "trades": Verdict.COMPLETE,
        "liquidations": Verdict.NOTHING_EXPECTED,
    }
    with pytest.raises(NotFoundError, match="nothing matches"):
        judged(complete, data_types="liquidations")


# Damage.


def damage(path: Path, body: bytes, *, quietly: bool) -> None:
    status = path.stat()
    path.write_bytes(body)
    if quietly:  # as a disk that loses bits: no time changes
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("quietly", [True, False], ids=["quietly", "by hand"])
@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_anywhere_is_found_by_reading_again_and_mended(complete, seed: int, quietly: bool) -> None:  # noqa: FBT001  (parameter)
    rng = random.Random(seed)
    hit = (DAYS[0], rng.choice(TYPES), rng.choice((BTC, ETH)))
    key = rng.choice(layout.outputs(*hit))
    body = bytearray(complete.store.get(key))
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    damage(path_of(complete, key), bytes(body), quietly=quietly)
    found = judged(complete, deep=True, end_date="2024-08-01")
    if not quietly and not found.gaps:
        # The file has lost its facts; what is left is its own word, which must still be true.
        assert judged(complete).gaps[0].objects == (key,)
        return
    assert [(g.day, g.data_type, g.key, g.objects) for g in found.gaps] == [(*hit, (key,))]
    assert found.gaps[0].command.endswith("--select all")
    spec = complete.spec(data_types=hit[1], instruments=hit[2], select="all")
    assert complete.carry_out(complete.submit(spec).record, spec) is Exit.DONE
    assert judged(complete, deep=True, end_date="2024-08-01").gaps == ()


@pytest.mark.parametrize("keep", [0, 3, 500, -1])
def test_a_truncated_object_is_found(complete, keep: int) -> None:
    key = layout.ticks(DAYS[0], "trades", BTC)
    body = complete.store.get(key)
    damage(path_of(complete, key), body[:keep], quietly=True)
    for deep in (False, True):
        assert [g.objects for g in judged(complete, deep=deep, end_date="2024-08-01").gaps] == [(key,)]


@pytest.mark.parametrize("how", ["renamed", "committed with its facts"])
def test_two_objects_in_each_other_s_place_are_found(complete, how: str) -> None:
    one, other = (layout.ticks(DAYS[0], "trades", key) for key in (BTC, ETH))
    if how == "renamed":
        here, there = path_of(complete, one), path_of(complete, other)
        here.rename(here.with_suffix(".x"))
        there.rename(here)
        here.with_suffix(".x").rename(there)
    else:
        infos = {key: complete.store.head(key) for key in (one, other)}
        bodies = {key: complete.store.get(key) for key in (one, other)}
        for key, source in ((one, other), (other, one)):
            facts = infos[source].metadata
            complete.store.put(key, bodies[source], if_generation=infos[key].generation, metadata=facts)
    found = judged(complete, deep=True, end_date="2024-08-01")
    assert {g.objects for g in found.gaps} == {(one,), (other,)}
    assert f"{one} is the file of {other}" in {g.reason for g in found.gaps}


def test_timeframes_in_each_other_s_place_are_found(complete) -> None:
    one, other = layout.candles(DAYS[0], "1m", BTC), layout.candles(DAYS[0], "5m", BTC)
    path_of(complete, one).write_bytes(complete.store.get(other))
    assert [g.objects for g in judged(complete, deep=True, end_date="2024-08-01").gaps] == [(one,)]


def test_a_file_of_somebody_else_is_unproven(complete) -> None:
    key = layout.ticks(DAYS[0], "trades", BTC)
    complete.store.delete(key)
    complete.store.put(key, b"not ours", metadata={"rows": "many", "outcome": "fine"})
    (gap,) = judged(complete).gaps
    assert "no metadata of ours" in gap.reason
    assert gap.command.endswith("--select all")


# Doubts.


@pytest.mark.parametrize(
    "name", ["BINANCE:SPOT_PAIR:FOO-BAR", "BINANCE:SPOT_PAIR:BTC-USDT.parquet.bak", "notes", "x:y"]
)
def test_what_nobody_expects_is_a_doubt_and_no_gap(complete, name: str) -> None:
    key = f"{layout.ticks_prefix(DAYS[0], 'quotes')}{name}.parquet"
    complete.store.put(key, b"")
    found = judged(complete)
    assert found.doubts == (f"{key} is there, and the catalogue does not offer it",)
    assert (found.gaps, found.verified) == ((), 6)
    assert json.loads(complete.store.get(RECORD))["dataTypes"]["quotes"]["doubts"] == list(found.doubts)


def test_other_venues_objects_are_no_doubt_of_this_one(complete) -> None:
    complete.store.put(layout.ticks(DAYS[0], "quotes", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"), b"")
    assert judged(complete).doubts == ()


def test_a_source_that_contradicts_its_catalogue_is_a_doubt(world) -> None:
    body = json.dumps({"code": 300, "message": "there is no such file"})
    world.server.add_faults({"path": "*/quotes/*/ETHUSDT*", "fault": "status", "code": 400, "body": body})
    spec = world.spec(data_types="quotes")
    assert world.carry_out(world.submit(spec).record, spec) is Exit.DONE
    found = judged(world, data_types="quotes", end_date="2024-08-01")
    key = layout.ticks(DAYS[0], "quotes", ETH)
    assert found.doubts == (f"{key}: the source has no such file, though its catalogue offers it",)
    assert found.gaps == ()


# Reasons, and one key explained.


def explained(world, key: str, day: date, types: str = "trades"):
    return reports.explain(world.spec(data_types=types), world.store, world.tardis, key, day)


def test_what_was_never_asked_for_is_told_from_what_is_not_exported_yet(world) -> None:
    found = judged(world, data_types="trades", end_date="2024-08-04")
    reasons = {(g.day.day, g.key): g.reason for g in found.gaps}
    assert {reason for (day, _), reason in reasons.items() if day < 4} == {"never downloaded"}
    assert {reason for (day, _), reason in reasons.items() if day == 4} == {"pending: not exported yet"}
    assert len(reasons) == 8


def test_each_reason_names_its_run_and_what_mends_it(world) -> None:
    world.server.add_faults({"path": "*/trades/*/01/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"})
    spec = world.spec(end_date="2024-08-04")
    record = world.submit(spec).record
    assert world.carry_out(record, spec) is Exit.INCOMPLETE
    found = judged(world, data_types="trades", end_date="2024-08-04")
    gaps = {(g.day.day, g.key): g for g in found.gaps}
    assert set(gaps) == {(1, ETH), (4, BTC), (4, ETH)}
    failed = gaps[1, ETH]
    assert failed.reason.startswith(f"failed in {record.id}: binance trades 2024-08-01 ETHUSDT: ")
    assert failed.command == f"runner retry {record.id} --store {world.store.url}"
    assert gaps[4, BTC].reason == f"pending: not exported when {record.id} asked"
    assert "--start-date 2024-08-04 --end-date 2024-08-04" in gaps[4, BTC].command


def test_every_state_of_an_object_is_explained(complete) -> None:
    run = next(run_record.run_ids(complete.store))
    (present,) = explained(complete, BTC.lower(), DAYS[0])
    assert (present.state, present.reason) == ("present", f"done, 60 rows, by {run}; its candles are provisional")
    assert present.object_key == layout.ticks(DAYS[0], "trades", BTC)
    (unknown,) = explained(complete, BTC, DAYS[0], "liquidations")
    assert unknown.state == "not_expected"
    assert "offers only book_snapshot_5, quotes, trades" in unknown.reason
    complete.store.delete(layout.candles(DAYS[0], "1h", BTC))
    (missing,) = explained(complete, BTC, DAYS[0])
    assert missing.state == "missing"
    assert missing.reason == f"done in {run}, and gone from the store since"
    assert missing.command.startswith("runner submit download --start-date 2024-08-01")
    (pending,) = explained(complete, BTC, date(2024, 8, 9))
    assert (pending.state, pending.reason) == ("missing", "pending: not exported yet")


def test_a_key_that_is_not_listed_is_told_with_the_nearest(complete) -> None:
    with pytest.raises(NotFoundError, match=r"not listed on 2024-08-01; did you mean BINANCE:SPOT_PAIR:BTC-USDT\?"):
        explained(complete, "BINANCE:SPOT_PAIR:BTC-USD", DAYS[0])
    with pytest.raises(NotFoundError, match="no instrument of OKX is listed on 2024-08-01; venues that day: BINANCE"):
        explained(complete, "OKX:SPOT_PAIR:BTC-USDT", DAYS[0])


def test_an_answer_kept_as_proof_is_explained(world) -> None:
    body = json.dumps({"code": 140, "message": "no data then"})
    world.server.add_faults({"path": "*/trades/*", "fault": "status", "code": 400, "body": body})
    spec = world.spec()
    world.carry_out(world.submit(spec).record, spec)
    (told,) = explained(world, BTC, DAYS[0])
    assert told.state == "present"
    assert told.reason.startswith("not_available, 0 rows, by download-")
    assert "no data then" in told.reason


def test_what_is_strange_in_a_sound_file_is_explained(world) -> None:
    world.server.add_faults({"path": "*/trades/*", "fault": "corrupt", "kind": "duplicate_ids"})
    spec = world.spec()
    world.carry_out(world.submit(spec).record, spec)
    (told,) = explained(world, BTC, DAYS[0])
    assert told.state == "present"
    assert told.reason.startswith("done, 61 rows, by download-")
    assert "kept as they came: repeated_ids=1" in told.reason


# The stage, as a run does it.


def test_the_stage_writes_the_same_records_as_the_report(complete) -> None:
    judged(complete, end_date="2024-08-01")
    by_report = complete.store.get(RECORD)
    complete.store.delete(RECORD)
    spec = whole(complete, end_date="2024-08-01")
    assert complete.carry_out(complete.submit(spec).record, spec) is Exit.DONE
    assert complete.store.get(RECORD) == by_report


def test_the_stage_fails_where_something_is_missing(complete) -> None:
    complete.store.delete(layout.ticks(DAYS[0], "quotes", ETH))
    spec = whole(complete, end_date="2024-08-01")
    record = complete.submit(spec).record
    assert complete.carry_out(record, spec) is Exit.INCOMPLETE
    entries = ledger.fold(ledger.read_attempts(complete.store, record.id)).entries
    errors = {data_type: entry.facts.get("error") for (_, data_type), entry in entries.items()}
    assert errors["trades"] is None
    assert "2024-08-01 BINANCE quotes: 1 of 2 missing, first: BINANCE:SPOT_PAIR:ETH-USDT" in errors["quotes"]


def test_doing_everything_again_is_not_counted_as_twice_written(complete) -> None:
    forced = complete.spec(select="all")
    complete.carry_out(complete.submit(forced).record, forced)
    assert judged(complete).duplicated == 0


@pytest.mark.parametrize(("changes", "fault"), [(1, ""), (99, "changed 5 times while it was read"), (None, "removed")])
def test_an_object_that_changes_while_it_is_read_is_looked_at_again(complete, changes, fault) -> None:
    class Busy:
        """Between the look and the reading the object is written again, or removed."""

        def __init__(self) -> None:
            self.left = changes

        def __getattr__(self, name: str) -> object:
            return getattr(complete.store, name)

        def get(self, key: str, **part: object) -> bytes:
            live = complete.store.head(key)
            if live is None:
                return complete.store.get(key, **part)
            if self.left is None:
                complete.store.delete(key)
            elif self.left:
                self.left -= 1
                body = complete.store.get(key)
                complete.store.put(key, body, if_generation=live.generation, metadata=live.metadata)
            return complete.store.get(key, **part)

    info = next(complete.store.list("raw_tick_data/"))
    if fault.startswith("changed"):
        with pytest.raises(TransientError, match=fault):
            content.fault(Busy(), info, deep=True)
    else:
        found = content.fault(Busy(), info, deep=True)
        assert fault in found
        assert bool(found) is bool(fault)
