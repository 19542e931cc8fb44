"""Pipelines in this process: a sandbox with a clock, a store, and stage runs done at once by the real worker."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from runner import run_record
from runner.backends.sight import Sight
from runner.errors import Exit
from runner.pipeline import DayEnd, Means, Source, Terms, days_of, run_days
from runner.run_record import RunRecord
from runner.runs import Controlled, ending, finish, verdict
from runner.runs.state import CANCELLED
from runner.spec import RunSpec
from runner.store import Store
from tests.unit.conftest import World, client_of

DAYS = ["2024-08-01", "2024-08-04"]
TRADES = {"data_types": ["trades"], "days": DAYS, "rows_per_day": 40, "seed": 7}
GENERATED = [
    {**TRADES, "exchange": "binance", "symbols": ["BTCUSDT", "ETHUSDT"]},
    {**TRADES, "exchange": "okex", "symbols": ["BTC-USDT"]},
]


class Here(Controlled):
    """Carries stage runs out in this process; `done` counts how often each was."""

    def __init__(self, world: World, store: Store, done: Counter[str]) -> None:
        super().__init__(store)
        self._world, self._done = world, done

    _one_at_a_time = threading.Lock()

    def settle(self, record: RunRecord) -> Sight:
        return Sight(alive=False)

    def carry_out(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Sight], None]
    ) -> Exit:
        look(Sight())
        if stop():
            return Exit.INTERRUPTED
        with self._one_at_a_time:
            if ending(self._world.store, record.id) is None:
                self._done[record.id] += 1
                # As a worker's process does: it reads the catalogue anew.
                self._world.tardis.close()
                self._world.tardis = client_of(self._world.server)
                self._world.carry_out(record, spec)
        return verdict(self._world.store, record)

    def cancel(self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool]) -> None:
        finish(self._world.store, record.id, CANCELLED, {})


@dataclass
class Mornings:
    """A world and what a controller is told in it. `store` is what it is handed, the world's own if none."""

    world: World
    done: Counter[str] = field(default_factory=Counter)
    store: Store | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    terms: Terms = field(default_factory=lambda: Terms(deadline_s=0.0, poll_s=0.01))
    stop: Callable[[], bool] = lambda: False

    @property
    def spec(self) -> RunSpec:
        return self.world.spec(**{"start_date": None, **self.asked})

    def run(self, day: str = "2024-08-02", now: str = "2024-08-03T08:00:00+00:00", lookback: int = 3) -> list[DayEnd]:
        days = days_of(day, lambda: datetime.fromisoformat(now), lookback)
        return list(run_days(self.means(), self.spec, self.terms, days))

    def morning(self, day: str, **options: Any) -> dict[str, str]:
        """Set the sandbox's clock to 08:00 of a day, have `auto` run, and return the verdict of each day."""
        now = f"{day}T08:00:00+00:00"
        self.clock(now)
        return {str(end.day): str(end.verdict) for end in self.run("auto", now, **options)}

    def clock(self, now: str) -> None:
        body = json.dumps({"now": now}).encode()
        request = urllib.request.Request(f"{self.world.server.control}/clock", body, method="POST")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200

    def means(self) -> Means:
        store = self.store or self.world.store
        here = Here(self.world, self.world.store, self.done)
        source = Source(lambda: client_of(self.world.server))
        return Means(store, source, lambda *_: here, self.stop, lambda _: lambda _: None)

    def runs(self, stage: str) -> list[str]:
        return sorted(run_record.run_ids(self.world.store, f"{stage}-"))

    def unfinished(self) -> list[str]:
        return [run for run in run_record.run_ids(self.world.store) if ending(self.world.store, run) is None]

    def sealed(self, day: date) -> set[str]:
        """Return what the metadata of a day's candles of one minute says of their being final."""
        prefix = f"processed_candles/by_date/day-{day}/timeframe-1m/"
        return {info.metadata["sealed"] for info in self.world.store.list(prefix)}


@pytest.fixture
def mornings(sandbox: Callable[..., Any], store: Store, tmp_path: Path) -> Mornings:
    server, tardis = sandbox(generate=GENERATED)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Mornings(World(server, tardis, store, scratch))
