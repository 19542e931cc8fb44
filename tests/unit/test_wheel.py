"""The wheel, installed where nothing of the checkout is: it renders, byte for byte, what the checkout renders."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runner.tardis import plain

ROOT = Path(__file__).resolve().parents[2]
REQUEST = ("--start-date", "2024-08-08", "--store", "gs://bucket/prefix", "--image", "runner:dev")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "PYTHON"))}


def run(cwd: Path, *words: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env={**CLEAN, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(out: Path, **env: str) -> Path:
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    run(ROOT, "-m", "pip", "wheel", *offline, "--wheel-dir", out, ROOT, **env)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


def test_every_file_of_the_chart_is_in_the_wheel(wheel: Path) -> None:
    chart = ROOT / "charts" / "runner"
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("runner/charts/")}
    assert {f"runner/charts/{file.relative_to(chart).as_posix()}" for file in chart.rglob("*.yaml")} <= inside


def test_nothing_but_the_package_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"runner"}


@pytest.mark.parametrize("placement", [(), ("--placement", "spot-highmem")])
def test_an_installed_wheel_renders_what_the_checkout_renders(wheel: Path, tmp_path: Path, placement: tuple) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    alone = {"PYTHONPATH": str(installed)}
    where = run(tmp_path, "-c", "import runner; print(runner.__file__)", **alone)
    assert where.startswith(str(installed))
    here = run(ROOT, "-m", "runner", "render", *REQUEST, *placement)
    assert run(tmp_path, "-m", "runner", "render", *REQUEST, *placement, **alone) == here


READ = """
import sys
from runner.market.schema import DATA_TYPES
from runner.tardis import csv, plain
raw = open(sys.argv[1], "rb").read()
batches = csv.read(iter([raw]), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT")
print(plain.available(), sum(batch.num_rows for batch in batches))
"""
TRADES = ROOT / "runner/sandbox/data/binance/trades/2024/08/08/BTCUSDT.csv.gz"


def read(wheel: Path, folder: Path) -> str:
    zipfile.ZipFile(wheel).extractall(folder)
    return run(folder, "-c", READ, TRADES, PYTHONPATH=str(folder))


def test_a_wheel_has_what_is_compiled_and_fits_every_python_from_3_11(wheel: Path, tmp_path: Path) -> None:
    rows = gzip.decompress(TRADES.read_bytes()).count(b"\n") - 1
    compiled = plain.available()
    assert ("-cp311-abi3-" in wheel.name, "-py3-none-any" in wheel.name) == (compiled, not compiled)
    assert read(wheel, tmp_path) == f"{compiled} {rows}\n"


def test_a_wheel_is_made_where_nothing_can_be_compiled(wheel: Path, tmp_path: Path) -> None:
    for number, compiler in enumerate(("false", "no-such-compiler")):
        plain_wheel = built(tmp_path / f"wheel{number}", CC=compiler)
        assert plain_wheel.name.endswith("-py3-none-any.whl")
        assert not [name for name in zipfile.ZipFile(plain_wheel).namelist() if name.endswith(".so")]
    assert read(plain_wheel, tmp_path / "installed").split()[1] == read(wheel, tmp_path / "other").split()[1]
