from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import SpecError
from runner.store import open_store


def test_relative_places_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"file://{tmp_path}/data"
    for url in ("file://./data", "./data", "data", "file://./x/../data/", str(tmp_path / "data")):
        assert open_store(url).url == expected


def test_link_to_a_folder_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_store(str(tmp_path / "link")).url == open_store(str(tmp_path / "real")).url


def test_odd_folder_names_survive_the_url(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "50% of a?b#c d"))
    store.put("a", b"1")
    assert (tmp_path / "50% of a?b#c d" / "a").read_bytes() == b"1"
    assert open_store(store.url).get("a") == b"1"


def test_opening_creates_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    assert store.head("a") is None
    assert list(store.list("")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["", " ", "file://", "memory://", "gs://", "s3://b/x", "file://host/dir", "FILE://x", "/", "file:///"]
)
def test_place_that_cannot_be_a_store_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SpecError) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "file:///directory" in str(caught.value)


def test_only_the_store_in_use_is_imported() -> None:
    code = "import sys, runner.store as s; s.open_store('/x/y'); print(*[m for m in sys.modules if 'store.' in m])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "runner.store.file" in out
    assert "memory" not in out
