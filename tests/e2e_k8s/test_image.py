"""The image alone, by the engine of `scripts/kind up`: no cluster, a mounted folder as store."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from runner.sandbox.tardis import Options, serve
from tests.e2e_k8s.cluster import IMAGE, ROOT
from tests.e2e_k8s.world import GENERATED

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def docker() -> list[str]:
    """Return the command of the engine that has the image."""
    lines = (ROOT / ".runner/kind/env").read_text().splitlines() if "DOCKER_HOST" not in os.environ else []
    hosts = [line.removeprefix("export DOCKER_HOST=") for line in lines if "DOCKER_HOST=" in line]
    return ["docker", *(["--host", hosts[0]] if hosts else [])]


def test_the_image_starts_runner_itself_and_as_nobody_special(docker: list[str]) -> None:
    shown = subprocess.run([*docker, "image", "inspect", IMAGE], capture_output=True, check=True)
    config = json.loads(shown.stdout)[0]["Config"]
    assert (config["Entrypoint"], config["User"]) == (["runner"], "10001:10001")


def test_a_run_file_and_a_mounted_store_are_all_that_the_image_needs(docker: list[str], tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mounted.chmod(0o777)  # the image's user is none of this machine's
    with serve(Options(generate=GENERATED, cache=tmp_path / "generated")) as server:
        job = {
            "stage": "download",
            "venues": ["BINANCE"],
            "dataTypes": ["trades"],
            "startDate": "2024-08-01",
            "endDate": "2024-08-01",
            "shards": 2,
            "store": "file:///mounted/store",
            "tardis": {"url": server.url, "apiUrl": server.api_url},
        }
        (mounted / "run.yaml").write_text(json.dumps(job))
        hard = ["--read-only", "--tmpfs=/tmp", "--tmpfs=/scratch", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        place = ["--network=host", f"--volume={mounted}:/mounted", "--env=TARDIS_API_KEY=fake-key-1"]
        command = [*docker, "run", "--rm", *hard, *place, IMAGE, "submit", "-f", "/mounted/run.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ticks = sorted((mounted / "store").glob("raw_tick_data/**/*.parquet"))
    assert len(ticks) == len(GENERATED["symbols"])
