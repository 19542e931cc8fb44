"""The judge of all the other tests judges a whole store whole, and sees each kind of damage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.store import ABSENT
from tests.e2e.world import World

TASK = ("download/2024-08-08/BINANCE:SPOT_PAIR:ETH-USDT", "quotes")
NAME = "BINANCE:SPOT_PAIR:ETH-USDT.parquet"
QUOTES = f"raw_tick_data/by_date/day-2024-08-08/data_type-quotes/{NAME}"
TRADES = f"raw_tick_data/by_date/day-2024-08-08/data_type-trades/{NAME}"
CANDLE = f"processed_candles/by_date/day-2024-08-08/timeframe-1m/{NAME}"


def ledgers(world: World) -> list[str]:
    return [info.key for info in world.store.list("_runs/") if "/shards/" in info.key]


def rewrite(world: World, change: Callable[[str], str]) -> None:
    for key in ledgers(world):
        info = world.store.head(key)
        assert info is not None
        text = change(world.store.get(key).decode())
        world.store.put(key, text.encode(), if_generation=info.generation, metadata=info.metadata)


def without_cause(text: str) -> str:
    document = json.loads(text)
    for entry in document["entries"]:
        if (entry["task"], entry["dataType"]) == TASK:
            entry.update(outcome="failed", facts={"exit": 65})
    return json.dumps(document)


def swap(world: World, key: str, by: str) -> None:
    info, body = world.store.head(key), world.store.get(by)
    assert info is not None
    world.store.put(key, body, if_generation=info.generation, metadata=info.metadata)


DAMAGES: dict[str, tuple[str, Callable[[World], object]]] = {
    "ticks gone": ("lost", lambda world: world.store.delete(QUOTES)),
    "candle gone": ("lost", lambda world: world.store.delete(CANDLE)),
    "row in no ledger": ("lost", lambda world: rewrite(world, lambda text: text.replace(TASK[0], "somebody else"))),
    "failed": ("lost", lambda world: rewrite(world, without_cause)),
    "cut": ("partial", lambda world: os.truncate(world.folder / "store" / TRADES, 1000)),
    "other rows": ("partial", lambda world: swap(world, QUOTES, QUOTES.replace("ETH", "BTC"))),
    "more than planned": ("different", lambda world: world.store.put(f"{CANDLE}.old", world.store.get(CANDLE))),
    "swapped since": ("doubled", lambda world: swap(world, QUOTES, QUOTES)),
    "another attempt": (
        "doubled",
        lambda world: [
            world.store.put(f"{key[:-5]}x.json", world.store.get(key), if_generation=ABSENT) for key in ledgers(world)
        ],
    ),
}


@pytest.mark.slow
def test_a_whole_store_has_no_violation_and_each_damage_is_named(world: World, tmp_path: Path) -> None:
    world.run()
    assert world.violations() == []
    shutil.copytree(tmp_path / "store", tmp_path / "kept", copy_function=shutil.copy2)
    for name, (kind, damage) in DAMAGES.items():
        damage(world)
        found = world.violations()
        assert any(fault.startswith(f"{kind}:") for fault in found), f"{name}: {found}"
        shutil.rmtree(tmp_path / "store")
        shutil.copytree(tmp_path / "kept", tmp_path / "store", copy_function=shutil.copy2)
        assert world.violations() == [], name
