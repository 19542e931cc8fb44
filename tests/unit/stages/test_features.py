"""Option features made again from stored ticks are those that the download of the chain made."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import pytest

from runner import layout
from runner.stages import candles, sealing
from runner.stages.commit import Mode, commit
from runner.stages.convert import Ticks
from runner.stages.derived import candle_object
from runner.stages.split import SplitConversion
from runner.stages.subject import Subject
from runner.store import Store
from runner.store.memory import MemoryStore
from runner.task import Outcome, Source, Stage, Task
from tests.unit.stages.candle_world import MIDNIGHT, SECOND, tools_of

DAY = date(2024, 8, 8)
KEY = "DERIBIT:OPTION:OPTIONS"
PARTS = ("BTC-USD", "ETH-USD")
HEADER = (
    "exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest,last_price,bid_price,"
    "bid_amount,bid_iv,ask_price,ask_amount,ask_iv,mark_price,mark_iv,underlying_index,underlying_price,"
    "delta,gamma,vega,theta,rho"
)
EXPIRY = MIDNIGHT + 8 * 86_400 * SECOND


def line(n: int) -> str:
    base, right = ("BTC", "ETH")[n % 2], ("P", "C")[n // 2 % 2]
    at, delta = MIDNIGHT + n * 40 * SECOND, (-1 if right == "P" else 1) * (0.2 + n % 7 / 20)
    kind, strike = "put" if right == "P" else "call", 50_000 + n % 5 * 1_000
    symbol = f"{base}-16AUG24-{strike}-{right}"
    prices = f"1,,0.1,2,{50 + n % 9},0.2,3,{60 + n % 9},0.15,{55 + n % 11},SYN,61000"
    return f"deribit,{symbol},{at},{at + 900},{kind},{strike},{EXPIRY},{prices},{delta:.3f},0,0,0,0"


@pytest.fixture
def task() -> Task:
    return Task(Stage.CANDLES, DAY, KEY, ("options_chain",), Source("deribit", "OPTIONS"), parts=PARTS)


def download(store: Store, task: Task, folder: Path) -> tuple[Ticks, ...]:
    folder.mkdir(exist_ok=True)
    subject = Subject(task, "options_chain", task.source)
    body = gzip.compress("".join(f"{text}\n" for text in (HEADER, *map(line, range(900)))).encode())
    with SplitConversion(subject, folder) as conversion:
        conversion.consume(iter([body]))
        made = conversion.finish("0" * 32, len(body))
    for ticks in made:
        for key in ticks.candles:
            commit(store, key, *candle_object(ticks, key=key), mode=Mode.KEEP)
        commit(store, ticks.subject.ticks_key, ticks.path, ticks.metadata, mode=Mode.KEEP)
    return made


def features(store: Store) -> dict[str, str]:
    return {info.key: info.metadata["digest"] for info in store.list("option_features/")}


def test_what_a_download_left_needs_nothing(task: Task, tmp_path: Path) -> None:
    store = MemoryStore("memory://features")
    download(store, task, tmp_path / "ticks")
    assert sealing.missing(store, [task]) == ()
    entry = candles.run(task, "options_chain", tools_of(store))
    assert (entry.outcome, entry.facts["written"], entry.facts["sealed"]) == (Outcome.DONE, False, True)


def test_lost_features_are_made_again_the_same(task: Task, tmp_path: Path) -> None:
    store = MemoryStore("memory://features")
    download(store, task, tmp_path / "ticks")
    before = features(store)
    assert len(before) == 7 * len(PARTS)
    for timeframe in ("15s", "24h"):
        store.delete(layout.option_features(DAY, timeframe, "DERIBIT:ETH-USD"))
    assert [each.data_types for each in sealing.missing(store, [task])] == [("options_chain",)]
    entry = candles.run(task, "options_chain", tools_of(store))
    assert (entry.outcome, entry.facts["written"], entry.facts["parts"]) == (Outcome.DONE, True, 2)
    assert features(store) == before
    download(store, task, tmp_path / "ticks")  # and its commit meets no conflict
    assert sealing.missing(store, [task]) == ()


def test_features_of_other_ticks_are_made_anew(task: Task, tmp_path: Path) -> None:
    store = MemoryStore("memory://features")
    download(store, task, tmp_path / "ticks")
    before = features(store)
    key = layout.option_features(DAY, "1h", "DERIBIT:BTC-USD")
    info = store.head(key)
    assert info is not None
    stale = {**info.metadata, "inputs": "of others", "digest": "of others"}
    store.put(key, store.get(key), if_generation=info.generation, metadata=stale)
    assert candles.run(task, "options_chain", tools_of(store)).facts["written"] is True
    assert features(store) == before


def test_without_ticks_the_entry_names_the_download(task: Task) -> None:
    entry = candles.run(task, "options_chain", tools_of(MemoryStore("memory://features")))
    assert entry.outcome is Outcome.FAILED
    assert "--data-types options_chain" in str(entry.facts["error"])
