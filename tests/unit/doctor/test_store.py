"""What doctor says of a store, by writing to it: a folder, and the sandbox's buckets."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from runner.store import open_store
from tests.unit.doctor.world import World


def test_nothing_stays_in_a_bucket_that_was_tried(world: World) -> None:
    check = world.checks()["store"]
    assert check.verdict == "ok"
    assert list(open_store("gs://ours").list("")) == []
    paths = world.bucket.stats()["paths"]
    assert any(path.startswith("/upload/storage/v1/b/ours/o/here/_doctor/") for path in paths)
    assert "/storage/v1/b/ours/iam/testPermissions" in paths


@pytest.mark.parametrize(
    ("path", "lacking"), [("/upload/*", "storage.objects.create"), ("/storage/v1/b/ours/o", "storage.objects.list")]
)
def test_a_permission_that_is_missing_is_named_with_the_role(world: World, path: str, lacking: str) -> None:
    world.bucket.add_faults({"path": path, "fault": "deny_after"})
    check = world.checks()["store"]
    assert check.verdict == "fail"
    assert lacking in check.finding
    assert check.mend.startswith("gcloud storage buckets add-iam-policy-binding gs://ours --member=")
    assert check.mend.endswith("--role=roles/storage.objectUser")
    world.bucket.clear_faults()
    assert list(open_store("gs://ours").list("")) == []


def test_a_bucket_that_is_not_there_is_named_with_the_command_that_makes_it(world: World) -> None:
    check = world.checks(store="gs://theirs/here")["store"]
    assert check.verdict == "fail"
    assert check.mend == "gcloud storage buckets create gs://theirs --location=REGION"


def test_no_store_is_a_failure_and_no_error(world: World) -> None:
    assert world.checks("local", store="")["store"].verdict == "fail"


def test_a_folder_that_is_not_there_is_not_made(world: World, tmp_path: Path) -> None:
    check = world.checks("local", store=f"file://{tmp_path}/new/data")["store"]
    assert check.verdict == "ok"
    assert not (tmp_path / "new").exists()


def test_a_folder_is_tried_and_left_as_it_was(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert world.checks("local", store=f"file://{folder}")["store"].verdict == "ok"
    assert [path for path in folder.rglob("*") if path.is_file() and ".runner" not in path.parts] == []
    assert not (folder / "_doctor").exists()


def test_a_folder_that_is_a_file_is_a_failure(world: World, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert world.checks("local", store=f"file://{tmp_path}/data")["store"].verdict == "fail"


def test_a_clock_that_is_off_is_told_by_the_bucket(world: World) -> None:
    now = datetime.now(UTC) - timedelta(seconds=120)
    body = f'{{"now": "{now.isoformat()}"}}'.encode()
    urlopen(Request(f"{world.bucket.control}/clock", data=body), timeout=30).close()
    check = world.checks()["clock"]
    assert check.verdict == "fail"
    assert "ahead of the store" in check.finding


def test_a_bucket_cannot_be_reached(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    check = world.checks()["store"]
    assert check.verdict == "fail"
    assert "network" in check.mend
