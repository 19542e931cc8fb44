"""The same run over a bucket: Google's client, our stand-in for buckets, workers in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.sandbox import gcs
from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import DEADLINE_S, GENERATED, World, until


@dataclass
class BucketWorld(World):
    """A world whose store is a bucket."""

    @property
    def document(self) -> dict[str, Any]:
        return {**super().document, "store": "gs://ours/data"}


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[gcs.Server]:
    with gcs.serve(gcs.Options(buckets=("ours",), page_size=7)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def world(buckets: gcs.Server, generated: Path, clean: Mapping[str, str], tmp_path: Path) -> Iterator[BucketWorld]:
    with serve(Options(generate=GENERATED, cache=generated)) as source:
        yield BucketWorld(tmp_path, source, clean)


def test_run_over_a_bucket_leaves_what_one_over_a_folder_does(world: BucketWorld, buckets: gcs.Server) -> None:
    submitted = world.cli("submit")
    assert submitted.returncode == Exit.DONE, submitted.stderr
    assert invariants.contents(world.store) == world.clean
    assert world.violations() == []
    validated = world.cli("validate", "--deep")
    assert validated.returncode == Exit.DONE, validated.stdout + validated.stderr
    again = world.cli("submit")
    assert (again.returncode, "nothing to do" in again.stdout + again.stderr) == (Exit.DONE, True)


@pytest.mark.slow
def test_run_over_a_bucket_that_loses_answers_stores_everything_once(world: BucketWorld, buckets: gcs.Server) -> None:
    buckets.add_faults(
        {"path": "/upload/*", "fault": "commit_then_503", "probability": 0.3, "seed": 1},
        {"path": "*", "fault": "status", "code": 429, "probability": 0.1, "seed": 2},
        {"path": "*", "fault": "reset", "probability": 0.05, "seed": 3},
    )
    submitted = world.cli("submit")
    assert submitted.returncode == Exit.DONE, submitted.stderr
    assert all(fault["hits"] for fault in buckets._state.faults.document())
    buckets.clear_faults()
    assert invariants.contents(world.store) == world.clean
    assert world.violations() == []


@pytest.mark.slow
def test_permission_withdrawn_in_a_run_ends_it_naming_the_role(world: BucketWorld, buckets: gcs.Server) -> None:
    world.job["storeRefusalSeconds"] = 1
    world.hold("*/trades/*")
    with world.command("submit") as submit:
        until(world.is_held, "a download in flight")
        buckets.add_faults({"path": "/upload/*", "fault": "deny_after"})
        world.server.clear_faults()
        out, err = submit.communicate(timeout=DEADLINE_S)
    assert submit.returncode == Exit.NOT_ALLOWED, (submit.returncode, out, err)
    assert "roles/storage.objectUser on gs://ours" in out + err
    buckets.clear_faults()
    again = world.cli("submit")
    assert again.returncode == Exit.DONE, again.stderr
    assert invariants.contents(world.store) == world.clean


@pytest.mark.slow
def test_object_refused_for_good_fails_its_task_alone(world: BucketWorld, buckets: gcs.Server) -> None:
    world.job["storeRefusalSeconds"] = 0.5
    buckets.add_faults({"path": "/upload/*/raw_tick_data/*trades/*BTC*", "fault": "deny_after"})
    done = world.cli("submit")
    assert done.returncode == Exit.INCOMPLETE, (done.returncode, done.stdout, done.stderr)
    assert "look for a retention policy" in done.stdout + done.stderr
