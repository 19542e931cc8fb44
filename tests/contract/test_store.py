"""The contract of every store. To add one: a function to the URL of a new, empty place, and its name in STORES.

With RUNNER_TEST_BUCKET=gs://bucket[/prefix] it runs over that bucket too, each test under a prefix of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import urllib3

from runner.errors import NotFoundError, PreconditionError, SpecError
from runner.sandbox.gcs import Options, Server, serve
from runner.store import ABSENT, ObjectInfo, Store, open_object, open_store


def file_url(request: pytest.FixtureRequest) -> str:
    return f"file://{request.getfixturevalue('tmp_path')}/bucket"


def memory_url(request: pytest.FixtureRequest) -> str:
    return f"memory://{uuid.uuid4().hex}"


def gs_url(request: pytest.FixtureRequest) -> str:
    return new_bucket(request, request.getfixturevalue("gcs").url)


def real_bucket_url(request: pytest.FixtureRequest) -> str:
    if request.node.originalname == "test_key_round_trips" and request.node.callspec.params["key"] == GOOD_KEYS[-1]:
        request.applymarker(pytest.mark.xfail(reason="with the prefix the key is longer than 1024 bytes", strict=True))
    url = f"{REAL_BUCKET.rstrip('/')}/{uuid.uuid4().hex}"
    request.addfinalizer(lambda: empty(open_store(url)))
    return url


def empty(store: Store) -> None:
    for info in store.list(""):
        store.delete(info.key)


def fake_gcs_server_url(request: pytest.FixtureRequest) -> str:
    if reason := FAKE_LACKS.get(request.node.originalname):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return new_bucket(request, request.getfixturevalue("fake_gcs_server"))


# What that server cannot do, by test.
FAKE_LACKS = dict.fromkeys(
    (
        "test_range_of_a_named_generation_is_refused_once_it_is_replaced",
        "test_opened_object_refuses_to_mix_generations",
    ),
    "it ignores ifGenerationMatch where content is read",
)

STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {"file": file_url, "memory": memory_url, "gs": gs_url}
REAL_BUCKET = os.environ.get("RUNNER_TEST_BUCKET", "")
if REAL_BUCKET:
    STORES["bucket"] = real_bucket_url


@pytest.fixture(scope="session")
def fake_gcs_server() -> Iterator[str]:
    """Run the stand-in of GCS that we did not write; `scripts/fake-gcs-server` builds it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "market-data-runner"
    script = Path(__file__).parents[2] / "scripts/fake-gcs-server"
    version = next(line for line in script.read_text().splitlines() if line.startswith("version=")).partition("=")[2]
    program = cache / f"fake-gcs-server-{version}" / "fake-gcs-server"
    if not program.exists():
        pytest.fail(f"{program} is not there: run scripts/fake-gcs-server, which builds it once")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-backend", "memory"]
    with subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            urllib3.request("GET", f"{url}/storage/v1/b?project=p", retries=urllib3.Retry(40, backoff_factor=0.05))
            yield url
        finally:
            process.kill()


@pytest.fixture(scope="session")
def gcs() -> Iterator[Server]:
    with serve(Options(page_size=10)) as server:
        yield server


def new_bucket(request: pytest.FixtureRequest, server: str) -> str:
    """Make a bucket for one test at a stand-in of GCS, and have the client ask there."""
    request.getfixturevalue("monkeypatch").setenv("STORAGE_EMULATOR_HOST", server)
    name = f"b-{uuid.uuid4().hex}"
    body = json.dumps({"name": name}).encode()
    answer = urllib3.request("POST", f"{server}/storage/v1/b?project=p", body=body, headers=JSON, timeout=10)
    assert answer.status == 200, answer.data
    return f"gs://{name}"


JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=[*STORES, pytest.param("fake-gcs-server", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> str:
    return {**STORES, "fake-gcs-server": fake_gcs_server_url}[request.param](request)


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


def keys(infos: Iterator[ObjectInfo]) -> list[str]:
    return [info.key for info in infos]


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """Run work(0..count-1) in threads that start at once."""
    gate = threading.Barrier(count)

    def one(index: int) -> object:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# Creating and reading.


def test_created_object_is_read_back_whole(store: Store) -> None:
    info = store.put("a/b.bin", b"123456789")
    assert store.get("a/b.bin") == b"123456789"
    assert store.head("a/b.bin") == info
    assert (info.key, info.size, info.metadata) == ("a/b.bin", 9, {})


def test_crc32c_is_that_of_the_content(store: Store) -> None:
    assert store.put("a", b"123456789").crc32c == 0xE3069283  # the check value of CRC-32C in RFC 3720


def test_updated_is_the_time_of_the_commit_in_utc(store: Store) -> None:
    before = datetime.now(UTC)
    info = store.put("a", b"x")
    slack = timedelta(milliseconds=1)
    assert before - slack <= info.updated <= datetime.now(UTC) + slack
    assert info.updated.utcoffset() == timedelta(0)


def test_updated_moves_on_with_a_swap(store: Store) -> None:
    first = store.put("a", b"x")
    assert store.put("a", b"x", if_generation=first.generation).updated > first.updated


def test_empty_body_is_an_object(store: Store) -> None:
    info = store.put("empty", b"")
    assert (info.size, info.crc32c, store.get("empty")) == (0, 0, b"")
    assert keys(store.list("")) == ["empty"]


def test_absent_object_has_no_facts(store: Store) -> None:
    assert store.head("nothing/here") is None


def test_absent_object_cannot_be_read(store: Store) -> None:
    with pytest.raises(NotFoundError, match="nothing/here"):
        store.get("nothing/here")


def test_empty_store_lists_nothing(store: Store) -> None:
    assert keys(store.list("")) == []


def test_create_refuses_what_exists_and_changes_nothing(store: Store) -> None:
    first = store.put("a", b"first", metadata={"n": "1"})
    with pytest.raises(PreconditionError, match="'a'"):
        store.put("a", b"second", metadata={"n": "2"})
    assert (store.head("a"), store.get("a")) == (first, b"first")


def test_body_may_be_a_local_file_that_stays(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"content" * 500_000)  # several pieces of the copy
    info = store.put("a", source, metadata={"from": "file"})
    assert source.read_bytes() == b"content" * 500_000
    assert (info.size, info.crc32c) == (3_500_000, google_crc32c.value(source.read_bytes()))
    assert store.get("a") == source.read_bytes()


def test_object_does_not_follow_later_changes_of_the_local_file(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"before")
    store.put("a", source)
    source.write_bytes(b"after!")
    assert store.get("a") == b"before"


def test_missing_local_file_is_named_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.bin"):
        store.put("a", tmp_path / "gone.bin")
    assert store.head("a") is None


def test_big_body_comes_back_unchanged(store: Store) -> None:
    body = bytes(range(256)) * 131_072  # 32 MiB
    info = store.put("big", body)
    assert info.size == len(body)
    assert store.get("big") == body


# Swapping.


def test_swap_replaces_content_and_metadata_as_a_whole(store: Store) -> None:
    first = store.put("a", b"first", metadata={"old": "1", "both": "1"})
    second = store.put("a", b"second!", if_generation=first.generation, metadata={"both": "2"})
    assert store.get("a") == b"second!"
    assert store.head("a") == second
    assert second.metadata == {"both": "2"}
    assert second.generation != first.generation


def test_swap_with_equal_content_is_a_new_generation(store: Store) -> None:
    first = store.put("a", b"same")
    assert store.put("a", b"same", if_generation=first.generation).generation != first.generation


def test_stale_swap_is_refused_and_changes_nothing(store: Store) -> None:
    first = store.put("a", b"1")
    second = store.put("a", b"2", if_generation=first.generation)
    with pytest.raises(PreconditionError, match=first.generation):
        store.put("a", b"3", if_generation=first.generation)
    assert (store.head("a"), store.get("a")) == (second, b"2")


def test_swap_of_an_absent_object_is_refused(store: Store) -> None:
    with pytest.raises(PreconditionError, match="does not exist"):
        store.put("a", b"1", if_generation="7")
    assert store.head("a") is None


def test_swap_back_to_old_content_does_not_revive_its_generation(store: Store) -> None:
    first = store.put("a", b"A")
    second = store.put("a", b"B", if_generation=first.generation)
    store.put("a", b"A", if_generation=second.generation)
    with pytest.raises(PreconditionError):
        store.put("a", b"C", if_generation=first.generation)


def test_generations_never_come_back_over_deletes(store: Store) -> None:
    seen = set()
    for _ in range(30):
        seen.add(store.put("a", b"same").generation)
        store.delete("a")
    assert len(seen) == 30


def test_generation_is_text_that_is_not_the_absent_one(store: Store) -> None:
    generation = store.put("a", b"").generation
    assert isinstance(generation, str)
    assert generation != ABSENT


# Deleting.


def test_delete_tells_whether_there_was_an_object(store: Store) -> None:
    store.put("a/b", b"1")
    assert store.delete("a/b") is True
    assert store.head("a/b") is None
    assert keys(store.list("")) == []
    assert store.delete("a/b") is False


def test_delete_at_the_live_generation(store: Store) -> None:
    info = store.put("a", b"1")
    assert store.delete("a", if_generation=info.generation) is True
    assert store.head("a") is None


def test_delete_at_another_generation_is_refused(store: Store) -> None:
    first = store.put("a", b"1")
    second = store.put("a", b"2", if_generation=first.generation)
    for stale in (first.generation, ABSENT, "no such"):
        with pytest.raises(PreconditionError):
            store.delete("a", if_generation=stale)
    assert store.head("a") == second


def test_delete_of_an_absent_object_at_a_generation_is_false(store: Store) -> None:
    assert store.delete("a", if_generation="7") is False


def test_deleted_key_can_be_created_again(store: Store) -> None:
    first = store.put("a/b", b"1", metadata={"n": "1"})
    store.delete("a/b")
    second = store.put("a/b", b"2")
    assert second.generation != first.generation
    assert (store.get("a/b"), second.metadata) == (b"2", {})
    with pytest.raises(PreconditionError):
        store.delete("a/b", if_generation=first.generation)


def test_key_of_a_folder_is_free_once_its_objects_are_gone(store: Store) -> None:
    store.put("a/b/c", b"1")
    store.delete("a/b/c")
    store.put("a", b"2")
    assert keys(store.list("")) == ["a"]


def test_delete_leaves_the_neighbours(store: Store) -> None:
    for key in ("a/1", "a/2", "ab"):
        store.put(key, b"")
    store.delete("a/1")
    assert keys(store.list("")) == ["a/2", "ab"]


# Keys.

GOOD_KEYS = (
    "raw_tick_data/by_date/day-2024-08-08/data_type-trades/BINANCE:SPOT_PAIR:BTC-USDT.parquet",
    "a b/c+d=e@f,g;h&i'j(k)l*m!n~o$p",
    "100%/X%2FY",
    "\u65e5\u672c/\u00e9\u00fc\U0001f4c8",
    "..a/b../...c",
    ".hidden/.b",
    "a/.runner/b",
    "#?/[x]/{y}",
    '"quoted"\\back',
    "x" * 255,
    "/".join(["y" * 255] * 4),
)


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_key_round_trips(store: Store, key: str) -> None:
    info = store.put(key, b"1")
    assert store.get(key) == b"1"
    assert list(store.list(key)) == list(store.list("")) == [info]
    assert store.delete(key)


BAD_KEYS = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/./b",
    "a/..",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\x85b",
    "\ud800",
    ".runner",
    ".runner/tmp/x",
    ".Runner/x",
    "x" * 256,
    "\u00e9" * 128,
    "/".join(["y" * 200] * 6),
)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_malformed_key_is_refused_by_every_method(store: Store, key: str) -> None:
    for use in (
        lambda: store.put(key, b""),
        lambda: store.head(key),
        lambda: store.get(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(SpecError) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_keys_are_exact_in_case(store: Store) -> None:
    store.put("a/B", b"1")
    assert keys(store.list("a/")) == ["a/B"]


@pytest.mark.parametrize(("first", "second"), [("a/b", "a/b/c"), ("a/b", "a/b/c/d"), ("a/b", "a")])
def test_object_and_folder_of_one_name_are_refused_or_kept_apart(store: Store, first: str, second: str) -> None:
    store.put(first, b"1")
    refused = None
    try:
        store.put(second, b"2")
    except SpecError as error:
        refused = str(error)
    if refused is None:
        assert (store.get(first), store.get(second)) == (b"1", b"2")
        assert keys(store.list("")) == sorted([first, second])
        return
    assert "lies under" in refused or "folder" in refused
    assert store.head(second) is None
    with pytest.raises(NotFoundError):
        store.get(second)
    assert store.delete(second) is False
    assert keys(store.list("")) == [first]


# Metadata.

NASTY = {
    "plain": "12",
    "empty": "",
    "quotes": "\"'\\",
    "lines": "a\nb\r\n\tc\0d",
    "json": '{"a": [1, null]}',
    "unicode": "\u65e5\u672c \U0001f4c8 e\u0301",
    "Upper Case/with:colon": "x",
    "\u00e9": "name",
    "separator": "\u2028\ufeff",
}


def test_nasty_metadata_round_trips(store: Store) -> None:
    info = store.put("a", b"1", metadata=NASTY)
    assert info.metadata == NASTY
    for found in (store.head("a"), next(store.list(""))):
        assert found == info


def test_metadata_that_just_fits_is_kept(store: Store) -> None:
    metadata = {"k" * 192: "v" * 4000, "\u00e9": "\u00e9" * 1999}
    assert sum(len(text.encode()) for pair in metadata.items() for text in pair) == 8192
    assert store.put("a", b"", metadata=metadata).metadata == metadata


def test_metadata_above_the_limit_is_refused_with_nothing_written(store: Store) -> None:
    with pytest.raises(SpecError, match="8192"):
        store.put("a", b"", metadata={"k" * 192: "v" * 4000, "\u00e9": "\u00e9" * 1999 + "x"})
    assert store.head("a") is None


@pytest.mark.parametrize("metadata", [{"": "x"}, {"a": 1}, {"a": None}, {1: "a"}, {"a": "\udc80"}])
def test_metadata_that_is_not_text_is_refused(store: Store, metadata: dict[str, str]) -> None:
    with pytest.raises(SpecError):
        store.put("a", b"", metadata=metadata)
    assert store.head("a") is None


def test_metadata_handed_out_is_the_callers_own(store: Store) -> None:
    mine = {"a": "1"}
    info = store.put("a", b"", metadata=mine)
    mine["a"] = "2"
    info.metadata["a"] = "3"
    store.head("a").metadata["a"] = "4"
    next(store.list("")).metadata["a"] = "5"
    assert store.head("a").metadata == {"a": "1"}


# Ranges.


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (3, None, b"3456789"),
        (8, 10, b"89"),
        (9, 1, b"9"),
        (10, 1, b""),
        (11, None, b""),
        (1 << 40, 5, b""),
        (0, 0, b""),
        (5, 0, b""),
        (0, 10, b"0123456789"),
        (0, 1 << 40, b"0123456789"),
    ],
)
def test_range_starts_at_start_and_ends_with_the_object(
    store: Store, start: int, length: int | None, expected: bytes
) -> None:
    store.put("a", b"0123456789")
    assert store.get("a", start=start, length=length) == expected


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
def test_negative_range_is_refused(store: Store, start: int, length: int) -> None:
    store.put("a", b"0123456789")
    with pytest.raises(SpecError):
        store.get("a", start=start, length=length)


def test_empty_range_of_an_absent_object_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.get("a", length=0)


def test_range_of_a_named_generation_is_refused_once_it_is_replaced(store: Store) -> None:
    first = store.put("a", b"first")
    assert store.get("a", start=1, length=2, if_generation=first.generation) == b"ir"
    second = store.put("a", b"other", if_generation=first.generation)
    with pytest.raises(PreconditionError):
        store.get("a", start=1, length=2, if_generation=first.generation)
    assert store.get("a", if_generation=second.generation) == b"other"


# Listing.

ORDERED = [
    "A",
    "a-b",
    "a.b",
    "a/b",
    "a/b.c",
    "a0",
    "ab",
    "b/a",
    "b/c/d",
    "b/c.d",
    "e\u0301",
    "z",
    "\u00e9",
    "\U0001f4c8",
]


def test_list_is_ascending_by_utf8_bytes_of_the_whole_key(store: Store) -> None:
    for key in reversed(ORDERED):
        store.put(key, key.encode())
    listed = keys(store.list(""))
    assert listed == sorted(ORDERED, key=str.encode)
    assert listed.index("a.b") < listed.index("a/b") < listed.index("a0")  # where folder order would differ


@pytest.mark.parametrize(
    "prefix",
    ["", "a", "a/", "a/b", "a/b.", "b", "b/c", "b/c/", "b/c/d", "b/c/d/", "\u00e9", "e", "nothing", "a/nothing/x"],
)
def test_list_gives_exactly_the_keys_that_start_with_the_prefix(store: Store, prefix: str) -> None:
    for key in ORDERED:
        store.put(key, b"")
    assert keys(store.list(prefix)) == sorted((k for k in ORDERED if k.startswith(prefix)), key=str.encode)


@pytest.mark.parametrize(
    "prefix", ["/", "/a", "a//", "..", "../", "a/../", "./", ".runner", ".runner/", "\0", "*", "[a]"]
)
def test_prefix_that_no_key_has_lists_nothing(store: Store, prefix: str) -> None:
    store.put("a/b", b"")
    store.delete("a/b")
    store.put("a/b", b"")
    assert keys(store.list(prefix)) == []


def test_list_carries_all_facts(store: Store) -> None:
    infos = [store.put(f"a/{i}", b"x" * i, metadata={"rows": str(i)}) for i in range(5)]
    assert list(store.list("a/")) == infos == [store.head(info.key) for info in infos]


def test_list_is_lazy(store: Store) -> None:
    for i in range(5):
        store.put(f"d{i}/x", b"")
    listing = store.list("")
    assert next(listing).key == "d0/x"
    store.delete("d3/x")
    assert "d4/x" in keys(listing)


def test_list_goes_on_over_many_objects_in_many_folders(store: Store) -> None:
    expected = [f"d{i // 9:02}/{i:03}" for i in range(120)]
    for key in expected:
        store.put(key, b"")
    assert keys(store.list("")) == expected


def test_two_listings_do_not_disturb_each_other(store: Store) -> None:
    for i in range(6):
        store.put(f"a/{i}", b"")
    one, two = store.list("a/"), store.list("a/")
    assert keys(islice(one, 3)) == ["a/0", "a/1", "a/2"]
    assert keys(two) == [f"a/{i}" for i in range(6)]
    assert keys(one) == ["a/3", "a/4", "a/5"]


def test_list_while_others_write_yields_each_old_object_exactly_once(store: Store) -> None:
    old = sorted(f"d{i % 4}/old-{i:02}" for i in range(40))
    for key in old:
        store.put(key, b"0")
    done = threading.Event()

    def churn(index: int) -> None:
        step = 0
        while not done.is_set():
            key = old[(index + 2 * step) % len(old)]
            info = store.head(key)
            assert info is not None
            store.put(key, b"%d" % step, if_generation=info.generation)
            store.put(f"d{step % 4}/new-{index}-{step}", b"")
            step += 1

    with ThreadPoolExecutor(2) as pool:
        churns = [pool.submit(churn, index) for index in range(2)]
        try:
            for _ in range(25):
                listed = keys(store.list("d"))
                assert [key for key in listed if "old" in key] == old
                assert all(left < right for left, right in pairwise(listed))
        finally:
            done.set()
        assert [churn.result() for churn in churns] == [None, None]


# Many at once.


def test_of_many_creators_one_wins_and_its_content_stays(store: Store) -> None:
    def create(index: int) -> int | None:
        try:
            store.put("d/a", b"%d" % index, metadata={"by": str(index)})
        except PreconditionError:
            return None
        return index

    winners = [index for index in together(8, create) if index is not None]
    assert len(winners) == 1
    assert store.get("d/a") == b"%d" % winners[0]
    assert store.head("d/a").metadata == {"by": str(winners[0])}


def test_of_many_swappers_of_one_generation_one_wins(store: Store) -> None:
    first = store.put("a", b"")

    def swap(index: int) -> str | None:
        try:
            return store.put("a", b"%d" % index, if_generation=first.generation).generation
        except PreconditionError:
            return None

    winners = [generation for generation in together(8, swap) if generation]
    assert winners == [store.head("a").generation]


def increment(store: Store, key: str) -> None:
    """Add one by compare-and-swap, as often as it takes."""
    while True:
        info = store.head(key)
        assert info is not None
        try:
            value = int(store.get(key, if_generation=info.generation))
            store.put(key, b"%d" % (value + 1), if_generation=info.generation)
        except PreconditionError:
            continue
        return


def test_counter_of_swaps_loses_no_increment(store: Store) -> None:
    store.put("n", b"0")
    together(4, lambda _: [increment(store, "n") for _ in range(15)])
    assert store.get("n") == b"60"


def test_creators_and_deleters_alternate(store: Store) -> None:
    created, deleted = [], []

    def work(index: int) -> None:
        for _ in range(25):
            if index % 2:
                if store.delete("d/e/a"):
                    deleted.append(1)
            else:
                try:
                    store.put("d/e/a", b"x")
                except PreconditionError:
                    continue
                created.append(1)

    together(4, work)
    assert len(created) - len(deleted) == (store.head("d/e/a") is not None)


def test_reader_never_mixes_generations(store: Store) -> None:
    size = 300_000
    store.put("a", b"0" * size, metadata={"digit": "0"})
    done = threading.Event()

    def swap() -> None:
        try:
            for step in range(1, 40):
                digit = str(step % 10)
                info = store.head("a")
                store.put("a", digit.encode() * size, if_generation=info.generation, metadata={"digit": digit})
        finally:
            done.set()

    writer = threading.Thread(target=swap)
    writer.start()
    while not done.is_set():
        assert len(set(store.get("a"))) == 1
        info = store.head("a")
        assert info.crc32c == google_crc32c.value(info.metadata["digit"].encode() * size)
    writer.join()


# Handles.


def test_two_handles_on_one_place_see_the_same_objects(url: str) -> None:
    one, two = open_store(url), open_store(url)
    info = one.put("a", b"1")
    assert two.head("a") == info
    assert two.url == one.url


def test_url_is_canonical_and_opens_the_same_place(store: Store, url: str) -> None:
    info = store.put("a", b"1")
    assert not store.url.endswith("/")
    for spelling in (store.url, f"{url}/"):
        again = open_store(spelling)
        assert again.url == store.url
        assert again.head("a") == info


# Files over ranged gets.


class Counting:
    """A store that counts the bytes it hands out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.bytes = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def get(self, key: str, **which: object) -> bytes:
        got = self._store.get(key, **which)
        self.bytes += len(got)
        return got


def test_opened_object_seeks_and_reads_like_a_file(store: Store) -> None:
    body = bytes(range(256)) * 1000
    info = store.put("a", body)
    with open_object(store, info) as file:
        assert file.seekable()
        assert file.readable()
        assert not file.writable()
        assert file.read(3) == body[:3]
        assert file.seek(100_000) == 100_000
        assert file.read(5) == body[100_000:100_005]
        assert file.tell() == 100_005
        assert file.seek(-4, 2) == len(body) - 4
        assert file.read() == body[-4:]
        assert file.read(1) == b""
        assert file.seek(-2, 1) == len(body) - 2
        assert file.seek(len(body) + 10) == len(body) + 10
        assert file.read(1) == b""
        file.seek(0)
        assert file.read() == body


def test_opened_object_cannot_seek_before_its_start(store: Store) -> None:
    with open_object(store, store.put("a", b"123")) as file, pytest.raises((ValueError, OSError)):
        file.seek(-4, 2)


def test_opened_empty_object_reads_nothing(store: Store) -> None:
    with open_object(store, store.put("a", b"")) as file:
        assert file.read() == b""


def test_opened_object_refuses_to_mix_generations(store: Store) -> None:
    first = store.put("a", b"1" * 300_000)
    with open_object(store, first) as file:
        file.read(1)
        store.put("a", b"2" * 300_000, if_generation=first.generation)
        with pytest.raises(PreconditionError):
            file.read()


def test_one_row_group_of_a_parquet_object_touches_few_bytes(store: Store, tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(range(400_000), pa.int64()), "y": pa.array([str(i) for i in range(400_000)])})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=10_000, compression="none", use_dictionary=False)
    info = store.put("t.parquet", tmp_path / "t.parquet")
    counting = Counting(store)
    with open_object(counting, info) as file:
        parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"))
        assert parquet.num_row_groups == 40
        assert parquet.read_row_group(7).equals(table.slice(70_000, 10_000))
    assert 0 < counting.bytes < info.size / 10
