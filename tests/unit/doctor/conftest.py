"""A healthy world for each test to spoil."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.sandbox import gcs, tardis
from tests.unit.backends.kubernetes import api as double
from tests.unit.doctor.world import World, days


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("fake-key-1\n")
    return file


@pytest.fixture
def world(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    generated = {"exchange": "binance", "symbols": ["BTCUSDT"], "data_types": ["trades"]}
    plan = {**generated, "days": days(), "rows_per_day": 20, "seed": 7}
    options = tardis.Options(
        generate=plan, cache=tmp_path / "generated", key_file=keys, egress="127.0.0.0/8=here,10.0.0.0/8=there"
    )
    with (
        double.serve() as api,
        gcs.serve(gcs.Options(buckets=("ours",))) as bucket,
        tardis.serve(options) as source,
    ):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        yield World(api, bucket, source, tmp_path)
