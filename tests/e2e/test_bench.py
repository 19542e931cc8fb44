"""The bench on days a five-hundredth of the size: every section runs, and all peers make the candles that we make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts/bench"
MEASURED = {"cpu_s", "wall_s", "rss_mb", "bytes"}
PEERS = {"ours", "polars", "duckdb", "pandas", "pandas_tuned"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_section_compares_all_candles_and_measures_each_peer() -> None:
    sections = ("trades", "book", "medians", "memory", "download")
    command = [BENCH, *sections, "--json", "--rounds", "1", "--scale", "0.002"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert tuple(found) == sections
    assert set(found["medians"]) == PEERS
    assert set(found["trades"]) == set(found["book"]) == PEERS | {"pandas_2"}
    assert set(found["download"]) == {"ours", "tardis-dev"}
    costs = [cost for name in sections if name != "memory" for cost in found[name].values()]
    assert all(set(cost["median"]) == set(cost["ratio"]) == MEASURED for cost in costs)
    assert found["download"]["ours"]["median"]["bytes"] == found["download"]["tardis-dev"]["median"]["bytes"]
    assert len(found["memory"]["peak_mb"]) == 3


_CHANGED = """
import sys
from pathlib import Path
import compare, days
import polars as pl
from measure import job

folder = Path(sys.argv[1])
source = days.day_file("trades", 10_000, folder)
for name in ("ours", "polars"):
    job(name, "trades", source, folder / name)
compare.refuse_other_candles("trades", folder / "ours", folder / "polars")
file = folder / "polars/15m.parquet"
candles = pl.read_parquet(file)
changed = pl.when(pl.int_range(pl.len()) == 5).then(pl.col("high") + 0.01).otherwise(pl.col("high"))
candles.with_columns(changed.alias("high")).write_parquet(file)
compare.refuse_other_candles("trades", folder / "ours", folder / "polars")
"""


@pytest.mark.slow
def test_a_peer_with_one_other_candle_ends_the_bench(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHANGED, tmp_path]
    done = subprocess.run(command, cwd=BENCH.parent / "benchmarks", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip().startswith(f"bench: {tmp_path}/polars 15m high at bar 5: ")) == (
        1,
        True,
    )
