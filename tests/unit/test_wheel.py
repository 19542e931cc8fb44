"""The wheel, installed where nothing of the checkout is: it renders, byte for byte, what the checkout renders."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUEST = ("--start-date", "2024-08-08", "--store", "gs://bucket/prefix", "--image", "runner:dev")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "PYTHON"))}


def run(cwd: Path, *words: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env={**CLEAN, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    run(ROOT, "-m", "pip", "wheel", *offline, "--wheel-dir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


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
