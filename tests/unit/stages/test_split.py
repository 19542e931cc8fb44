"""An options chain by underlying: rows against a plain CSV reader, crashes and twins, what nobody expected."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from runner import layout
from runner.errors import ConflictError, IntegrityError
from runner.market.options import OptionFeatures
from runner.market.schema import DATA_TYPES, OPTION_FEATURES
from runner.stages import content, download, outputs
from runner.stages.convert import Ticks
from runner.stages.split import WAITING_ROWS_MAX, SplitConversion
from runner.stages.subject import Subject
from runner.task import Outcome, Source, Stage, Task

DAY = date(2024, 8, 8)
START = int(datetime(2024, 8, 8, tzinfo=UTC).timestamp()) * 1_000_000
KEY = "DERIBIT:OPTION:OPTIONS"
PARTS = ("BTC-USD", "BTC-USDC", "SOL-USDC")
HEADER = ",".join(DATA_TYPES["options_chain"].csv_columns) + "\n"
PREVIEW = """\
deribit,BTC-9JUN20-9875-P,1591574399413000,1591574400196008,put,9875,1591689600000000,0.1,0.0295,0.0205,15.0,55.91,\
0.0235,15.0,68.94,0.02210436,62.89,SYN.BTC-9JUN20,9756.36,-0.61752,0.00103,2.24964,-53.05655,-0.22796
deribit,BTC-9JUN20-9875-C,1591574397505000,1591574400196010,call,9875,1591689600000000,44.3,0.0080,0.0095,0.5,61.00,\
0.0105,20.0,65.33,0.00992836,62.87,SYN.BTC-9JUN20,9756.25,0.38232,0.00103,2.24933,-53.03038,0.13272
"""


def line(n: int, symbol: str, kind: str = "put", **given: object) -> str:
    values = {"exchange": "deribit", "symbol": symbol, "timestamp": START + n * 1000, "type": kind}
    values |= {"local_timestamp": START + n * 1000 + 7, "strike_price": 100, "expiration": START + 10**12}
    return ",".join(str((values | given).get(name, "")) for name in DATA_TYPES["options_chain"].csv_columns) + "\n"


def mixed(rows: int) -> str:
    """Return rows of four underlyings, one of which comes seldom, and of a symbol that has no key."""
    symbols = ["BTC-9AUG24-100-P", "BTC_USDC-9AUG24-100-P", "ETH-9AUG24-100-P", "BTC-9AUG24-110-P"]
    rare = {17: "XRP_USDC-9AUG24-0d55-P", 18: "XRP_USDC-9AUG24-0D55-P", 23: "WHAT-IS-THIS"}
    return HEADER + "".join(line(n, rare.get(n % 1000, symbols[n * 7919 % 4]), delta=-n / rows) for n in range(rows))


def subject(parts: tuple[str, ...] = PARTS, day: date = DAY) -> Subject:
    task = Task(Stage.DOWNLOAD, day, KEY, ("options_chain",), Source("deribit", "OPTIONS"), parts=parts)
    return Subject(task, "options_chain", Source("deribit", "OPTIONS"))


def chunks(body: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def converted(text: str, folder: Path, of: Subject | None = None, size: int = 1 << 16) -> dict[str, Ticks]:
    folder.mkdir(exist_ok=True)
    with SplitConversion(of or subject(), folder) as conversion:
        conversion.consume(chunks(gzip.compress(text.encode(), 1), size))
        return {ticks.subject.key: ticks for ticks in conversion.finish("0" * 32, len(text))}


def underlying(symbol: str) -> str:
    """Tell the underlying as one reads it."""
    name = symbol.split("-", 1)[0]
    return "UNPARSED" if name == "WHAT" else name.replace("_", "-") if "_" in name else f"{name}-USD"


def expected(text: str) -> dict[str, list[dict[str, object]]]:
    found = defaultdict(list)
    for row in csv.DictReader(io.StringIO(text)):
        numbers = {name: float(value) if value else None for name, value in row.items() if name not in WORDS + TIMES}
        words = {name: row[name] for name in WORDS[1:]}
        found[underlying(row["symbol"])].append(numbers | words | {name: int(row[name]) for name in TIMES})
    return found


WORDS = ("exchange", "symbol", "type", "underlying_index")
TIMES = ("timestamp", "local_timestamp", "expiration")


def stored(path: Path) -> list[dict[str, object]]:
    return pl.read_parquet(path).with_columns(pl.col(TIMES).dt.timestamp("us")).to_dicts()


def test_every_row_is_in_the_file_of_its_underlying_in_file_order(tmp_path) -> None:
    text = mixed(3_000)
    found = converted(text, tmp_path)
    assert list(found) == [
        *("DERIBIT:ETH-USD", "DERIBIT:UNPARSED", "DERIBIT:XRP-USDC"),
        *("DERIBIT:BTC-USD", "DERIBIT:BTC-USDC", "DERIBIT:SOL-USDC"),
    ]
    rows = expected(text)
    for key, ticks in found.items():
        assert stored(ticks.path) == rows.get(key.removeprefix("DERIBIT:"), [])
        assert ticks.metadata["outcome"] == ("done" if ticks.span.rows else "empty")
        known = pq.read_metadata(ticks.path).metadata
        assert known[b"object"].decode() == ticks.subject.ticks_key
        assert (known[b"key"].decode(), known[b"rows"].decode()) == (key, str(ticks.span.rows))
    assert sum(ticks.span.rows for ticks in found.values()) == 3_000


def test_real_rows_are_read(tmp_path) -> None:
    found = converted(HEADER + PREVIEW, tmp_path, subject(("BTC-USD",), date(2020, 6, 8)))
    assert stored(found["DERIBIT:BTC-USD"].path) == expected(HEADER + PREVIEW)["BTC-USD"]
    day = next(table for key, table in found["DERIBIT:BTC-USD"].candles.items() if "timeframe-15s" in key)
    assert day["expiry"].to_pylist()[0] == datetime(2020, 6, 9, 8, tzinfo=UTC)


def test_features_are_those_of_the_rows_of_the_underlying_alone(tmp_path) -> None:
    found = converted(mixed(3_000), tmp_path)
    for part in PARTS:
        ticks = found[f"DERIBIT:{part}"]
        sums = OptionFeatures(ticks.subject.bars)
        for batch in pq.read_table(ticks.path).to_batches():
            sums.add(batch)
        whole = sums.finish()
        assert list(ticks.candles) == [layout.option_features(DAY, tf, f"DERIBIT:{part}") for tf in whole]
        assert all(table.equals(whole[tf]) for tf, table in zip(whole, ticks.candles.values(), strict=True))
        assert set(next(iter(ticks.candles.values()))["underlying"].to_pylist()) == {part}
    assert found["DERIBIT:UNPARSED"].candles == {}


def test_content_does_not_depend_on_how_the_bytes_came(tmp_path) -> None:
    text = mixed(2_000)
    one, other = converted(text, tmp_path / "a"), converted(text, tmp_path / "b", size=777)
    assert {key: ticks.metadata for key, ticks in one.items()} == {key: ticks.metadata for key, ticks in other.items()}
    assert all(one[key].path.read_bytes() == other[key].path.read_bytes() for key in one)


def grouped(folder: Path, order: list[int], rows: int, waiting: int) -> dict[int, list[int]]:
    """Return the sizes of row groups of underlyings that come in this order, after a look at their rows."""
    tails = [line(0, f"C{n}-9AUG24-100-P").split(",", 4)[4] for n in range(12)]
    body = "".join(
        f"deribit,C{at}-9AUG24-100-P,{START + 1000 * n},{START + 1000 * n},{tails[at]}"
        for n, at in zip(range(rows), itertools.cycle(order), strict=False)
    )
    with SplitConversion(subject(tuple(f"C{n}-USD" for n in range(12))), folder, waiting) as conversion:
        conversion.consume(chunks(gzip.compress((HEADER + body).encode(), 1)))
        found = {ticks.subject.part: ticks for ticks in conversion.finish("0" * 32, 1)}
    for at in range(12):
        times = pl.read_parquet(found[f"C{at}-USD"].path, columns=["timestamp"]).to_series().dt.timestamp("us")
        assert times.to_list() == [START + 1000 * n for n in range(rows) if order[n % len(order)] == at]
    groups = {at: pq.read_metadata(found[f"C{at}-USD"].path) for at in range(12)}
    return {at: [g.row_group(n).num_rows for n in range(g.num_row_groups)] for at, g in groups.items()}


@pytest.mark.slow
def test_row_groups_are_whole_where_rows_abound(tmp_path) -> None:
    order = [0] * 40 + list(range(12))
    sizes = grouped(tmp_path, order, 170_000, WAITING_ROWS_MAX)
    assert sizes[0] == [131_072, sum(order[n % len(order)] == 0 for n in range(170_000)) - 131_072]
    assert {len(each) for at, each in sizes.items() if at} == {1}


@pytest.mark.slow
def test_of_too_many_rows_that_wait_the_most_are_written_early(tmp_path) -> None:
    order = [0, 0, *range(12)]
    sizes = grouped(tmp_path, order, 150_000, 100_000)
    # Whether too many wait is asked after each 131,072 rows of the file.
    assert sizes[0][0] == sum(order[n % len(order)] == 0 for n in range(131_072))
    assert [at for at, each in sizes.items() if len(each) > 1] == [0, 1]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (line(5, "BTC-9AUG24-100-P", "straddle"), "type is none of call, put"),
        (line(5, ""), "symbol is empty"),
        (line(5, "BTC-9AUG24-100-P", strike_price=""), "strike_price is empty"),
        (line(5, "BTC-9AUG24-100-P", expiration=""), "expiration is empty"),
        (line(5, "BTC-9AUG24-100-P", exchange="okex"), "not a row of deribit"),
        (line(5, "BTC-9AUG24-100-P", delta="NaN"), "delta is not a finite number"),
        (line(5, "BTC-9AUG24-100-P", timestamp="0x5"), "hexadecimal"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, bad: str, why: str) -> None:
    with pytest.raises(IntegrityError, match=f"line 5: .*{why}"):
        converted(HEADER + "".join(line(n, "XRP_USDC-9AUG24-0d55-P") for n in range(3)) + bad, tmp_path)


def test_a_second_attempt_forgets_the_first(tmp_path) -> None:
    first, second = mixed(500), HEADER + line(1, "BTC-9AUG24-100-P")
    with SplitConversion(subject(), tmp_path) as conversion:
        with pytest.raises(IntegrityError):
            conversion.consume(chunks(gzip.compress(first.encode())[:-9]))
        conversion.consume(chunks(gzip.compress(second.encode())))
        found = conversion.finish("0" * 32, 1)
    assert [(ticks.subject.key, ticks.span.rows) for ticks in found] == [
        ("DERIBIT:BTC-USD", 1),
        ("DERIBIT:BTC-USDC", 0),
        ("DERIBIT:SOL-USDC", 0),
    ]


# As tasks, against a server.


def serve_chain(folder: Path, text: str) -> Path:
    path = folder / "deribit/options_chain/2024/08/08/OPTIONS.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if text else gzip.compress(b""))
    return folder


def test_a_partial_set_of_parts_is_completed_and_the_rest_stays(sandbox, store, tools, tmp_path) -> None:
    _, tardis = sandbox(data=serve_chain(tmp_path / "data", mixed(1_000)))
    task, kit = subject().task, tools(store, tardis)
    entry = download.run(task, "options_chain", kit)
    assert (entry.outcome, entry.facts["rows"], entry.facts["parts"]) == (Outcome.DONE, 1_000, 6)
    assert entry.facts["unexpected_parts"] == (
        "DERIBIT:ETH-USD (249 rows), DERIBIT:UNPARSED (1 rows), DERIBIT:XRP-USDC (2 rows)"
    )
    every = {info.key: info.generation for info in store.list("")}
    assert set(layout.outputs(DAY, "options_chain", KEY, PARTS)) < set(every)
    assert outputs.missing(store, [task]) == ()
    assert not list(kit.scratch.iterdir())
    # Whatever is lost, the last object of a task is put last: so its loss, or any other, shows.
    for lost in layout.outputs(DAY, "options_chain", KEY, PARTS)[::5]:
        assert store.delete(lost)
        assert outputs.missing(store, [task]) == (task,)
        assert download.run(task, "options_chain", kit).facts["written"] in (True, False)
        assert outputs.missing(store, [task]) == ()
        kept = {info.key: info.generation for info in store.list("")}
        assert {key for key in every if kept[key] != every[key]} == {lost}
        every = kept
    assert download.run(task, "options_chain", kit).facts["kept"] is True
    assert all(content.fault(store, info, deep=True) == "" for info in store.list(""))


def test_parts_of_two_versions_of_a_file_are_never_mixed(sandbox, store, tools, tmp_path) -> None:
    folder = serve_chain(tmp_path / "data", mixed(1_000))
    _, tardis = sandbox(data=folder)
    task, kit = subject().task, tools(store, tardis)
    download.run(task, "options_chain", kit)
    store.delete(layout.outputs(DAY, "options_chain", KEY, PARTS)[-1])
    before = {info.key: info.generation for info in store.list("")}
    serve_chain(folder, mixed(1_001))
    with pytest.raises(ConflictError, match="holds another content"):
        download.run(task, "options_chain", kit)
    assert {info.key: info.generation for info in store.list("")} == before


def test_an_underlying_without_rows_has_files_that_say_so(sandbox, store, tools, tmp_path) -> None:
    _, tardis = sandbox(data=serve_chain(tmp_path / "data", HEADER + line(1, "BTC-9AUG24-100-P")))
    entry = download.run(subject().task, "options_chain", tools(store, tardis))
    assert (entry.outcome, entry.facts["rows"]) == (Outcome.DONE, 1)
    found = {info.key: info.metadata for info in store.list(layout.ticks_prefix(DAY, "options_chain"))}
    assert {key.rsplit(":", 1)[1]: meta["outcome"] for key, meta in found.items()} == {
        "BTC-USD.parquet": "done",
        "BTC-USDC.parquet": "empty",
        "SOL-USDC.parquet": "empty",
    }
    (kept,) = outputs.kept(store, [subject().task])
    assert (kept.outcome, kept.facts["rows"]) == (Outcome.DONE, 1)
    features = store.head(layout.option_features(DAY, "1h", "DERIBIT:SOL-USDC"))
    assert (features.metadata["rows"], features.metadata["sealed"]) == ("24", "true")


def test_a_day_that_the_venue_had_nothing_of_is_empty(sandbox, store, tools, tmp_path) -> None:
    _, tardis = sandbox(data=serve_chain(tmp_path / "data", ""))
    entry = download.run(subject().task, "options_chain", tools(store, tardis))
    assert (entry.outcome, entry.facts["rows"]) == (Outcome.EMPTY, 0)


def test_a_chain_that_is_not_offered_leaves_files_of_every_part_with_the_answer(
    sandbox, store, tools, tmp_path
) -> None:
    (tmp_path / "data/exchanges").mkdir(parents=True)
    document = {"id": "deribit", "datasets": {"exportedUntil": "2024-09-01T00:00:00.000Z", "symbols": []}}
    (tmp_path / "data/exchanges/deribit.json").write_text(json.dumps(document))
    _, tardis = sandbox(data=tmp_path / "data")
    entry = download.run(subject().task, "options_chain", tools(store, tardis))
    assert entry.outcome is Outcome.NOT_OFFERED
    found = {info.key: info.metadata["outcome"] for info in store.list("")}
    assert found == dict.fromkeys(layout.outputs(DAY, "options_chain", KEY, PARTS), "not_offered")
    with pq.ParquetFile(io.BytesIO(store.get(layout.option_features(DAY, "1m", "DERIBIT:BTC-USD")))) as file:
        assert (file.metadata.num_rows, file.schema_arrow.names) == (0, OPTION_FEATURES.names)


def test_where_the_catalogue_knows_no_underlying_the_group_stands_for_them(sandbox, store, tools, tmp_path) -> None:
    _, tardis = sandbox(data=serve_chain(tmp_path / "data", HEADER + line(1, "BTC-9AUG24-100-P")))
    entry = download.run(subject(()).task, "options_chain", tools(store, tardis))
    assert (entry.outcome, entry.facts["unexpected_parts"]) == (Outcome.DONE, "DERIBIT:BTC-USD (1 rows)")
    assert {info.key.rsplit("/", 1)[1]: info.metadata["rows"] for info in store.list("raw_tick_data/")} == {
        "DERIBIT:BTC-USD.parquet": "1",
        "DERIBIT:OPTION:OPTIONS.parquet": "0",
    }


def test_a_grouped_file_of_another_type_is_one_file_that_tells_symbols(sandbox, store, tools, tmp_path) -> None:
    rows = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(
        f"deribit,BTC-9AUG24-{n}-P,{START + n},{START + n},,sell,0.01,{n}\n" for n in (3, 4)
    )
    path = tmp_path / "data/deribit/liquidations/2024/08/08/OPTIONS.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(rows.encode()))
    _, tardis = sandbox(data=tmp_path / "data")
    task = Task(Stage.DOWNLOAD, DAY, KEY, ("liquidations",), Source("deribit", "OPTIONS"), parts=PARTS)
    assert download.run(task, "liquidations", tools(store, tardis)).facts["rows"] == 2
    (info,) = store.list("")
    assert info.key == "raw_tick_data/by_date/day-2024-08-08/data_type-liquidations/DERIBIT:OPTION:OPTIONS.parquet"
    table = pl.read_parquet(io.BytesIO(store.get(info.key)))
    assert table.columns == ["timestamp", "local_timestamp", "symbol", "id", "side", "price", "amount"]
    assert table["symbol"].to_list() == ["BTC-9AUG24-3-P", "BTC-9AUG24-4-P"]
    assert outputs.missing(store, [task]) == ()
