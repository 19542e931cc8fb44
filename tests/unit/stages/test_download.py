"""A download task against a real server: every outcome, and the objects that each leaves."""

import gzip
import json
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from runner import layout
from runner.errors import ConfigError, ConflictError, IntegrityError, SourceError, TransientError
from runner.market.schema import DATA_TYPES
from runner.stages import download
from runner.stages.commit import Mode
from runner.store import open_object
from runner.task import Outcome, Source, Stage, Task

DAY = date(2024, 8, 1)
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
TYPES = ("trades", "quotes", "book_snapshot_5")
GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT"],
    "data_types": list(TYPES),
    "days": ["2024-08-01", "2024-08-03"],
    "rows_per_day": 500,
    "seed": 3,
}


def task(day: date = DAY, key: str = KEY, source: Source | None = None) -> Task:
    return Task(Stage.DOWNLOAD, day, key, TYPES, source or Source("binance", "BTCUSDT"))


def exchange(folder: Path, name: str, *symbols: dict, until: str = "2024-08-04") -> Path:
    """Write a catalogue that promises what there is no file for."""
    (folder / "exchanges").mkdir(parents=True)
    document = {
        "id": name,
        "datasets": {"exportedUntil": f"{until}T00:00:00.000Z", "symbols": list(symbols)},
        "availableSymbols": [],
    }
    (folder / "exchanges" / f"{name}.json").write_text(json.dumps(document))
    return folder


def symbol(name: str, *, since: str = "2024-08-01", to: str = "2024-08-04", types=TYPES) -> dict:
    return {
        "id": name,
        "type": "spot",
        "dataTypes": list(types),
        "availableSince": f"{since}T00:00:00.000Z",
        "availableTo": f"{to}T00:00:00.000Z",
    }


def written(folder: Path, data_type: str, body: str, day: date = DAY) -> None:
    path = folder / "binance" / data_type / f"{day:%Y/%m/%d}" / "BTCUSDT.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(body.encode()))


@pytest.mark.parametrize("data_type", TYPES)
def test_a_whole_file_is_done_and_leaves_ticks_and_candles(data_type: str, sandbox, store, tools) -> None:
    server, tardis = sandbox(generate=GENERATED)
    kit = tools(store, tardis)
    entry = download.run(task(), data_type, kit)
    assert entry.outcome is Outcome.DONE
    assert [info.key for info in store.list("")] == sorted(layout.outputs(DAY, data_type, KEY))
    ticks = store.head(layout.ticks(DAY, data_type, KEY))
    assert entry.facts["rows"] == int(ticks.metadata["rows"]) == 500
    assert (entry.facts["written"], entry.facts["tries"], entry.facts["bytes"]) == (True, 1, ticks.size)
    assert entry.facts["generation"] == ticks.generation
    assert entry.facts["source_md5"] == ticks.metadata["source_md5"]
    assert list(kit.scratch.iterdir()) == []
    assert server.stats()["paths"][f"/v1/binance/{data_type}/2024/08/01/BTCUSDT.csv.gz"]["requests"] == 1


@pytest.mark.parametrize("data_type", TYPES)
def test_stored_ticks_are_what_another_reader_reads_from_the_same_bytes(data_type, sandbox, store, tools, tmp_path):
    import urllib.request

    server, tardis = sandbox(generate=GENERATED)
    download.run(task(), data_type, tools(store, tardis))
    url = f"{server.url}/binance/{data_type}/2024/08/01/BTCUSDT.csv.gz"
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer fake-key-1"})
    with urllib.request.urlopen(asked) as reply:
        source = pl.read_csv(gzip.decompress(reply.read()), infer_schema_length=None, schema_overrides={"id": str})
    info = store.head(layout.ticks(DAY, data_type, KEY))
    with open_object(store, info) as file:
        stored = pl.read_parquet(file.read())
    columns = DATA_TYPES[data_type].columns
    assert stored.columns == [c.name for c in columns]
    assert source.columns[:2] == ["exchange", "symbol"]
    for csv_name, name in zip(source.columns[2:], stored.columns, strict=True):
        plain = stored[name].dt.epoch("us") if name.endswith("timestamp") else stored[name]
        assert plain.to_list() == source[csv_name].cast(plain.dtype).to_list(), name


@pytest.mark.parametrize("data_type", TYPES)
def test_a_day_without_anything_is_empty(data_type: str, sandbox, store, tools, tmp_path) -> None:
    header = ",".join(DATA_TYPES[data_type].csv_columns) + "\n"
    written(tmp_path / "d", data_type, header)
    _, tardis = sandbox(data=tmp_path / "d")
    entry = download.run(task(), data_type, tools(store, tardis))
    assert (entry.outcome, entry.facts["rows"]) == (Outcome.EMPTY, 0)
    assert [info.key for info in store.list("")] == sorted(layout.outputs(DAY, data_type, KEY))
    assert {info.metadata["outcome"] for info in store.list("")} == {"empty"}


def stored_rows(store) -> dict[str, int]:
    rows = {}
    for info in store.list(""):
        with open_object(store, info) as file:
            rows[info.key] = pq.read_metadata(file).num_rows
        assert rows[info.key] == int(info.metadata["rows"])
    return rows


@pytest.mark.parametrize("data_type", ["trades", "quotes"])
def test_what_is_not_offered_leaves_files_without_rows_that_say_so(data_type, sandbox, store, tools, tmp_path) -> None:
    folder = exchange(tmp_path / "d", "binance", symbol("BTCUSDT", types=["book_snapshot_5"]))
    _, tardis = sandbox(data=folder)
    entry = download.run(task(), data_type, tools(store, tardis))
    assert entry.outcome is Outcome.NOT_OFFERED, entry
    assert entry.facts["catalogue_disagrees"] is False
    assert entry.facts["proof"].startswith("400/300")
    assert stored_rows(store) == dict.fromkeys(sorted(layout.outputs(DAY, data_type, KEY)), 0)
    assert {info.metadata["outcome"] for info in store.list("")} == {"not_offered"}
    proof = json.loads(store.head(layout.ticks(DAY, data_type, KEY)).metadata["proof"])
    assert (proof["status"], proof["code"]) == (400, 300)


def test_what_is_outside_its_listing_is_not_available(sandbox, store, tools, tmp_path) -> None:
    folder = exchange(tmp_path / "d", "binance", symbol("BTCUSDT", since="2024-08-02"))
    _, tardis = sandbox(data=folder)
    entry = download.run(task(), "trades", tools(store, tardis))
    assert entry.outcome is Outcome.NOT_AVAILABLE
    assert entry.facts["proof"].startswith("400/140")
    assert {info.metadata["outcome"] for info in store.list("")} == {"not_available"}


@pytest.mark.parametrize("code", [140, 300])
def test_a_refusal_of_what_the_catalogue_offers_is_settled_and_flagged(code: int, sandbox, store, tools) -> None:
    server, tardis = sandbox(generate=GENERATED)
    body = json.dumps({"code": code, "message": "there is no such file"})
    server.add_faults({"path": "*/trades/*", "fault": "status", "code": 400, "body": body})
    entry = download.run(task(), "trades", tools(store, tardis))
    assert entry.outcome is {140: Outcome.NOT_AVAILABLE, 300: Outcome.NOT_OFFERED}[code]
    assert entry.facts["catalogue_disagrees"] is True
    assert '"catalogue_disagrees": true' in store.head(layout.ticks(DAY, "trades", KEY)).metadata["proof"]


def test_a_day_that_is_not_exported_is_pending_and_leaves_nothing(sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    entry = download.run(task(date(2024, 8, 4)), "trades", tools(store, tardis))
    assert entry.outcome is Outcome.PENDING
    assert list(store.list("")) == []


@pytest.mark.parametrize("now_exported", [False, True])
def test_a_file_of_a_day_that_is_not_exported_is_no_proof_of_the_day(now_exported, sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    if not now_exported:
        tardis.exported = lambda *_: False
    store.put(layout.instruments(DAY), b"", metadata={"exported_until": json.dumps({"binance": str(DAY)})})
    entry = download.run(task(), "trades", tools(store, tardis))
    assert entry.outcome is (Outcome.DONE if now_exported else Outcome.PENDING)
    assert (len(list(store.list(""))) > 1) is now_exported


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"fault": "corrupt", "kind": "gzip_trailer"}, IntegrityError),
        ({"fault": "cut", "at": 0.5, "framing": "close"}, TransientError),
        ({"fault": "status", "code": 503, "body": "no"}, TransientError),
        ({"fault": "status", "code": 404, "body": '{"code": 404, "message": "no"}'}, SourceError),
    ],
)
def test_a_fetch_that_fails_leaves_nothing_anywhere(fault: dict, error, sandbox, store, tools) -> None:
    server, tardis = sandbox(generate=GENERATED)
    server.add_faults({"path": "*/trades/*", **fault})
    kit = tools(store, tardis)
    with pytest.raises(error, match="binance trades 2024-08-01 BTCUSDT"):
        download.run(task(), "trades", kit)
    assert list(store.list("")) == []
    assert list(kit.scratch.iterdir()) == []


def test_a_fetch_that_succeeds_late_is_as_good_as_at_once(sandbox, store, tools, tmp_path) -> None:
    server, tardis = sandbox(generate=GENERATED)
    server.add_faults({"path": "*/trades/*", "fault": "cut", "at": 0.7, "framing": "content-length", "count": 2})
    entry = download.run(task(), "trades", tools(store, tardis))
    assert (entry.outcome, entry.facts["rows"], entry.facts["tries"]) == (Outcome.DONE, 500, 3)


def test_doing_a_task_again_writes_nothing(sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    download.run(task(), "trades", tools(store, tardis))
    before = list(store.list(""))
    for mode in Mode:
        entry = download.run(task(), "trades", tools(store, tardis, mode=mode))
        assert (entry.outcome, entry.facts["written"]) == (Outcome.DONE, False)
    assert list(store.list("")) == before


def test_a_source_that_changed_is_a_conflict_until_it_is_to_be_replaced(sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    _, changed = sandbox(generate=GENERATED | {"seed": 4})
    download.run(task(), "trades", tools(store, tardis))
    lost = layout.candles(DAY, "1m", KEY)
    store.delete(lost)
    before = list(store.list(""))
    with pytest.raises(ConflictError, match="digest"):
        download.run(task(), "trades", tools(store, changed))
    assert list(store.list("")) == before
    entry = download.run(task(), "trades", tools(store, changed, mode=Mode.REPLACE))
    assert entry.facts["written"] is True
    after = {info.key: info for info in store.list("")}
    assert after.keys() == {lost, *(info.key for info in before)}
    assert not {info.metadata["digest"] for info in before} & {info.metadata["digest"] for info in after.values()}


def test_a_kill_between_candles_and_ticks_is_mended_by_doing_it_again(sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    download.run(task(), "trades", tools(store, tardis))
    before = {info.key: info.generation for info in store.list("")}
    ticks = layout.ticks(DAY, "trades", KEY)
    store.delete(ticks)
    assert download.run(task(), "trades", tools(store, tardis)).facts["written"] is True
    after = {info.key: info.generation for info in store.list("")}
    assert {k for k in after if after[k] != before[k]} == {ticks}


def test_a_task_without_a_source_is_a_contradiction(sandbox, store, tools) -> None:
    _, tardis = sandbox(generate=GENERATED)
    with pytest.raises(ConfigError, match="names no source"):
        download.run(Task(Stage.DOWNLOAD, DAY, KEY, TYPES), "trades", tools(store, tardis))


def test_a_full_scratch_disk_is_worth_another_try(sandbox, store, tools) -> None:
    """/dev/full takes no byte, as a disk without space."""
    _, tardis = sandbox(generate=GENERATED)
    kit = tools(store, tardis)
    folder = kit.scratch / f"{DAY}-trades-{KEY}"
    folder.mkdir()
    (folder / f"{KEY}.parquet").symlink_to("/dev/full")
    with pytest.raises(TransientError, match=f"no space left in {kit.scratch}"):
        download.run(task(), "trades", kit)
    assert list(store.list("")) == []


def test_an_inverse_instrument_has_volumes_of_contracts(sandbox, store, tools) -> None:
    generated = {"exchange": "deribit", "symbols": ["BTC-PERPETUAL"], "days": ["2024-08-01"], "rows_per_day": 300}
    _, tardis = sandbox(generate=generated)
    from runner.stages.instruments import day_instruments

    (row,) = day_instruments(store, tardis, DAY).rows
    assert (row.instrument_key, row.inverse, row.settle_asset) == ("DERIBIT:PERPETUAL:BTC-USD", True, "BTC")
    download.run(task(key=row.instrument_key, source=row.source), "trades", tools(store, tardis))

    def read(key: str) -> list[dict]:
        with open_object(store, store.head(key)) as file:
            return pq.read_table(file).to_pylist()

    trades = [t for t in read(layout.ticks(DAY, "trades", row.instrument_key)) if t["timestamp"].date() == DAY]
    (candle,) = read(layout.candles(DAY, "24h", row.instrument_key))
    dollars, coins = sum(t["amount"] for t in trades), sum(t["amount"] / t["price"] for t in trades)
    assert candle["trade_count"] == len(trades)
    assert candle["volume"] == pytest.approx(dollars, rel=1e-9)
    assert candle["vwap"] == pytest.approx(dollars / coins, rel=1e-9)
    assert candle["volume_quote"] == pytest.approx(dollars, rel=1e-9)
    assert candle["volume_base"] == pytest.approx(coins, rel=1e-9)
