"""What stands in two places of the chart says the same: defaults, versions, generated files."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest
import yaml

from runner.spec import RunSpec
from tests.chart.helm import CHART, ROOT, program

# Said by the cluster, the release and pod.image.
ELSEWHERE = {"backend", "namespace", "context", "image"}


def check(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/manifests", "--check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_defaults_of_a_run_are_those_of_its_specification() -> None:
    shipped = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["run"]
    assert shipped.pop("enabled") is False
    ours = json.loads(RunSpec().to_json())
    assert shipped == {key: value for key, value in ours.items() if key not in ELSEWHERE}


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_generated_files_are_as_the_code_says() -> None:
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_manifests_are_as_the_chart_says() -> None:
    done = check("--helm", program())
    assert done.returncode == 0, done.stdout + done.stderr
