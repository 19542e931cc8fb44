"""Stage candles: what it makes of three days of ticks, against plain Python; when it seals, replaces and refuses."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from runner.errors import IntegrityError, PreconditionError, WorkerExit
from runner.ledger import Attempt, write_ledger
from runner.stages.commit import Mode, commit
from runner.store import ABSENT, Store, open_store
from runner.store.memory import MemoryStore
from runner.task import Entry, Outcome, Source
from tests.unit.stages.candle_world import (
    AFTER,
    BEFORE,
    DAY,
    DAY_US,
    DAYS,
    KEY,
    LINEAR,
    MIDNIGHT,
    SECOND,
    SECONDS,
    Dice,
    Files,
    candle_path,
    differences,
    facts_of,
    inputs_of,
    make,
    oracle,
    path_of,
    put_all,
    put_ticks,
    rows_of,
    table_of,
)

SAMPLES = Path(__file__).parents[3] / "runner" / "sandbox" / "data" / "binance"
ALL = ("trades", "derivative_ticker", "liquidations")
INVERSE = replace(LINEAR, inverse=True, amount_unit="quote")
CONTRACTS = replace(LINEAR, amount_unit="contract", contract_size=0.01)
INVERSE_CONTRACTS = replace(LINEAR, inverse=True, amount_unit="contract", contract_size=100.0)
UNKNOWN_SIZE = replace(LINEAR, amount_unit="contract")


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path) -> Store:
    return MemoryStore("memory://candles") if request.param == "memory" else open_store(f"file://{tmp_path}/store")


@pytest.fixture
def memory() -> Store:
    return MemoryStore("memory://candles")


def digests(store: Store, data_type: str = "trades") -> dict[str, str]:
    return {timeframe: facts_of(store, timeframe, data_type)["digest"] for timeframe in SECONDS}


@pytest.mark.parametrize("seed", [1, 2])
def test_every_timeframe_is_what_its_rows_give_one_by_one(seed: int, memory: Store) -> None:
    files = Dice(seed).files(*ALL)
    put_all(memory, files)
    assert make(memory).outcome is Outcome.DONE
    for timeframe in SECONDS:
        assert differences(table_of(memory, timeframe), oracle(files, timeframe)) == [], timeframe


@pytest.mark.parametrize("source", [INVERSE, CONTRACTS, INVERSE_CONTRACTS, UNKNOWN_SIZE])
def test_volumes_are_in_the_units_of_the_venue(source: Source, memory: Store) -> None:
    files = Dice(3, rows=120).files("trades")
    put_all(memory, files)
    make(memory, source=source)
    assert differences(table_of(memory, "1h"), oracle(files, "1h", source)) == []


@pytest.mark.parametrize(
    "present", [("trades",), ("trades", "derivative_ticker"), ("trades", "liquidations")], ids="+".join
)
def test_a_type_that_nobody_asked_for_leaves_its_columns_null(present: tuple[str, ...], memory: Store) -> None:
    files = Dice(4, rows=60).files(*present)
    put_all(memory, files)
    entry = make(memory)
    assert entry.facts["sealed"] is True
    assert differences(table_of(memory, "4h"), oracle(files, "4h")) == []


def test_the_sums_of_a_type_that_is_settled_and_empty_are_zero(memory: Store) -> None:
    files = Dice(5, rows=60).files("trades", "derivative_ticker") | {("liquidations", day): [] for day in DAYS}
    put_all(memory, files)
    make(memory)
    (bar,) = table_of(memory, "24h")
    assert (bar["liquidation_buy_volume"], bar["liquidation_count"], bar["liquidation_with_rising_oi"]) == (0.0, 0, 0.0)
    assert differences([bar], oracle(files, "24h")) == []


def test_a_type_that_is_not_offered_leaves_its_columns_null(memory: Store) -> None:
    put_all(memory, Dice(6, rows=60).files("trades"))
    put_ticks(memory, "liquidations", DAY, outcome="not_offered")
    assert make(memory).facts["sealed"] is True
    assert table_of(memory, "24h")[0]["liquidation_count"] is None


def test_rows_before_in_and_after_the_day_are_all_rows(memory: Store) -> None:
    files = Dice(7).files("trades")
    put_all(memory, files, row_group=64)
    facts = make(memory).facts
    times = [row["timestamp"] for row in rows_of(files, "trades") or []]
    assert facts["rows_before"] == sum(t < MIDNIGHT for t in times)
    assert facts["rows"] == sum(MIDNIGHT <= t < MIDNIGHT + DAY_US for t in times)
    assert facts["rows_after"] == sum(t >= MIDNIGHT + DAY_US for t in times)


def test_content_does_not_depend_on_the_row_groups_that_ticks_are_stored_in() -> None:
    files, found = Dice(8, rows=900).files(*ALL, "book_snapshot_5"), set()
    for row_group in (1, 37, 512, 131_072):
        store = MemoryStore("memory://candles")
        put_all(store, files, row_group=row_group)
        make(store)
        make(store, "book_snapshot_5")
        found.add((*digests(store).values(), *digests(store, "book_snapshot_5").values()))
    assert len(found) == 1


class CountingStore(MemoryStore):
    """Remembers which bytes of which object were asked for."""

    def __init__(self) -> None:
        super().__init__("memory://counted")
        self.read: dict[str, int] = {}

    def get(self, key, *, start=0, length=None, if_generation=None):
        body = super().get(key, start=start, length=length, if_generation=if_generation)
        self.read[key] = self.read.get(key, 0) + len(body)
        return body


def test_of_the_days_beside_only_row_groups_that_touch_the_day_are_read() -> None:
    store, dice = CountingStore(), Dice(9, rows=60_000)
    put_all(store, dice.files("trades"), row_group=3_000)
    make(store)
    for day in (BEFORE, AFTER):
        info = store.head(path_of(day, "trades"))
        assert info is not None
        assert store.read[info.key] < info.size / 2


def test_open_interest_is_looked_for_in_the_day_before_however_far_back(memory: Store) -> None:
    def ticker(at: int, interest: float | None) -> dict[str, object]:
        return {"timestamp": at, "local_timestamp": at, "open_interest": interest, "mark_price": 1.0}

    early = [ticker(MIDNIGHT - DAY_US + n * SECOND, 7.0 if n == 3 else None) for n in range(50)]
    put_all(memory, Dice(10, rows=40).files("trades"))
    put_ticks(memory, "derivative_ticker", BEFORE, early, row_group=5)
    put_ticks(memory, "derivative_ticker", DAY, [ticker(MIDNIGHT + SECOND, 9.5)])
    make(memory)
    bars = table_of(memory, "15s")
    assert [bars[0]["open_interest"], bars[0]["oi_change"], bars[1]["oi_change"]] == [9.5, 2.5, None]


def changed_later(files: Files, cut: int, seed: int) -> Files:
    """The same files, but every row whose exchange time is at or after `cut` is another one."""
    dice, found = Dice(seed), {}
    for (data_type, day), rows in files.items():
        kept = [row for row in rows if row["timestamp"] < cut]
        later = [{**row, **dice.values(data_type)} for row in dice.file(data_type, day) if row["timestamp"] >= cut]
        found[data_type, day] = sorted(kept + later, key=lambda row: row["local_timestamp"])
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_no_bar_knows_anything_of_what_comes_after_it(share: float) -> None:
    files = Dice(11).files(*ALL, "book_snapshot_5")
    cut = MIDNIGHT + int(share * 96) * 900 * SECOND  # the end of a 15-minute bar
    stores = []
    for each in (files, changed_later(files, cut, 12)):
        stores.append(store := MemoryStore("memory://candles"))
        put_all(store, each)
        make(store)
        make(store, "book_snapshot_5")
    for data_type, timeframe in itertools.product(("trades", "book_snapshot_5"), ("15s", "1m", "5m", "15m")):
        ends = (cut - MIDNIGHT) // (SECONDS[timeframe] * SECOND)
        one, other = (table_of(store, timeframe, data_type) for store in stores)
        assert one[:ends] == other[:ends]
        assert one[ends:] != other[ends:]


def first_snapshot(rows: list[dict[str, object]], start: int, end: int) -> dict[str, object] | None:
    return next((row for row in rows if start <= int(str(row["timestamp"])) < end), None)


@pytest.mark.parametrize("data_type", ["book_snapshot_5", "book_snapshot_25"])
def test_a_book_candle_is_the_first_snapshot_of_all_three_files(data_type: str, memory: Store) -> None:
    files = Dice(13, rows=150).files(data_type)
    put_all(memory, files, row_group=40)
    assert make(memory, data_type).facts["sealed"] is True
    rows, depth = rows_of(files, data_type) or [], int(data_type.rsplit("_", 1)[1])
    for timeframe, seconds in SECONDS.items():
        for bar, mine in enumerate(table_of(memory, timeframe, data_type)):
            start = MIDNIGHT + bar * seconds * SECOND
            theirs = first_snapshot(rows, start, start + seconds * SECOND)
            assert (mine["snapshot_timestamp"] is None) == (theirs is None)
            for level, side, what in itertools.product(range(1, depth + 1), ("ask", "bid"), ("price", "volume")):
                name = f"{side}_{what}_{level}"
                assert mine[name] == (theirs.get(name) if theirs else None)


def test_a_day_alone_is_provisional_and_sealed_by_its_neighbours(store: Store) -> None:
    files = Dice(14, rows=60).files(*ALL)
    for name in ALL:
        put_ticks(store, name, DAY, files[name, DAY])
    assert make(store).facts["sealed"] is False
    assert facts_of(store)["sealed"] == "false"
    assert [state for _, _, state in inputs_of(store)].count("absent") == 6
    for name in ALL:
        put_ticks(store, name, AFTER, files[name, AFTER])
    assert make(store).facts["sealed"] is False
    for name in ALL:
        put_ticks(store, name, BEFORE, files[name, BEFORE])
    entry = make(store)
    assert (entry.facts["sealed"], entry.facts["written"]) == (True, True)
    assert facts_of(store)["sealed"] == "true"
    bars = MIDNIGHT, MIDNIGHT + DAY_US - 3_600 * SECOND
    assert tuple(int(facts_of(store)[name]) for name in ("min_ts", "max_ts")) == bars
    assert len(inputs_of(store)) == 9
    assert differences(table_of(store, "1h"), oracle(files, "1h")) == []
    again = make(store)
    assert (again.outcome, again.facts["written"]) == (Outcome.DONE, False)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whatever_order_the_days_come_in_the_final_objects_are_the_same(order: tuple[int, ...], memory: Store) -> None:
    files = Dice(15, rows=40).files(*ALL)
    straight = MemoryStore("memory://straight")
    put_all(straight, files)
    make(straight)
    for number in order:
        for name in ALL:
            put_ticks(memory, name, DAYS[number], files[name, DAYS[number]])
        make(memory)
    assert {t: memory.get(candle_path(t)) for t in SECONDS} == {t: straight.get(candle_path(t)) for t in SECONDS}


@pytest.mark.parametrize(
    ("source", "absent"),
    [(replace(LINEAR, listed_from=DAY), BEFORE), (replace(LINEAR, listed_to=AFTER), AFTER)],
    ids=["just listed", "delisted"],
)
def test_a_neighbour_outside_the_listing_is_settled(source: Source, absent: date, memory: Store) -> None:
    files = {name: rows for name, rows in Dice(16, rows=40).files(*ALL).items() if name[1] != absent}
    put_all(memory, files)
    assert make(memory, source=source).facts["sealed"] is True
    assert [(day, state) for name, day, state in inputs_of(memory) if name == "trades" and day == str(absent)] == [
        (str(absent), "not_available")
    ]


def test_a_joined_type_that_comes_later_makes_the_candles_anew(memory: Store) -> None:
    files = Dice(17, rows=60).files(*ALL)
    put_all(memory, {name: rows for name, rows in files.items() if name[0] == "trades"})
    make(memory)
    assert table_of(memory, "24h")[0]["mark_price"] is None
    put_all(memory, files)
    assert make(memory).facts["written"] is True
    assert differences(table_of(memory, "24h"), oracle(files, "24h")) == []


def test_replaced_ticks_make_the_candles_anew(memory: Store) -> None:
    put_all(memory, Dice(18, rows=60).files("trades"))
    make(memory)
    files = Dice(19, rows=60).files("trades")
    put_all(memory, files)
    assert make(memory).facts["written"] is True
    assert differences(table_of(memory, "1h"), oracle(files, "1h")) == []


def failed(store: Store, data_type: str, outcome: Outcome = Outcome.FAILED) -> None:
    entry = Entry(f"download/{DAY}/{KEY}", data_type, outcome, {"error": "the line broke", "exit": 65})
    write_ledger(store, "download-1a2b3c4d", Attempt(0, "a1", WorkerExit.TASKS_FAILED, (entry,)))


def test_a_joined_type_that_failed_allows_no_candle_yet(memory: Store) -> None:
    put_all(memory, Dice(20, rows=40).files("trades"))
    failed(memory, "derivative_ticker")
    entry = make(memory)
    assert entry.outcome is Outcome.FAILED
    for word in ("derivative_ticker", "the line broke", "runner retry download-1a2b3c4d", KEY, str(DAY)):
        assert word in str(entry.facts["error"])
    assert memory.head(candle_path("1h")) is None


def test_a_type_that_failed_once_and_is_there_now_is_used(memory: Store) -> None:
    put_all(memory, Dice(20, rows=40).files("trades", "derivative_ticker"))
    failed(memory, "derivative_ticker")
    assert make(memory).outcome is Outcome.DONE


def test_without_trades_the_entry_names_the_download(memory: Store) -> None:
    entry = make(memory)
    assert entry.outcome is Outcome.FAILED
    assert f"runner submit download --start-date {DAY} --end-date {DAY}" in str(entry.facts["error"])
    assert f"--instruments {KEY} --data-types trades" in str(entry.facts["error"])


def test_trades_that_are_not_exported_yet_are_waited_for(memory: Store) -> None:
    failed(memory, "trades", Outcome.PENDING)
    assert make(memory).outcome is Outcome.PENDING


def test_a_day_that_was_never_to_have_trades_has_candles_without_a_bar(memory: Store) -> None:
    put_ticks(memory, "trades", DAY, outcome="not_offered")
    entry = make(memory)
    assert (entry.outcome, entry.facts["sealed"]) == (Outcome.NOT_OFFERED, True)
    assert table_of(memory, "15s") == []


def test_an_empty_day_has_every_bar_and_trades_that_came_in_the_next_file(memory: Store) -> None:
    files = Dice(21, rows=40).files("trades")
    files["trades", DAY] = []
    put_all(memory, files)
    assert make(memory).outcome is Outcome.DONE
    assert differences(table_of(memory, "15s"), oracle(files, "15s")) == []


class Between(MemoryStore):
    """Does something once, just before the first put of a candle object."""

    def __init__(self, then) -> None:
        super().__init__("memory://between")
        self.then = then

    def put(self, key, body, *, if_generation=ABSENT, metadata=None):
        if key.startswith("processed_candles") and (then := self.then) is not None:
            self.then = None
            then(self)
        return super().put(key, body, if_generation=if_generation, metadata=metadata)


def test_a_frozen_twin_that_wakes_with_old_inputs_never_wins() -> None:
    files = Dice(22, rows=60).files("trades")

    def meanwhile(store: MemoryStore) -> None:
        put_all(store, files)
        assert make(store).facts["sealed"] is True

    store = Between(None)
    put_ticks(store, "trades", DAY, files["trades", DAY])
    make(store)
    put_ticks(store, "trades", BEFORE, files["trades", BEFORE])
    store.then = meanwhile
    make(store)
    assert facts_of(store)["sealed"] == "true"
    assert differences(table_of(store, "1h"), oracle(files, "1h")) == []


def test_ticks_replaced_while_candles_are_made_are_taken_up() -> None:
    files = Dice(23, rows=60).files("trades")
    store = Between(None)
    put_all(store, Dice(24, rows=60).files("trades"))
    make(store)
    put_ticks(store, "trades", AFTER, Dice(25, rows=60).file("trades", AFTER))

    def meanwhile(other: MemoryStore) -> None:
        put_all(other, files)
        make(other)

    store.then = meanwhile
    make(store)
    assert differences(table_of(store, "1h"), oracle(files, "1h")) == []


def test_whoever_has_less_succeeds_without_writing(store: Store) -> None:
    files = Dice(26, rows=40).files(*ALL)
    put_all(store, files)
    make(store)
    before = {t: store.head(candle_path(t)) for t in SECONDS}
    store.delete(path_of(AFTER, "trades"))
    store.delete(path_of(DAY, "liquidations"))
    entry = make(store)
    assert (entry.outcome, entry.facts["written"]) == (Outcome.DONE, False)
    assert {t: store.head(candle_path(t)) for t in SECONDS} == before


def test_a_newer_schema_stays(memory: Store) -> None:
    put_all(memory, Dice(27, rows=40).files("trades"))
    memory.put(candle_path("1h"), b"of another version", metadata={"schema": "99", "stage": "candles"})
    make(memory)
    assert memory.get(candle_path("1h")) == b"of another version"


@pytest.mark.parametrize("mode", Mode)
def test_candles_of_one_file_never_replace_those_of_three(mode: Mode, memory: Store) -> None:
    put_all(memory, Dice(28, rows=40).files("trades"))
    make(memory)
    ours = {"outcome": "done", "inputs": "x", "schema": "1", "rows": "24", "digest": "y", "sealed": "false"}
    assert commit(memory, candle_path("1h"), b"of one file", ours, mode=mode).written is False
    assert facts_of(memory)["sealed"] == "true"


class DiesAt(MemoryStore):
    """Stops for good at the n-th put of a candle object."""

    def __init__(self, puts: int) -> None:
        super().__init__("memory://dies")
        self.left = puts

    def put(self, key, body, *, if_generation=ABSENT, metadata=None):
        if key.startswith("processed_candles"):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return super().put(key, body, if_generation=if_generation, metadata=metadata)


@pytest.mark.parametrize("puts", [0, 1, 6])
def test_what_a_killed_worker_left_is_completed_by_the_next(puts: int) -> None:
    files = Dice(29, rows=40).files("trades")
    store = DiesAt(puts)
    put_all(store, files)
    with pytest.raises(KeyboardInterrupt):
        make(store)
    store.left = 1_000
    assert make(store).facts["sealed"] is True
    assert 1_000 - store.left == 7 - puts
    assert differences(table_of(store, "1h"), oracle(files, "1h")) == []


def test_two_workers_at_once_leave_one_content(store: Store) -> None:
    files = Dice(30, rows=60).files(*ALL)
    put_all(store, files)
    entries: list[Entry] = []
    threads = [threading.Thread(target=lambda: entries.append(make(store))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.outcome for entry in entries] == [Outcome.DONE] * 3
    assert differences(table_of(store, "1h"), oracle(files, "1h")) == []
    assert len({facts_of(store, timeframe)["inputs"] for timeframe in SECONDS}) == 1


def test_ticks_that_are_no_parquet_are_named_with_what_mends_them(memory: Store) -> None:
    metadata = {"outcome": "done", "rows": "3", "digest": "d"}
    memory.put(path_of(DAY, "trades"), b"not a parquet file", metadata=metadata)
    with pytest.raises(IntegrityError, match=r"cannot be read.*--select all"):
        make(memory)


def test_ticks_with_other_rows_than_they_say_are_refused(memory: Store) -> None:
    put_all(memory, Dice(31, rows=40).files("trades"))
    info = memory.head(path_of(DAY, "trades"))
    assert info is not None
    memory.put(info.key, memory.get(info.key), if_generation=info.generation, metadata={**info.metadata, "rows": "7"})
    with pytest.raises(IntegrityError, match="holds 40 rows, its metadata says 7"):
        make(memory)


def test_a_refused_swap_is_looked_at_again() -> None:
    class Refuses(MemoryStore):
        refusals = 3

        def put(self, key, body, *, if_generation=ABSENT, metadata=None):
            if key.startswith("processed_candles") and self.refusals:
                self.refusals -= 1
                raise PreconditionError(key)
            return super().put(key, body, if_generation=if_generation, metadata=metadata)

    store = Refuses("memory://refuses")
    put_all(store, Dice(32, rows=40).files("trades"))
    assert make(store).outcome is Outcome.DONE
    assert set(digests(store)) == set(SECONDS)


def real(data_type: str, day: date) -> pl.DataFrame:
    return pl.read_csv(SAMPLES / data_type / f"{day:%Y/%m/%d}" / "BTCUSDT.csv.gz")


@pytest.mark.parametrize("day", [DAY, AFTER])
@pytest.mark.parametrize("timeframe", ["15s", "5m", "24h"])
def test_real_trades_on_both_sides_of_a_midnight_are_what_polars_makes_of_them(
    day: date, timeframe: str, memory: Store
) -> None:
    both = pl.concat([real("trades", DAY), real("trades", AFTER)])
    for each in (DAY, AFTER):
        names = ("timestamp", "local_timestamp", "side", "price", "amount")
        put_ticks(memory, "trades", each, real("trades", each).select(names).to_dicts())
    listed = replace(LINEAR, listed_from=DAY, listed_to=AFTER + timedelta(days=1))
    entry = make(memory, source=listed, day=day)
    start, bar_us = MIDNIGHT + (day - DAY).days * DAY_US, SECONDS[timeframe] * SECOND
    expected = (
        both.filter(pl.col("timestamp").is_between(start, start + DAY_US, closed="left"))
        .group_by(bar=(pl.col("timestamp") - start) // bar_us)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            trade_count=pl.len().cast(pl.Int64),
            volume=pl.col("amount").sum(),
            delay_median=(pl.col("local_timestamp") - pl.col("timestamp")).median() / 1000,
        )
        .sort("bar")
    )
    mine = pl.DataFrame(table_of(memory, timeframe, day=day), infer_schema_length=None)
    traded = mine.with_row_index("bar").filter(pl.col("trade_count") > 0)
    assert_frame_equal(traded.select(expected.columns), expected, check_dtypes=False)
    assert entry.facts["sealed"] is True
    assert entry.facts["rows"] == expected["trade_count"].sum()
    assert len(both) == sum(int(str(entry.facts[name])) for name in ("rows_before", "rows", "rows_after"))
