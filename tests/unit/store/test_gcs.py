"""What only a store far away meets: lost answers, throttling, broken connections, withdrawn permission."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
import urllib3

from runner.errors import (
    Exit,
    IntegrityError,
    NoStoreError,
    NotAllowedError,
    ObjectRefusedError,
    PreconditionError,
    SpecError,
    TransientError,
    WorkerExit,
)
from runner.sandbox.gcs import Options, Server, serve
from runner.store.gcs import CHUNK_BYTES, GcsStore
from runner.store.gcs_client import Patience

BRIEF = Patience(connect_s=2, read_s=0.5, retry_s=20, backoff_s=0.01, backoff_max_s=0.05)
SHORT = Patience(connect_s=2, read_s=0.5, retry_s=1, backoff_s=0.01, backoff_max_s=0.05)
UPLOADS = "/upload/*"
BIG = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"and a little more"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(Options(buckets=("ours",))) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def store(server: Server) -> GcsStore:
    return GcsStore("ours/some/prefix", patience=BRIEF)


def requests_of(server: Server, glob: str) -> int:
    paths = server.stats()["paths"]
    return sum(seen["requests"] for path, seen in paths.items() if path.startswith(glob))


def generations(server: Server, name: str = "some/prefix/a") -> int:
    """Count the commits of an object by the answers that carry one: every swap has another generation."""
    return server.stats()["paths"][f"/upload/storage/v1/b/ours/o/{name}"]["statuses"].get("200", 0)


# Lost answers.


@pytest.mark.parametrize("code", [503, 500, 429, 408, 410, 404])
@pytest.mark.parametrize("body", [b"small", BIG], ids=["small", "big"])
def test_own_commit_whose_answer_was_lost_is_a_success(server: Server, store: GcsStore, body: bytes, code: int) -> None:
    server.add_faults({"path": UPLOADS, "fault": "commit_then_503", "code": code, "count": 1})
    info = store.put("a", body, metadata={"rows": "1"})
    assert info == store.head("a")
    assert store.get("a") == body
    assert info.metadata == {"rows": "1"}


@pytest.mark.parametrize("body", [b"small", BIG], ids=["small", "big"])
def test_own_swap_whose_answer_was_lost_is_one_new_generation(server: Server, store: GcsStore, body: bytes) -> None:
    first = store.put("a", b"first")
    server.add_faults({"path": UPLOADS, "fault": "commit_then_503", "count": 1})
    second = store.put("a", body, if_generation=first.generation)
    assert (store.head("a"), store.get("a")) == (second, body)
    with pytest.raises(PreconditionError):
        store.put("a", b"third", if_generation=first.generation)


def test_twin_with_equal_content_is_not_taken_for_our_own(store: GcsStore) -> None:
    """A claim made by creating an object must have one winner, also when both write the same bytes."""
    GcsStore("ours/some/prefix", patience=BRIEF).put("a", b"same", metadata={"n": "1"})
    with pytest.raises(PreconditionError):
        store.put("a", b"same", metadata={"n": "1"})


def test_delete_whose_answer_was_lost_tells_that_there_was_one(server: Server, store: GcsStore) -> None:
    store.put("a", b"1")
    server.add_faults({"path": "/storage/v1/b/ours/o/*", "fault": "commit_then_503", "count": 1})
    assert store.delete("a") is True
    assert store.head("a") is None
    assert store.delete("a") is False


def lose_answers(server: Server) -> None:
    lost = {"path": UPLOADS, "fault": "commit_then_503", "probability": 0.4, "seed": 5}
    server.add_faults(lost, {"path": "*", "fault": "reset", "probability": 0.1, "seed": 6})


def test_of_many_creators_of_one_content_one_wins_though_answers_get_lost(server: Server) -> None:
    lose_answers(server)

    def create(key: str) -> bool:
        try:
            GcsStore("ours", patience=BRIEF).put(key, b"same", metadata={"n": "1"})
        except PreconditionError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for round_ in range(6):
            assert sum(pool.map(create, [f"k{round_}"] * 4)) == 1


def test_chain_of_swaps_never_breaks_though_answers_get_lost(server: Server, store: GcsStore) -> None:
    live = store.put("n", b"0")
    lose_answers(server)
    for value in range(1, 25):
        live = store.put("n", b"%d" % value, if_generation=live.generation)
        assert store.get("n", if_generation=live.generation) == b"%d" % value


# Throttling and broken connections.


@pytest.mark.parametrize("code", [429, 503])
def test_storm_of_refusals_is_waited_out(server: Server, store: GcsStore, code: int) -> None:
    told = {"code": code, "headers": {"Retry-After": "1"}}
    server.add_faults({"path": "*", "fault": "status", **told, "probability": 0.5, "seed": 7})
    for i in range(12):
        store.put(f"d/{i:02}", b"%d" % i)
    assert [store.get(info.key) for info in store.list("d/")] == [b"%d" % i for i in range(12)]
    server.clear_faults()
    assert all(generations(server, f"some/prefix/d/{i:02}") == 1 for i in range(12))


def test_403_that_means_too_fast_is_waited_out(server: Server, store: GcsStore) -> None:
    error = {"code": 403, "message": "too fast", "errors": [{"reason": "userRateLimitExceeded"}]}
    server.add_faults({"path": UPLOADS, "fault": "status", "code": 403, "body": {"error": error}, "count": 2})
    assert store.get(store.put("a", b"1").key) == b"1"


def test_endless_refusal_ends_as_transient_in_bounded_time(server: Server) -> None:
    store = GcsStore("ours", patience=SHORT)
    server.add_faults({"path": "*", "fault": "status", "code": 503})
    began = time.monotonic()
    for use in (
        lambda: store.put("a", b""),
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: [*store.list("")],
    ):
        with pytest.raises(TransientError, match="gs://ours") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("at", [0.0, 0.3, 0.5, 0.99])
def test_reset_in_a_chunk_goes_on_from_what_was_kept(server: Server, store: GcsStore, at: float) -> None:
    server.add_faults({"path": UPLOADS, "fault": "reset", "at": at, "probability": 0.4, "seed": 3, "count": 3})
    store.put("a", BIG)
    assert store.get("a") == BIG


def test_reset_while_reading_goes_on_with_the_same_generation(server: Server, store: GcsStore) -> None:
    store.put("a", BIG)
    server.add_faults({"path": "/download/*", "fault": "cut", "at": 0.6, "count": 2})
    assert store.get("a") == BIG
    server.add_faults({"path": "/download/*", "fault": "reset", "count": 2})
    assert store.get("a", start=5, length=1000) == BIG[5:1005]


def test_session_that_the_server_forgot_is_begun_again(server: Server, store: GcsStore) -> None:
    server.add_faults({"path": UPLOADS, "fault": "status", "code": 410, "count": 1})
    store.put("a", BIG)
    assert store.get("a") == BIG


def test_stalls_end_by_their_time_outs(server: Server, store: GcsStore) -> None:
    store.put("b", b"2" * 1000)
    server.add_faults(
        {"path": UPLOADS, "fault": "stall", "count": 1},
        {"path": "/download/*", "fault": "stall", "count": 1},
        {"path": "/storage/v1/b/ours/o", "fault": "stall", "count": 1},
    )
    began = time.monotonic()
    store.put("a", b"1")  # committed, and its answer stalled
    assert [info.key for info in store.list("")] == ["a", "b"]
    assert store.get("b") == b"2" * 1000
    assert time.monotonic() - began < 30
    assert generations(server) == 1


def test_server_that_is_not_there_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    with pytest.raises(TransientError, match="gs://ours"):
        GcsStore("ours", patience=SHORT).head("a")


@pytest.mark.parametrize("body", [b"small", BIG], ids=["small", "big"])
def test_upload_that_stalls_half_way_goes_on(server: Server, store: GcsStore, body: bytes) -> None:
    server.add_faults({"path": UPLOADS, "fault": "stall", "at": 0.5, "probability": 0.5, "seed": 2, "count": 2})
    store.put("a", body)
    assert store.get("a") == body


def test_download_that_stalls_half_way_goes_on(server: Server, store: GcsStore) -> None:
    store.put("a", BIG)
    server.add_faults({"path": "/download/*", "fault": "stall", "at": 0.5, "count": 2})
    assert store.get("a") == BIG


# Bytes that change on the way.


class Meddler(socketserver.ThreadingTCPServer):
    """A proxy that turns one word into another wherever it passes, in one direction."""

    daemon_threads = True

    def __init__(self, server: Server, *, upwards: bool) -> None:
        self.behind, self.upwards = ("127.0.0.1", server.port), upwards
        super().__init__(("127.0.0.1", 0), Meddling)


class Meddling(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as behind:
            thread = threading.Thread(
                target=self.pump, args=(behind, self.request), kwargs={"meddles": not self.server.upwards}
            )
            thread.start()
            self.pump(self.request, behind, meddles=self.server.upwards)
            thread.join()

    def pump(self, source: socket.socket, sink: socket.socket, *, meddles: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                sink.sendall(data.replace(b"honest", b"untrue") if meddles else data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def meddled(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a proxy that changes bytes between the client and the server."""
    with ExitStack() as stack:

        def begin(*, upwards: bool) -> None:
            proxy = stack.enter_context(Meddler(server, upwards=upwards))
            thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(proxy.shutdown)
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.server_address[1]}")

        yield begin


HONEST = b"honest " * 1000


@pytest.mark.parametrize("body", [HONEST, HONEST + BIG], ids=["small", "big"])
def test_bytes_changed_on_the_way_up_are_not_stored(server: Server, meddled: Callable[..., None], body: bytes) -> None:
    meddled(upwards=True)
    with pytest.raises(IntegrityError, match=r"cannot write 'a' in gs://ours: the bytes changed on the way"):
        GcsStore("ours", patience=BRIEF).put("a", body)
    assert server.stats()["paths"]["/upload/storage/v1/b/ours/o/a"]["statuses"]["400"] == 4
    assert [info.key for info in GcsStore("ours", patience=BRIEF).list("")] == []


def test_bytes_changed_on_the_way_down_are_not_taken(
    server: Server, store: GcsStore, meddled: Callable[..., None]
) -> None:
    store.put("a", HONEST)
    meddled(upwards=False)
    with pytest.raises(
        IntegrityError, match=r"cannot read 'a' in gs://ours/some/prefix: the bytes changed on the way"
    ) as caught:
        GcsStore("ours/some/prefix", patience=BRIEF).get("a")
    assert "\n" not in str(caught.value)


# Refusals for good.


def test_withdrawn_permission_names_role_bucket_and_identity(server: Server, store: GcsStore) -> None:
    server.add_faults({"path": UPLOADS, "fault": "deny_after", "after": 3})
    for i in range(3):
        store.put(f"d/{i}", b"")
    with pytest.raises(NotAllowedError) as caught:
        store.put("d/3", b"")
    text = str(caught.value)
    assert "roles/storage.objectUser on gs://ours" in text
    assert "nobody (anonymous)" in text
    assert "permission was withdrawn" in text
    assert "\n" not in text
    assert [info.key for info in store.list("")] == ["d/0", "d/1", "d/2"]


@pytest.mark.parametrize("code", [401, 403])
def test_refusal_is_believed_at_once_without_patience(server: Server, store: GcsStore, code: int) -> None:
    server.add_faults({"path": "*", "fault": "status", "code": code})
    for use in (
        lambda: store.put("a", b""),
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: [*store.list("")],
        lambda: store.delete("a"),
    ):
        with pytest.raises(NotAllowedError, match=r"roles/storage\.objectUser on gs://ours"):
            use()
    probes = requests_of(server, "/storage/v1/b/ours/iam")
    # After a 403 the bucket is asked what it grants; a 401 says already that it does not know us.
    assert (server.stats()["total"]["requests"] - probes, probes) == (5, 5 if code == 403 else 0)


PATIENT = replace(BRIEF, refusal_s=20)


@pytest.mark.parametrize("code", [401, 403])
def test_young_refusal_is_waited_out(server: Server, code: int) -> None:
    """Grants take a while to be known everywhere, and a young pod's credentials too."""
    store = GcsStore("ours", patience=PATIENT)
    server.add_faults({"path": "*", "fault": "status", "code": code, "probability": 0.5, "seed": 1})
    for i in range(8):
        store.put(f"d/{i}", BIG if i == 5 else b"%d" % i)
    assert [info.key for info in store.list("d/")] == [f"d/{i}" for i in range(8)]
    assert all(store.get(f"d/{i}") for i in range(8))
    assert store.delete("d/0") is True
    server.clear_faults()
    assert all(generations(server, f"d/{i}") == 1 for i in (1, 2, 3, 4, 6, 7))


def test_refusal_that_lasts_is_believed_when_the_bucket_confirms_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = GcsStore("ours", patience=replace(BRIEF, refusal_s=0.5))
    server.add_faults({"path": "/upload/*", "fault": "deny_after"})
    began = time.monotonic()
    with pytest.raises(NotAllowedError, match=r"lacks storage\.objects\.create and needs roles/storage\.objectUser"):
        store.put("a", b"")
    assert time.monotonic() - began >= 0.5
    asked = requests_of(server, "/upload/")
    assert asked > 1
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write 'a' in gs://ours: permission was withdrawn; asking again for 0.5 s"
    ]
    with pytest.raises(NotAllowedError):
        store.put("a", b"")
    assert requests_of(server, "/upload/") == asked + 1  # once believed it needs no second proof
    server.clear_faults()
    assert store.get(store.put("a", b"back").key) == b"back"


def test_permission_given_back_in_time_is_no_refusal(server: Server) -> None:
    store = GcsStore("ours", patience=replace(BRIEF, refusal_s=60))
    server.add_faults({"path": "/upload/*", "fault": "deny_after"})
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(store.put, "a", b"1")
        poll(lambda: requests_of(server, "/upload/") > 2)
        server.clear_faults()
        assert put.result(30).size == 1


def poll(fact: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_object_refused_though_the_bucket_grants_all_is_that_objects_failure_alone(
    server: Server, store: GcsStore
) -> None:
    server.add_faults({"path": "/upload/*/held", "fault": "deny_after"})
    with pytest.raises(ObjectRefusedError, match=r"'held' .* grants nobody \(anonymous\) all that is needed") as caught:
        store.put("held", b"")
    assert (caught.value.worker_exit, caught.value.exit_code) == (WorkerExit.TASKS_FAILED, Exit.NOT_ALLOWED)
    assert store.put("free", b"").key == "free"


def test_refusal_is_not_believed_while_the_bucket_cannot_say_what_it_grants(server: Server) -> None:
    store = GcsStore("ours", patience=SHORT)
    server.add_faults(
        {"path": "/storage/v1/b/ours/iam/testPermissions", "fault": "status", "code": 503},
        {"path": "*", "fault": "deny_after"},
    )
    with pytest.raises(TransientError, match="nor can gs://ours say what it grants"):
        store.head("a")


LOG_IN = r"gcloud auth application-default login.*workload identity.*roles/storage\.objectUser on gs://ours"


def test_missing_credentials_are_said_at_once_with_the_way_to_get_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(NotAllowedError, match=rf"key\.json.*{LOG_IN}") as caught:
        GcsStore("ours", patience=Patience(refusal_s=3600)).head("a")
    assert "\n" not in str(caught.value)


def test_no_credentials_anywhere_are_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(NotAllowedError, match=LOG_IN):
        GcsStore("ours", patience=Patience(refusal_s=3600)).head("a")


def test_bucket_that_does_not_exist_is_no_empty_store(server: Server) -> None:
    store = GcsStore("nowhere/p", patience=SHORT)
    for use in (
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.put("a", b""),
        lambda: store.put("d/a", BIG),
        lambda: store.delete("a"),
        lambda: [*store.list("")],
    ):
        with pytest.raises(NoStoreError, match="gs://nowhere"):
            use()


def test_what_the_server_calls_malformed_is_a_wrong_request(server: Server, store: GcsStore) -> None:
    error = {"code": 400, "message": "Invalid argument."}
    server.add_faults({"path": UPLOADS, "fault": "status", "code": 400, "body": {"error": error}})
    with pytest.raises(SpecError, match=r"400: Invalid argument\."):
        store.put("a", b"")


# At the terminal.


@pytest.mark.parametrize(
    ("place", "fault", "code", "words"),
    [
        ("gs://ours/p", {"fault": "deny_after"}, Exit.NOT_ALLOWED, "roles/storage.objectUser on gs://ours"),
        ("gs://nowhere/p", None, Exit.NOT_FOUND, "there is no bucket gs://nowhere"),
    ],
    ids=["refused", "no_bucket"],
)
def test_command_says_in_one_line_and_without_waiting_what_is_wrong(
    server: Server, place: str, fault: dict[str, str] | None, code: int, words: str
) -> None:
    if fault:
        server.add_faults({"path": "*", **fault})
    command = [sys.executable, "-m", "runner", "list", "--store", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert (words in done.stderr, done.stderr.count("\n")) == (True, 1)
    assert server.stats()["total"]["requests"] <= 2


# On the wire.


def test_small_object_is_one_upload_and_a_big_one_goes_in_chunks(server: Server, store: GcsStore) -> None:
    store.put("small", b"x" * CHUNK_BYTES)
    assert requests_of(server, "/upload/storage/v1/b/ours/o/some/prefix/small") == 1
    store.put("big", BIG)
    assert requests_of(server, "/upload/storage/v1/b/ours/o/some/prefix/big") == 4  # begin, three chunks


def test_file_is_sent_as_it_is_when_it_is_opened(server: Server, store: GcsStore, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(BIG)
    info = store.put("a", source)
    assert (info.size, store.get("a")) == (len(BIG), BIG)


def test_creating_costs_one_request(server: Server, store: GcsStore) -> None:
    for i in range(5):
        store.put(f"x/y/z/{i}", b"")
    assert server.stats()["total"]["requests"] == 5


def test_prefix_is_a_store_of_its_own(server: Server) -> None:
    one, two, whole = GcsStore("ours/p"), GcsStore("ours/pq"), GcsStore("ours")
    one.put("a", b"1")
    two.put("a", b"2")
    assert [info.key for info in one.list("")] == ["a"]
    assert [info.key for info in whole.list("")] == ["p/a", "pq/a"]
    assert (one.url, GcsStore("ours//p/").url, whole.url) == ("gs://ours/p", "gs://ours/p", "gs://ours")


@pytest.mark.parametrize("place", ["", "/", "/a", "b/..", "b/a//c", "b/.runner"])
def test_place_that_cannot_be_is_refused(place: str) -> None:
    with pytest.raises(SpecError):
        GcsStore(place)


def test_key_that_is_too_long_with_the_prefix_is_refused(store: GcsStore) -> None:
    with pytest.raises(SpecError, match="1024 bytes with the prefix"):
        store.put("/".join(["y" * 255] * 4), b"")


def test_foreign_names_that_no_store_accepts_are_not_listed(server: Server, store: GcsStore) -> None:
    store.put("a", b"")
    for name in ("some/prefix/", "some/prefix/folder/", "some/prefix//x", "some/prefix/.runner/x", "some/prefixes"):
        query = urlencode({"uploadType": "media", "name": name})
        answer = urllib3.request("POST", f"{server.url}/upload/storage/v1/b/ours/o?{query}", body=b"")
        assert answer.status == 200
    assert [info.key for info in store.list("")] == ["a"]


def test_forked_child_makes_a_connection_of_its_own(server: Server, store: GcsStore) -> None:
    store.put("a", b"parent")
    with store._connection._lock:  # a thread that does not exist in the child holds it
        child = os.fork()
        if not child:
            signal.alarm(20)
            try:
                store.put("b", b"child")
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert (store.get("a"), store.get("b")) == (b"parent", b"child")


def test_library_that_is_missing_is_named_with_the_way_to_get_it() -> None:
    code = """
import sys
sys.modules["google.cloud.storage"] = None
from runner.errors import ConfigError
from runner.store import open_store
try:
    open_store("gs://bucket").head("a")
except ConfigError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'market-data-runner[gcp]'" in out


def test_nothing_of_google_is_imported_before_the_first_use() -> None:
    code = (
        "import sys, runner.store as s; s.open_store('gs://bucket/p'); print([m for m in sys.modules if 'google' in m])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "google.cloud" not in out
    assert "google.auth" not in out


PUT = """
import resource, sys
from pathlib import Path
from runner.store import open_store
store = open_store("gs://ours")
store.put("warm", Path(sys.argv[1]).read_bytes()[:9 << 20])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("big", Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_upload_of_256_mib_takes_little_memory(server: Server, tmp_path: Path) -> None:
    small, big = tmp_path / "small", tmp_path / "big"
    small.write_bytes(os.urandom(1 << 20) * 9)
    with big.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
    done = subprocess.run([sys.executable, "-c", PUT, small, big], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB


GET = """
import resource, sys
from runner.store import open_object, open_store
store = open_store("gs://ours")
with open_object(store, store.head("big")) as source:
    source.read(8 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while source.read(8 << 20):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_reading_256_mib_piece_by_piece_takes_little_memory(server: Server, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(256 << 20)
    GcsStore("ours").put("big", big)
    done = subprocess.run([sys.executable, "-c", GET], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB
