"""What only the store in a folder promises: plain files, copies, leftovers, and the ways a disk refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import google_crc32c
import pytest

from runner.errors import PreconditionError, SpecError, TransientError
from runner.store import Store, open_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root))


def own_files(root: Path) -> dict[str, int]:
    """Count the files in each folder of .runner."""
    own = root / ".runner"
    return {name: sum(path.is_file() for path in (own / name).rglob("*")) for name in ("tmp", "meta")}


# Plain files.


def test_object_is_the_plain_file_of_its_key(store: Store, root: Path) -> None:
    store.put("day-1/A:B.parquet", b"content", metadata={"a": "b"})
    assert (root / "day-1" / "A:B.parquet").read_bytes() == b"content"
    assert (root / "day-1" / "A:B.parquet").stat().st_nlink == 1


def test_mode_of_an_object_follows_the_umask(store: Store, root: Path) -> None:
    mask = os.umask(0o022)
    try:
        store.put("a", b"")
    finally:
        os.umask(mask)
    assert (root / "a").stat().st_mode & 0o777 == 0o644


def test_nothing_but_the_live_sidecars_stays(store: Store, root: Path) -> None:
    first = store.put("a/b", b"1")
    store.put("a/c", b"2")
    store.put("a/b", b"3", if_generation=first.generation)
    store.delete("a/c")
    with pytest.raises(PreconditionError):
        store.put("a/b", b"4")
    assert own_files(root) == {"tmp": 0, "meta": 1}


def test_folders_go_with_their_last_object(store: Store, root: Path) -> None:
    store.put("a/b/c", b"")
    store.delete("a/b/c")
    assert [path.name for path in root.iterdir()] == [".runner"]


def test_empty_folder_in_the_way_of_a_key_gives_way(store: Store, root: Path) -> None:
    (root / "a").mkdir(parents=True)
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_listing_reads_no_body(store: Store, root: Path) -> None:
    for name in ("a", "b"):
        store.put(name, b"x")
        os.utime(root / name, ns=(0, (root / name).stat().st_mtime_ns))  # atime only
    list(store.list(""))
    assert [(root / name).stat().st_atime_ns for name in ("a", "b")] == [0, 0]


# Files that somebody else put here.


def test_copied_file_is_an_object_without_metadata(store: Store, root: Path) -> None:
    (root / "d").mkdir(parents=True)
    (root / "d" / "x.parquet").write_bytes(b"123456789")
    info = store.head("d/x.parquet")
    assert (info.size, info.crc32c, info.metadata) == (9, 0xE3069283, {})
    assert list(store.list("d/")) == [info]
    assert store.get("d/x.parquet", if_generation=info.generation) == b"123456789"
    assert own_files(root) == {"tmp": 0, "meta": 0}


def test_copied_file_can_be_swapped_and_deleted_by_its_generation(store: Store, root: Path) -> None:
    root.mkdir()
    (root / "x").write_bytes(b"1")
    (root / "y").write_bytes(b"1")
    made = store.put("x", b"2", if_generation=store.head("x").generation, metadata={"a": "b"})
    assert store.head("x") == made
    assert store.delete("y", if_generation=store.head("y").generation)
    with pytest.raises(PreconditionError):
        store.put("x", b"3")


def test_object_changed_by_somebody_else_loses_metadata_and_generation(store: Store, root: Path) -> None:
    first = store.put("a", b"first", metadata={"rows": "1"})
    (root / "a").write_bytes(b"other")
    info = store.head("a")
    assert info.metadata == {}
    assert info.generation != first.generation
    assert info.crc32c == google_crc32c.value(b"other")
    with pytest.raises(PreconditionError):
        store.put("a", b"x", if_generation=first.generation)


def test_file_of_another_size_is_not_the_sidecars_even_with_its_time(store: Store, root: Path) -> None:
    first = store.put("a", b"first", metadata={"rows": "1"})
    kept = (root / "a").stat()
    (root / "a").write_bytes(b"longer than first")
    os.utime(root / "a", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    info = store.head("a")
    assert (info.size, info.metadata) == (17, {})
    assert info.generation != first.generation


def test_copy_of_a_store_that_keeps_times_keeps_metadata(store: Store, root: Path, tmp_path: Path) -> None:
    infos = [store.put(f"d/{name}", b"1", metadata={"rows": name}) for name in "ab"]
    subprocess.run(["cp", "-a", str(root), str(tmp_path / "copy")], check=True)
    copy = open_store(str(tmp_path / "copy"))
    assert list(copy.list("")) == infos
    copy.put("d/a", b"2", if_generation=infos[0].generation)
    assert list(store.list("")) == infos


def test_copy_of_a_store_without_its_own_folder_keeps_the_objects(store: Store, root: Path, tmp_path: Path) -> None:
    info = store.put("d/a", b"1", metadata={"rows": "1"})
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".runner"))
    (found,) = open_store(str(tmp_path / "copy")).list("")
    assert (found.key, found.size, found.crc32c, found.metadata) == (info.key, info.size, info.crc32c, {})


def test_what_is_no_object_is_passed_over(store: Store, root: Path) -> None:
    info = store.put("d/a", b"")
    os.mkfifo(root / "d" / "fifo")
    (root / "d" / "broken").symlink_to("nowhere")
    (root / "d" / "loop").symlink_to("loop")
    (root / "d" / "line\nfeed").write_bytes(b"")
    (root / "d" / "empty").mkdir()
    (root / "d" / os.fsdecode(b"\xff")).write_bytes(b"")
    assert list(store.list("")) == [info]
    assert store.head("d/fifo") is store.head("d/broken") is store.head("d/loop") is store.head("d/empty") is None


def test_linked_file_and_folder_are_read_like_others(store: Store, root: Path, tmp_path: Path) -> None:
    store.put("d/a", b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b").write_bytes(b"2")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert [info.key for info in store.list("")] == ["d/a", "link/b"]
    assert store.get("link/b") == b"2"


# Leftovers.


def test_leftovers_of_a_dead_writer_are_swept_when_old(store: Store, root: Path) -> None:
    scratch = root / ".runner" / "tmp"
    scratch.mkdir(parents=True)
    (scratch / "0a.body").write_bytes(b"part")
    (scratch / "0a.json").write_bytes(b'{"key": "a", "gener')
    (scratch / "0b.body").write_bytes(b"new")
    os.utime(scratch / "0a.body", (1, 1))
    store.put("x", b"")
    assert [path.name for path in scratch.iterdir()] == ["0b.body"]


def test_leftovers_are_never_objects(store: Store, root: Path) -> None:
    (root / ".runner" / "tmp").mkdir(parents=True)
    (root / ".runner" / "tmp" / "0a.body").write_bytes(b"part")
    assert list(store.list("")) == []


# A disk that refuses: one line that says what and where, nothing left.


def one_line(error: BaseException, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_root_that_is_a_file_is_refused(root: Path, store: Store) -> None:
    root.write_bytes(b"")
    with pytest.raises(SpecError) as caught:
        store.put("a/b", b"")
    one_line(caught.value, str(root), "is a file")
    with pytest.raises(SpecError) as listed:
        list(store.list(""))
    one_line(listed.value, str(root), "is a file")
    assert store.head("a") is None


def test_damaged_sidecar_is_named(root: Path, store: Store) -> None:
    store.put("a", b"")
    (sidecar,) = (path for path in (root / ".runner" / "meta").rglob("*") if path.is_file())
    sidecar.write_bytes(b"{")
    with pytest.raises(TransientError) as caught:
        store.head("a")
    one_line(caught.value, str(sidecar), "remove")


def in_new_mounts(mounts: str) -> list[str]:
    """Return a command prefix that runs in mounts of its own, gone with it; skip where that is not permitted."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs unshare(1) with user namespaces to mount a tiny file system")
    return prefix


def test_full_disk_is_transient_and_leaves_nothing(root: Path, writers) -> None:
    root.mkdir()
    writer = writers(in_new_mounts(f"mount -t tmpfs -o size=256k,nr_inodes=60 none {root}"))
    refused = 0
    for pages in range(40, 70):
        key = f"n{pages}/a/b"
        answer = writer.do(url=str(root), do="put", key=key, body="x", times=4096 * pages)
        if "error" not in answer:
            assert writer.do(url=str(root), do="delete", key=key)["deleted"]
        else:
            refused += 1
            assert answer["error"] == "TransientError"
            one_line(AssertionError(answer["message"]), key, "No space left", "free some space")
        files = writer.do(url=str(root), do="tree")["files"]
        assert [name for name in files if not name.startswith(".runner/locks/")] == []
    assert 0 < refused < 30
    assert "generation" in writer.do(url=str(root), do="put", key="small", body="x")


def test_full_inode_table_is_transient_and_leaves_nothing(root: Path, writers) -> None:
    root.mkdir()
    writer = writers(in_new_mounts(f"mount -t tmpfs -o size=2m,nr_inodes=40 none {root}"))
    answers = [writer.do(url=str(root), do="put", key=f"d{n}/a", body="x") for n in range(20)]
    kept = [answer for answer in answers if "generation" in answer]
    assert 0 < len(kept) < 20
    assert {answer["error"] for answer in answers if "error" in answer} == {"TransientError"}
    files = writer.do(url=str(root), do="tree")["files"]
    assert len([name for name in files if name.startswith(".runner/meta/")]) == len(kept)
    assert [name for name in files if name.startswith(".runner/tmp/")] == []
    assert len(writer.do(url=str(root), do="read")["keys"]) == len(kept)


def test_read_only_disk_can_be_read_and_refuses_writes(root: Path, store: Store, writers) -> None:
    store.put("a", b"1", metadata={"rows": "1"})
    writer = writers(in_new_mounts(f"mount --bind {root} {root}; mount -o remount,bind,ro {root}"))
    assert writer.do(url=str(root), do="read")["bodies"] == ["1"]
    for command in ({"do": "put", "key": "b", "body": "x"}, {"do": "delete", "key": "a"}):
        answer = writer.do(url=str(root), **command)
        assert answer["error"] == "NotAllowedError"
        one_line(AssertionError(answer["message"]), "Read-only file system", "writable")


def test_limit_of_file_sizes_is_transient_and_leaves_nothing(root: Path, store: Store, writer) -> None:
    answer = writer.do(url=str(root), do="put", key="a", body="x", times=3_000_000, fsize=1_500_000)
    assert answer["error"] == "TransientError"
    assert own_files(root) == {"tmp": 0, "meta": 0}
    assert store.head("a") is None


@pytest.fixture
def other_user() -> dict[str, int]:
    """Return what makes a writer somebody whom modes bind: root is not."""
    return {"uid": 65534} if os.getuid() == 0 else {}


def test_folder_of_another_user_is_not_allowed(root: Path, store: Store, writer, other_user) -> None:
    store.put("d/a", b"1")
    root.chmod(0o000)
    try:
        for do in ("put", "delete", "read"):
            answer = writer.do(url=str(root), do=do, key="d/a", body="x", **other_user)
            assert answer["error"] == "NotAllowedError"
            one_line(AssertionError(answer["message"]), str(root), "Permission denied", "access")
    finally:
        root.chmod(0o700)


def test_folder_that_only_may_be_read_refuses_writes(writer, other_user) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        open_store(folder).put("a", b"1")
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert writer.do(url=folder, do="read", **other_user)["bodies"] == ["1"]
        for command in ({"do": "put", "key": "d/b", "body": "x"}, {"do": "delete", "key": "a"}):
            answer = writer.do(url=folder, **command, **other_user)
            assert answer["error"] == "NotAllowedError"
            one_line(AssertionError(answer["message"]), folder, "Permission denied", "access")
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o755)


def test_wait_for_a_lock_ends_and_names_the_lock(root: Path) -> None:
    from runner.store.disk import locked

    root.mkdir()
    with locked(root / "lock"), pytest.raises(TransientError) as caught, locked(root / "lock", wait_s=0.0):
        pass
    one_line(caught.value, str(root / "lock"), "another process")


# Streams, times.


def test_local_file_is_streamed_in_bounded_memory(root: Path, writer, tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as source:
        source.truncate(96 << 20)
    answer = writer.do(url=str(root), do="put", key="a", path=str(tmp_path / "source"))
    assert (root / "a").stat().st_size == 96 << 20
    assert answer["grown_kib"] < 16 << 10


def test_two_files_of_one_key_never_share_a_time(root: Path) -> None:
    from runner.store.disk import Scratch
    from runner.store.sidecar import Sidecars

    root.mkdir()
    sidecars = Sidecars(root, root / "meta")
    times = []
    for _ in range(5):
        with Scratch(root / "tmp") as scratch:
            made = sidecars.write(scratch, {"key": "a"}, now_ns=1_700_000_000_000_000_000)
            assert scratch.body.stat().st_mtime_ns == made["mtime_ns"]
            times.append(made["mtime_ns"])
    assert len(set(times)) == 5
