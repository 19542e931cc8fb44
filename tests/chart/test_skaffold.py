"""skaffold.yaml: by skaffold's own schema, with paths that are there, building as we do, starting the first example."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from runner.runs.request import offline_id
from runner.spec import resolve
from tests.chart.helm import CHART, IMAGE, ROOT, helm, objects, written

TEXT = (ROOT / "skaffold.yaml").read_text(encoding="utf-8")
CONFIG = yaml.safe_load(TEXT)
(ARTIFACT,) = CONFIG["build"]["artifacts"]
(RELEASE,) = CONFIG["deploy"]["helm"]["releases"]


def judged(document: dict, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Judge a configuration by skaffold's schema, with helm's reader of schemas: the values of an empty chart."""
    chart = tmp_path / "chart"
    chart.mkdir()
    written(chart / "Chart.yaml", {"apiVersion": "v2", "name": "skaffold", "version": "0.1.0"})
    shutil.copy(ROOT / "tests/data/skaffold/schema.json", chart / "values.schema.json")
    return helm("template", "a", chart, "-f", written(tmp_path / "config.yaml", document))


@pytest.mark.slow
def test_skaffold_knows_every_field(tmp_path: Path) -> None:
    done = judged(CONFIG, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong"), [("buildCommand:", "buildComand:"), ("chartPath:", "chartPaths:")])
def test_its_schema_refuses_a_misspelt_field(right: str, wrong: str, tmp_path: Path) -> None:
    spoilt = yaml.safe_load(TEXT.replace(right, wrong))
    assert judged(spoilt, tmp_path).returncode != 0


def test_every_path_is_there() -> None:
    custom = ARTIFACT["custom"]
    paths = [ARTIFACT["context"], *custom["dependencies"]["paths"], RELEASE["chartPath"]]
    paths += re.findall(r"scripts/[a-z-]+|examples/[a-z0-9-]+\.yaml|images/\S+/Dockerfile", TEXT)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_what_the_image_is_made_of_is_watched() -> None:
    watched = ARTIFACT["custom"]["dependencies"]["paths"]
    script = (ROOT / "scripts" / "images").read_text(encoding="utf-8")
    named = set(re.findall(r"images/runner|requirements-image\.lock", script))
    packaged = re.search(r"only-include = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert packaged is not None
    assert {*named, *re.findall(r'"(.*?)"', packaged[1]), "pyproject.toml"} <= set(watched)


def test_it_builds_and_pushes_as_we_do(tmp_path: Path) -> None:
    """The command runs as a shell runs it, with a recorder in place of scripts/images."""
    script = tmp_path / "scripts" / "images"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "$@ BASE=$BASE" >>called\n')
    script.chmod(0o755)
    for push in ("false", "true"):
        env = {"PATH": "/usr/bin:/bin", "IMAGE": "a/runner:1", "PUSH_IMAGE": push, "BASE": "base:1"}
        subprocess.run(["sh", "-c", ARTIFACT["custom"]["buildCommand"]], cwd=tmp_path, env=env, check=True)
    called = (tmp_path / "called").read_text().splitlines()
    assert called == ["build a/runner:1 BASE=base:1"] * 2 + ["push a/runner:1 BASE=base:1"]
    ours = (ROOT / "scripts" / "images").read_text(encoding="utf-8")
    assert "BASE=$image" in ours
    assert "${BASE:-" in ours
    assert re.search(r"^ARG BASE=", (ROOT / "images/runner/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


def test_it_asks_for_what_the_first_example_asks_for() -> None:
    example = yaml.safe_load((ROOT / "examples/01-one-day.yaml").read_text(encoding="utf-8"))
    run = dict(RELEASE["overrides"]["run"])
    assert run.pop("enabled") is True
    assert run.pop("store").startswith("gs://")
    assert run == {key: str(value) if "Date" in key else value for key, value in example.items() if key != "store"}


@pytest.mark.slow
def test_its_values_render_the_job_of_the_first_example(tmp_path: Path) -> None:
    ((key, said),) = RELEASE["setValueTemplates"].items()
    assert said == f"{{{{.IMAGE_FULLY_QUALIFIED_{ARTIFACT['image']}}}}}"
    words = ("-f", written(tmp_path / "overrides.yaml", RELEASE["overrides"]))
    done = helm(
        "template", RELEASE["name"], ROOT / RELEASE["chartPath"], "-n", "runner", *words, "--set", f"{key}={IMAGE}"
    )
    (job,) = objects(done.stdout)
    store = RELEASE["overrides"]["run"]["store"]
    example = resolve({"store": store}, ROOT / "examples/01-one-day.yaml", env={}, cwd=tmp_path).spec
    assert job["metadata"]["name"] == offline_id(example)
    (manifest,) = objects((ROOT / "manifests/01-one-day.yaml").read_text(encoding="utf-8"))
    assert json.dumps(job, sort_keys=True) == json.dumps(manifest, sort_keys=True)
    assert (CHART / "Chart.yaml").exists()
