import copy
import io
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner import layout
from runner.errors import ConfigError, ConflictError, SourceError, TransientError
from runner.sandbox.tardis import Options, serve
from runner.stages.commit import Mode
from runner.stages.instruments import day_instruments, instrument_tables, read_instruments, run
from runner.stages.tools import Tools
from runner.store.memory import MemoryStore
from runner.tardis.client import Tardis
from runner.tardis.limits import Limits
from runner.task import Stage, Task

SAMPLES = Path(__file__).parents[2] / "data" / "tardis-api"
DAY = date(2024, 8, 8)
KEY = layout.instruments(DAY)

COLUMNS = (
    "instrument_key venue instrument_type available_from available_to data_types base_asset quote_asset settle_asset "
    "exchange_raw_symbol tardis_symbol tardis_exchange data_provider venue_type asset_class inverse symbol_type "
    "contract_type strike option_type expiry contract_size amount_unit multiplier tick_size settlement_type "
    "underlying min_size ccxt_symbol ccxt_exchange"
)


def symbol(name, kind="spot", since="2020-01-01", to=None, data_types=("trades", "quotes")):
    entry = {"id": name, "type": kind, "dataTypes": list(data_types), "availableSince": f"{since}T00:00:00.000Z"}
    return entry | ({"availableTo": f"{to}T00:00:00.000Z"} if to else {})


def exchange(name, *symbols, until="2024-09-01"):
    return {"id": name, "datasets": {"exportedUntil": f"{until}T00:00:00.000Z", "symbols": list(symbols)}}


class Catalogues:
    """A source of catalogues that counts what it is asked."""

    def __init__(self, *docs):
        self.docs = {doc["id"]: doc for doc in docs}
        self.asked = []
        self.on_ask = lambda _: None

    def exchanges(self):
        self.asked.append("*")
        return [{"id": name, "supportsDatasets": True} for name in self.docs]

    def exchange(self, name):
        self.asked.append(name)
        self.on_ask(name)
        answer = self.docs[name].get("raises")
        if answer:
            raise answer
        return copy.deepcopy(self.docs[name])


@pytest.fixture
def store(request):
    return MemoryStore(request.node.name)


def keys(table):
    return [row.instrument_key for row in table.rows]


def samples():
    return Catalogues(*(json.loads(path.read_text()) for path in sorted(SAMPLES.glob("exchange_*.json"))))


def test_real_catalogues_give_the_keys_written_by_hand(store):
    assert keys(day_instruments(store, samples(), date(2025, 2, 10))) == [
        "BINANCE-FUTURES:PERPETUAL:BTC-USDT",
        "BINANCE-FUTURES:PERPETUAL:ETH-USDT",
        "BINANCE:SPOT_PAIR:BTC-USDT",
        "BINANCE:SPOT_PAIR:ETH-USDT",
        "BYBIT-SPOT:SPOT_PAIR:BTC-USDT",
        "BYBIT:PERPETUAL:AAVE-USDT",
        "BYBIT:PERPETUAL:BTC-USD",
        "BYBIT:PERPETUAL:BTC-USDT",
        "DERIBIT:FUTURE:BTC-USD-250214",
        "DERIBIT:OPTION:BTC-USD-250425-200000-PUT",
        "DERIBIT:PERPETUAL:BTC-USD",
        "DERIBIT:PERPETUAL:ETH-USD",
        "DERIBIT:SPOT_PAIR:BTC-USDC",
        "OKX-SWAP:PERPETUAL:BTC-USDC",
        "OKX-SWAP:PERPETUAL:BTC-USDT",
        "OKX:SPOT_PAIR:BTC-USDT",
    ]


def test_file_has_the_fixed_schema_and_values(store):
    day_instruments(store, samples(), date(2025, 2, 10))
    file = pq.ParquetFile(pa.BufferReader(store.get(layout.instruments(date(2025, 2, 10)))))
    assert file.schema_arrow.names == COLUMNS.split()
    rows = {row["instrument_key"]: row for row in file.read().to_pylist()}
    put = rows["DERIBIT:OPTION:BTC-USD-250425-200000-PUT"]
    assert {name: put[name] for name in ("strike", "option_type", "settle_asset", "inverse", "amount_unit")} == {
        "strike": 200000.0,
        "option_type": "put",
        "settle_asset": "BTC",
        "inverse": False,
        "amount_unit": "base",
    }
    assert put["expiry"] == datetime(2025, 4, 25, 8, tzinfo=UTC)
    assert put["available_from"] == datetime(2025, 1, 31, tzinfo=UTC)
    assert put["available_to"] is None
    assert put["data_types"] == ["trades", "incremental_book_L2", "quotes", "book_snapshot_5", "book_snapshot_25"]


def test_stored_table_reads_back_as_the_same_instruments(store):
    source = samples()
    source.docs["binance"]["datasets"]["symbols"].append(symbol("BTCQQQ"))
    written = day_instruments(store, source, DAY)
    read = read_instruments(store, DAY)
    assert read == written
    assert read.digest == written.digest
    assert read.rows == written.rows
    assert read.rows[0].available_from.tzinfo is not None


def test_store_without_a_table_reads_none(store):
    assert read_instruments(store, DAY) is None


def test_metadata_tells_rows_digest_schema_and_what_was_exported(store):
    table = day_instruments(store, Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("X"))), DAY)
    metadata = store.head(KEY).metadata
    assert {name: metadata[name] for name in ("day", "rows", "unparsed", "digest", "schema")} == {
        "day": "2024-08-08",
        "rows": "1",
        "unparsed": "1",
        "digest": table.digest,
        "schema": "1",
    }
    assert json.loads(metadata["exported_until"]) == {"binance": "2024-09-01"}


def test_equal_catalogues_give_equal_bytes_whatever_their_order(request):
    symbols = [symbol("BTCUSDT"), symbol("ETHUSDT"), symbol("X1"), symbol("X2")]
    one, two = MemoryStore(f"{request.node.name}-1"), MemoryStore(f"{request.node.name}-2")
    day_instruments(one, Catalogues(exchange("binance", *symbols), exchange("upbit", symbol("KRW-BTC"))), DAY)
    day_instruments(two, Catalogues(exchange("upbit", symbol("KRW-BTC")), exchange("binance", *symbols[::-1])), DAY)
    assert one.get(KEY) == two.get(KEY)


def test_rows_are_those_listed_that_day(store):
    source = Catalogues(
        exchange(
            "deribit",
            symbol("BTC-PERPETUAL", "perpetual"),
            symbol("OLD-PERPETUAL", "perpetual", to="2024-08-08"),
            symbol("LAST-PERPETUAL", "perpetual", to="2024-08-09"),
            symbol("NEW-PERPETUAL", "perpetual", since="2024-08-08"),
            symbol("NEXT-PERPETUAL", "perpetual", since="2024-08-09"),
            symbol("BTC-7AUG24", "future"),
            symbol("BTC-8AUG24", "future"),
            symbol("OPTIONS", "option"),
            symbol("BTC-CS-29DEC24-40000_45000", "combo"),
        )
    )
    assert keys(day_instruments(store, source, DAY)) == [
        "DERIBIT:FUTURE:BTC-USD-240808",
        "DERIBIT:PERPETUAL:BTC-USD",
        "DERIBIT:PERPETUAL:LAST-USD",
        "DERIBIT:PERPETUAL:NEW-USD",
    ]


def test_day_that_is_not_exported_has_its_instruments(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT", to="2024-08-01"), until="2024-08-01"))
    assert keys(day_instruments(store, source, DAY)) == ["BINANCE:SPOT_PAIR:BTC-USDT"]


def test_unreadable_symbols_are_reported_and_the_rest_is_kept(store):
    source = Catalogues(
        exchange("binance", symbol("BTCUSDT"), symbol("BTCQQQ"), symbol("GONEQQQ", to="2021-01-01")),
        exchange("bybit", symbol("BTCUSD1231", "future")),
    )
    table = day_instruments(store, source, DAY)
    assert keys(table) == ["BINANCE:SPOT_PAIR:BTC-USDT"]
    assert [(row.exchange, row.symbol, row.symbol_type) for row in table.unparsed] == [
        ("binance", "BTCQQQ", "spot"),
        ("bybit", "BTCUSD1231", "future"),
    ]
    assert all(row.reason for row in table.unparsed)


def test_symbols_that_share_a_key_are_an_error_naming_both_unless_their_exchange_is_not_needed(store, caplog):
    twice = [symbol(f"XRP_USDC-27DEC24-0{point}5-C", "option") for point in "dD"]
    source = Catalogues(exchange("binance", symbol("BTCUSDT")), exchange("deribit", *twice))
    both = "deribit XRP_USDC-27DEC24-0d5-C and deribit XRP_USDC-27DEC24-0D5-C share the key"
    with pytest.raises(ConfigError, match=both):
        day_instruments(store, source, DAY)
    assert store.head(KEY) is None
    ((_, table),) = instrument_tables(store, source, [DAY], needed={"binance"})
    assert (keys(table), list(table.exported_until)) == (["BINANCE:SPOT_PAIR:BTC-USDT"], ["binance"])
    assert both in caplog.text


def test_a_symbol_listed_twice_on_a_day_is_one_instrument_from_the_first_to_the_last(store):
    first, again = symbol("BTCUSDT", since="2024-08-01"), symbol("BTCUSDT", data_types=("trades", "liquidations"))
    first["availableTo"], again["availableSince"] = "2024-08-08T08:00:00.000Z", "2024-08-08T12:00:00.000Z"
    (row,) = day_instruments(store, Catalogues(exchange("binance", first, again)), DAY).rows
    assert (row.available_from, row.available_to) == (datetime(2024, 8, 1, tzinfo=UTC), None)
    assert row.data_types == ("trades", "quotes", "liquidations")


def test_only_our_exchanges_that_the_source_lists_are_asked(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT")), exchange("kraken", symbol("XBT/USD")))
    table = day_instruments(store, source, DAY)
    assert source.asked == ["*", "binance"]
    assert dict(table.exported_until) == {"binance": date(2024, 9, 1)}


@pytest.mark.parametrize("refusal", [ConfigError("400 code 100"), SourceError("404")])
def test_an_exchange_whose_catalogue_is_refused_is_left_out_by_who_does_not_ask_for_it(store, refusal):
    source = Catalogues(exchange("binance", symbol("BTCUSDT")), {"id": "upbit", "raises": refusal})
    with pytest.raises(type(refusal), match=str(refusal)):
        list(instrument_tables(store, source, [DAY], needed={"binance", "upbit"}))
    assert store.head(KEY) is None
    assert keys(day_instruments(store, source, DAY)) == ["BINANCE:SPOT_PAIR:BTC-USDT"]


def test_transient_failure_leaves_no_partial_table(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT")), {"id": "upbit", "raises": TransientError("503")})
    with pytest.raises(TransientError):
        day_instruments(store, source, DAY)
    assert store.head(KEY) is None


def test_settled_table_is_kept_whatever_the_catalogue_says_later(store):
    first = day_instruments(store, Catalogues(exchange("binance", symbol("BTCUSDT"))), DAY)
    generation = store.head(KEY).generation
    later = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT"), until="2024-10-01"))
    assert day_instruments(store, later, DAY) == first
    assert later.asked == ["*"]
    assert store.head(KEY).generation == generation


def test_provisional_table_is_replaced_when_the_catalogue_has_moved_on(store):
    early = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT"), until="2024-08-08"))
    assert len(day_instruments(store, early, DAY).rows) == 2
    generation = store.head(KEY).generation
    day_instruments(store, early, DAY)
    assert store.head(KEY).generation == generation
    late = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT", to="2024-08-08"), until="2024-08-09"))
    table = day_instruments(store, late, DAY)
    assert keys(table) == ["BINANCE:SPOT_PAIR:BTC-USDT"]
    assert read_instruments(store, DAY) == table
    assert store.head(KEY).generation != generation


def test_provisional_table_does_not_give_way_to_an_older_catalogue(store):
    newer = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT"), until="2024-08-07"))
    table = day_instruments(store, newer, DAY)
    older = Catalogues(exchange("binance", symbol("BTCUSDT"), until="2024-08-06"))
    assert day_instruments(store, older, DAY) == table


def test_exchange_that_the_source_lists_later_is_added_and_settled_rows_stay(store):
    day_instruments(store, Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("BTCQQQ"))), DAY)
    both = Catalogues(exchange("binance", symbol("ETHUSDT")), exchange("upbit", symbol("KRW-BTC"), symbol("BTCKRW")))
    table = day_instruments(store, both, DAY)
    assert keys(table) == ["BINANCE:SPOT_PAIR:BTC-USDT", "UPBIT:SPOT_PAIR:BTC-KRW"]
    assert [row.symbol for row in table.unparsed] == ["BTCQQQ", "BTCKRW"]
    assert both.asked == ["*", "upbit"]
    only_upbit = Catalogues(exchange("upbit", symbol("KRW-ETH"), until="2025-01-01"))
    assert day_instruments(store, only_upbit, DAY) == table


def test_loser_of_a_race_reads_the_winners_table(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT")))
    winners = Catalogues(exchange("binance", symbol("ETHUSDT")))
    source.on_ask = lambda _: day_instruments(store, winners, DAY)
    assert keys(day_instruments(store, source, DAY)) == ["BINANCE:SPOT_PAIR:ETH-USDT"]


def test_many_at_once_agree_on_one_table(store):
    barrier, tables = threading.Barrier(8), []

    def plan(name):
        source = Catalogues(exchange("binance", symbol(name)))
        source.on_ask = lambda _: barrier.wait(timeout=20)
        tables.append(day_instruments(store, source, DAY))

    threads = [threading.Thread(target=plan, args=(f"{letter}USDT",)) for letter in "ABCDEFGH"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tables) == 8
    assert all(table == read_instruments(store, DAY) for table in tables)


def test_many_days_ask_each_catalogue_once(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT", since="2024-08-02")))
    days = [date(2024, 8, day) for day in (1, 2, 3)]
    tables = list(instrument_tables(store, source, days))
    assert [(day, len(table.rows)) for day, table in tables] == [(days[0], 0), (days[1], 1), (days[2], 1)]
    assert source.asked == ["*", "binance"]


def done(store, source, day=DAY, mode=Mode.KEEP):
    task = Task(Stage.INSTRUMENTS, day, "*", ("instruments",))
    return run(task, "instruments", Tools(store, source, Path(), mode))


def test_the_stage_writes_the_table_and_tells_what_is_in_it(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("???")))
    first, again = done(store, source), done(store, source)
    assert (first.task_id, first.data_type, first.outcome) == ("instruments/2024-08-08/*", "instruments", "done")
    assert first.facts == {"rows": 1, "groups": 0, "unparsed": 1, "provisional": False, "written": True}
    assert again.facts == first.facts | {"written": False}
    assert keys(read_instruments(store, DAY)) == ["BINANCE:SPOT_PAIR:BTC-USDT"]
    assert done(store, Catalogues(exchange("binance", until="2024-08-08")), date(2024, 8, 8)).facts["rows"] == 1
    assert done(store, Catalogues(exchange("binance", until="2024-08-08")), date(2024, 8, 9)).facts["provisional"]


def test_a_worker_asks_each_catalogue_once_for_all_its_days_and_threads(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT")), exchange("upbit", symbol("KRW-BTC")))
    tools = Tools(store, source, Path())
    days = [date(2024, 8, day) for day in range(1, 9)]
    tasks = [Task(Stage.INSTRUMENTS, day, "*", ("instruments",)) for day in days]
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda task: run(task, "instruments", tools), tasks))
    assert [entry.facts["rows"] for entry in entries] == [2] * 8
    assert sorted(source.asked) == ["*", "binance", "upbit"]


def test_selecting_all_makes_a_settled_table_anew_from_what_is_listed_now(store):
    done(store, Catalogues(exchange("binance", symbol("BTCUSDT")), exchange("upbit", symbol("KRW-BTC"))))
    now = Catalogues(exchange("binance", symbol("ETHUSDT")))
    assert not done(store, now).facts["written"]
    assert done(store, now, mode=Mode.REPLACE).facts["written"]
    # Of an exchange that the source lists no more, the table is all that is known.
    assert keys(read_instruments(store, DAY)) == ["BINANCE:SPOT_PAIR:ETH-USDT", "UPBIT:SPOT_PAIR:BTC-KRW"]


def test_contract_size_is_that_of_the_day(store):
    source = Catalogues(exchange("okex-swap", symbol("BTC-USDT-SWAP", "perpetual", since="2019-12-01")))
    sizes = [
        table.rows[0].contract_size
        for _, table in instrument_tables(store, source, [date(2020, 1, 1), date(2024, 1, 1)])
    ]
    assert sizes == [None, 0.01]


def test_a_table_with_any_byte_changed_is_the_same_or_refused_and_can_be_made_anew(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT")))
    table = day_instruments(store, source, DAY)
    good, refused = store.get(KEY), 0
    for at in [*range(4, len(good), 37), 5, 9]:
        info = store.head(KEY)
        body = good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]
        store.put(KEY, body, if_generation=info.generation, metadata=info.metadata)
        try:
            assert read_instruments(store, DAY) == table
        except ConflictError:
            refused += 1
            assert done(store, source, mode=Mode.REPLACE).facts["written"]
            assert read_instruments(store, DAY) == table
    assert refused > 10


@pytest.mark.parametrize("body", [b"", b"PAR1", b"not parquet"])
def test_object_that_is_no_table_is_refused_and_kept(store, body):
    store.put(KEY, body)
    with pytest.raises(ConflictError, match="no instrument table"):
        day_instruments(store, Catalogues(exchange("binance", symbol("BTCUSDT"))), DAY)
    assert store.get(KEY) == body


def test_table_of_another_program_is_refused_and_kept(store):
    sink = io.BytesIO()
    pq.write_table(pa.table({"instrument_key": ["A:B:C"]}), sink)
    store.put(KEY, sink.getvalue())
    with pytest.raises(ConflictError, match="make it anew: runner submit instruments"):
        day_instruments(store, Catalogues(), DAY)


def test_the_table_of_another_day_or_with_other_rows_is_refused_until_it_is_made_anew(store):
    source = Catalogues(exchange("binance", symbol("BTCUSDT"), symbol("ETHUSDT")))
    day_instruments(store, source, DAY)
    good, info = store.get(KEY), store.head(KEY)
    other = date(2024, 8, 9)
    store.put(layout.instruments(other), good, metadata=info.metadata)
    with pytest.raises(ConflictError, match="is the table of 2024-08-08"):
        read_instruments(store, other)
    assert done(store, source, other, Mode.REPLACE).facts["written"]
    assert read_instruments(store, other).day == other
    fewer, sink = pq.read_table(pa.BufferReader(good)).slice(1), io.BytesIO()
    pq.write_table(fewer, sink)
    store.put(KEY, sink.getvalue(), if_generation=info.generation, metadata=info.metadata)
    with pytest.raises(ConflictError, match=r"1 rows are not the 2 .*--start-date 2024-08-08 .*--select all"):
        read_instruments(store, DAY)
    assert done(store, source, mode=Mode.REPLACE).facts["written"]
    assert len(read_instruments(store, DAY).rows) == 2


def test_catalogues_come_from_the_real_client_over_a_socket(store, tmp_path):
    (tmp_path / "exchanges").mkdir()
    for path in SAMPLES.glob("exchange_*.json"):
        shutil.copy(path, tmp_path / "exchanges" / path.name.removeprefix("exchange_"))
    limits = Limits(
        attempts=2, backoff_s=0.01, backoff_max_s=0.01, stall_s=10, min_bytes_per_s=1, min_speed_window_s=10
    )
    with serve(Options(data=tmp_path)) as sandbox:
        tardis = Tardis(sandbox.url, sandbox.api_url, None, limits, threading.Event(), 2)
        table = day_instruments(store, tardis, date(2024, 1, 3))
    assert len(table.rows) == 15
    assert "OKX-FUTURES:FUTURE:BTC-USD-240105" in keys(table)
    assert len(table.exported_until) == 8
