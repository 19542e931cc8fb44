"""The reports of a day against the folder itself, read by hand: each thing offered stands in exactly one of them."""

import io
import random
import shlex
import urllib.request
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner import ledger
from runner.errors import Exit, NotFoundError, TransientError
from runner.stages import availability
from runner.stages.availability import AVAILABLE, MISSING
from runner.store import ABSENT
from runner.task import Stage, Task

DAYS = ("2024-08-01", "2024-08-02", "2024-08-03")
TYPES = ("book_snapshot_5", "quotes", "trades")
KEYS = ("BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT")
WHO = "day venue instrument_type instrument_key tardis_exchange tardis_symbol data_type"
TIMEFRAMES = ("15s", "1m", "5m", "15m", "1h", "4h", "24h")


def places(day: str, data_type: str, key: str) -> set[str]:
    """Return where everything of a (day, type, instrument) lies, written down a second time."""
    derived = {
        "trades": f"processed_candles/by_date/day-{day}/timeframe-{{}}/{key}.parquet",
        "book_snapshot_5": f"processed_book_snapshots/by_date/day-{day}/depth-5/timeframe-{{}}/{key}.parquet",
    }
    made = {derived[data_type].format(timeframe) for timeframe in TIMEFRAMES} if data_type in derived else set()
    return made | {ticks(day, data_type, key)}


def ticks(day: str, data_type: str, key: str) -> str:
    return f"raw_tick_data/by_date/day-{day}/data_type-{data_type}/{key}.parquet"


def folder(world) -> Path:
    return Path(world.store.url.removeprefix("file://"))


def submit(world, **asked):
    values = {"stage": "availability", "data_types": " ".join(TYPES), "end_date": DAYS[-1], **asked}
    spec = world.spec(**values)
    record = world.submit(spec).record
    return record, world.carry_out(record, spec)


def reports(world, day: str) -> tuple[pa.Table, pa.Table]:
    return tuple(
        pq.read_table(io.BytesIO((folder(world) / kind / "by_date" / f"day-{day}" / name).read_bytes()))
        for kind, name in (
            ("missing_data_reports", "missing_data.parquet"),
            ("available_tick_data", "available_data.parquet"),
        )
    )


def by_hand(world, day: str) -> tuple[dict, dict]:
    """Return what is missing, its objects, and what is available, its facts, by what files there are."""
    root, missing, available = folder(world), {}, {}
    for key in KEYS:
        for data_type in TYPES:
            lacking = {place for place in places(day, data_type, key) if not (root / place).exists()}
            if lacking:
                missing[key, data_type] = lacking
                continue
            path = root / ticks(day, data_type, key)
            times = pq.read_table(path, columns=["timestamp"]).column(0).to_pylist()
            available[key, data_type] = (len(times), path.stat().st_size, min(times), max(times))
    return missing, available


@pytest.mark.parametrize("seed", range(3))
def test_reports_say_what_the_folder_holds(complete, seed: int) -> None:
    rng = random.Random(seed)
    every = [place for d in DAYS for t in TYPES for k in KEYS for place in sorted(places(d, t, k))]
    for place in rng.sample(every, 12):
        assert complete.store.delete(place)
    record, code = submit(complete)
    assert (code, record.tasks) == (Exit.DONE, 3)
    for day in DAYS:
        missing, available = reports(complete, day)
        expected_missing, expected_available = by_hand(complete, day)
        assert {(r["instrument_key"], r["data_type"]): set(r["objects"]) for r in missing.to_pylist()} == (
            expected_missing
        )
        assert {
            (r["instrument_key"], r["data_type"]): (r["rows"], r["bytes"], r["min_timestamp"], r["max_timestamp"])
            for r in available.to_pylist()
        } == expected_available
        assert missing.num_rows + available.num_rows == len(KEYS) * len(TYPES)


def test_schemas_are_fixed_also_where_nothing_stands(complete) -> None:
    submit(complete, end_date=DAYS[0])
    missing, available = reports(complete, DAYS[0])
    assert missing.num_rows == 0
    assert (missing.schema.remove_metadata(), available.schema.remove_metadata()) == (MISSING, AVAILABLE)
    assert " ".join(missing.column_names) == f"{WHO} outcome reason objects command"
    assert " ".join(available.column_names) == (
        f"{WHO} outcome rows bytes objects min_timestamp max_timestamp digest source_md5 generation"
    )
    row = next(r for r in available.to_pylist() if (r["instrument_key"], r["data_type"]) == (KEYS[0], "trades"))
    info = complete.store.head(ticks(DAYS[0], "trades", KEYS[0]))
    assert (row["day"], row["venue"], row["instrument_type"]) == (date(2024, 8, 1), "BINANCE", "SPOT_PAIR")
    assert (row["tardis_exchange"], row["tardis_symbol"]) == ("binance", "BTCUSDT")
    assert (row["outcome"], row["objects"], row["generation"]) == ("done", 8, info.generation)


def test_an_empty_store_misses_everything_and_the_command_brings_it(world) -> None:
    submit(world, end_date=DAYS[0])
    missing, available = reports(world, DAYS[0])
    assert (missing.num_rows, available.num_rows) == (6, 0)
    assert set(missing.column("reason").to_pylist()) == {"never downloaded"}
    assert missing.column("outcome").null_count == 6
    words = shlex.split(missing.to_pylist()[0]["command"])
    assert words[:3] == ["runner", "submit", "download"]
    flags = {name.removeprefix("--").replace("-", "_"): v for name, v in zip(words[3::2], words[4::2], strict=True)}
    spec = world.spec(**flags)
    assert world.carry_out(world.submit(spec).record, spec) is Exit.DONE
    submit(world, end_date=DAYS[0])
    missing, available = reports(world, DAYS[0])
    assert (missing.num_rows, available.num_rows) == (5, 1)


def test_a_failure_is_told_with_its_run_and_retry(world) -> None:
    world.server.add_faults({"path": "*/trades/2024/08/01/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"})
    spec = world.spec()
    record = world.submit(spec).record
    assert world.carry_out(record, spec) is Exit.INCOMPLETE
    submit(world, end_date=DAYS[0], data_types="trades")
    missing, available = reports(world, DAYS[0])
    (row,) = missing.to_pylist()
    assert (row["instrument_key"], row["outcome"]) == (KEYS[1], "failed")
    assert row["reason"].startswith(f"failed in {record.id}: ")
    assert row["command"] == f"runner retry {record.id} --store {world.store.url}"
    assert available.column("instrument_key").to_pylist() == [KEYS[0]]


def test_a_day_that_is_not_exported_yet_is_pending(world) -> None:
    now = urllib.request.Request(f"{world.server.control}/clock", b'{"now": "2024-08-03T12:00:00Z"}')
    urllib.request.urlopen(now).close()
    submit(world, start_date=DAYS[2], end_date=DAYS[2])
    missing, available = reports(world, DAYS[2])
    assert (missing.num_rows, available.num_rows) == (6, 0)
    assert set(missing.column("outcome").to_pylist()) == {"pending"}
    assert set(missing.column("reason").to_pylist()) == {"pending: not exported yet"}


def test_damage_is_missing_and_mended_by_replacing(complete) -> None:
    place = ticks(DAYS[0], "quotes", KEYS[0])
    body = complete.store.get(place)
    complete.store.put(place, body, if_generation=complete.store.head(place).generation, metadata={"rows": "x"})
    submit(complete, end_date=DAYS[0])
    (row,) = reports(complete, DAYS[0])[0].to_pylist()
    assert (row["objects"], row["outcome"]) == ([place], None)
    assert row["command"].endswith("--select all")


def test_reports_follow_the_selection_and_say_it(complete) -> None:
    submit(complete, end_date=DAYS[0], data_types="trades", instruments="*:ETH-*")
    _, available = reports(complete, DAYS[0])
    assert [(r["instrument_key"], r["data_type"]) for r in available.to_pylist()] == [(KEYS[1], "trades")]
    assert b'"dataTypes": ["trades"]' in available.schema.metadata[b"selection"]
    with pytest.raises(NotFoundError, match="nothing matches"):
        submit(complete, instruments="*:DOGE-*")


def test_every_run_writes_anew_and_equal_stores_give_equal_tables(complete) -> None:
    first, _ = submit(complete, end_date=DAYS[0])
    before = reports(complete, DAYS[0])
    place = "missing_data_reports/by_date/day-2024-08-01/missing_data.parquet"
    generation = complete.store.head(place).generation
    second, _ = submit(complete, end_date=DAYS[0])
    assert second.id == f"{first.id}-r1"
    assert complete.store.head(place).generation != generation
    assert reports(complete, DAYS[0]) == before
    (entry,) = ledger.fold(ledger.read_attempts(complete.store, second.id)).entries.values()
    assert (entry.task_id, entry.data_type) == ("availability/2024-08-01/*", "availability")
    assert (entry.facts["rows"], entry.facts["missing"], entry.facts["pending"]) == (6, 0, 0)


def test_a_report_written_meanwhile_is_looked_at_again(complete, tools) -> None:
    """Somebody deletes ticks and reports it while we list: our report, listed before, must not stand."""
    spec = complete.spec(stage="availability", data_types=" ".join(TYPES))
    store, interrupted = complete.store, []

    class Interrupted:
        """The store, in which another run gets in between our look and our write, once."""

        url = store.url

        def __getattr__(self, name):
            return getattr(store, name)

        def put(self, key, body, **more):
            if not interrupted:
                interrupted.append(key)
                assert store.delete(ticks(DAYS[0], "quotes", KEYS[0]))
                submit(complete, end_date=DAYS[0])
            return store.put(key, body, **more)

    ours = tools(Interrupted(), complete.tardis, spec=spec)
    entry = availability.run(Task(Stage.AVAILABILITY, date(2024, 8, 1), "*", ("availability",)), "availability", ours)
    assert entry.facts["missing"] == 1
    assert reports(complete, DAYS[0])[0].num_rows == 1


def test_reports_that_never_stand_still_are_given_up(complete, tools) -> None:
    store = complete.store

    class Restless:
        url = store.url

        def __getattr__(self, name):
            return getattr(store, name)

        def put(self, key, body, **more):
            info = store.head(key)
            store.put(key, b"another's", if_generation=info.generation if info else ABSENT)
            return store.put(key, body, **more)

    ours = tools(Restless(), complete.tardis, spec=complete.spec(data_types="trades"))
    with pytest.raises(TransientError, match="run again"):
        availability.run(Task(Stage.AVAILABILITY, date(2024, 8, 1), "*", ("availability",)), "availability", ours)
