"""`runner sandbox gcs` as a user starts it, asked by Google's own client."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from google.api_core.exceptions import Conflict, PreconditionFailed
from google.cloud import storage

from runner.sandbox.gcs import Options, serve


def test_command_says_how_to_use_it_and_ends_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        sys.executable,
        "-m",
        "runner",
        "sandbox",
        "gcs",
        "--bucket",
        "one",
        "--bucket",
        "two",
        "--data",
        tmp_path,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            exports = dict(process.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(2))
            assert exports["RUNNER_STORE"] == "gs://one"
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", exports["STORAGE_EMULATOR_HOST"])
            client = storage.Client(project="p")
            client.bucket("two").blob("d/a").upload_from_string(b"1", if_generation_match=0)
            with pytest.raises(PreconditionFailed):
                client.bucket("two").blob("d/a").upload_from_string(b"2", if_generation_match=0)
            client.create_bucket("three")
            with pytest.raises(Conflict):
                client.create_bucket("three")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "/__sandbox" in said
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_googles_client_reads_lists_patches_and_deletes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve(Options(buckets=("ours",), page_size=2)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = storage.Client(project="p").bucket("ours")
        assert bucket.exists()
        assert bucket.test_iam_permissions(["storage.objects.get", "storage.objects.list"]) == [
            "storage.objects.get",
            "storage.objects.list",
        ]
        for name in ("a", "d/1", "d/2", "d/e/3", "z \u00e9"):
            bucket.blob(name).upload_from_string(name.encode())
        folders = bucket.list_blobs(delimiter="/")
        assert [blob.name for blob in folders] == ["a", "z \u00e9"]
        assert folders.prefixes == {"d/"}
        assert [blob.name for blob in bucket.list_blobs(start_offset="d/2", end_offset="z")] == ["d/2", "d/e/3"]
        blob = bucket.get_blob("z \u00e9")
        assert blob.download_as_bytes(start=2, end=3, checksum="crc32c") == "\u00e9".encode()
        blob.metadata = {"n": "1"}
        blob.patch(if_metageneration_match=1)
        assert bucket.get_blob("z \u00e9").metadata == {"n": "1"}
        with bucket.blob("big").open("wb", chunk_size=256 * 1024) as file:
            file.write(b"x" * 1_000_000)
        assert bucket.get_blob("big").size == 1_000_000
        blob.delete(if_generation_match=blob.generation)
        assert bucket.get_blob("z \u00e9") is None
