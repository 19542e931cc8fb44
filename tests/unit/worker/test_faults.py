"""Every fault of the source through the real worker: outcome, exit code, line, requests, and what the store holds.

A fault that lasts leaves nothing but the worker's own records; once it is gone the next attempt leaves exactly what a
day without faults does.
"""

from __future__ import annotations

import gzip
import io
import socket
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import runner.sandbox
from runner import layout, ledger, plan, run_record
from runner.backends.sight import Sight
from runner.errors import WorkerExit
from runner.run_record import RunRecord
from runner.runs import Watch
from runner.sandbox.corrupt import CORRUPTIONS
from runner.sandbox.tardis import Options, Server, serve
from runner.spec import RunSpec
from runner.stages.commit import Mode
from runner.stages.tools import Tools
from runner.store import Store, open_object, open_store
from runner.tardis.client import Limits, Tardis
from runner.task import Entry, Outcome, Source, Stage, Task
from runner.worker.identity import Identity
from runner.worker.shard import Shard
from runner.worker.stop import Stop

SAMPLES = Path(runner.sandbox.__file__).parent / "data"
DAY, KEY, RUN = date(2024, 8, 8), "BINANCE:SPOT_PAIR:BTC-USDT", "download-3f9a1c20"
PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
ROWS = gzip.decompress((SAMPLES / PATH.removeprefix("/v1/")).read_bytes()).count(b"\n") - 1
WHAT = "binance trades 2024-08-08 BTCUSDT: "
DAMAGED = "the source serves it damaged: retry later, or report it"
NETWORK = "check the network and the source, then retry"
TICKS = layout.ticks(DAY, "trades", KEY)


@dataclass
class Shards:
    """A source, a store, and attempts at a shard of one task."""

    server: Server
    store: Store
    scratch: Path
    url: str
    limits: dict[str, Any] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)
    day: date = DAY

    def attempt(self, *, mode: Mode = Mode.KEEP) -> tuple[WorkerExit, Entry | None]:
        """Do the shard once as a worker does; return its exit code and what it recorded of the task."""
        limits = {"attempts": 2, "backoff_s": 0.01, "backoff_max_s": 0.02, "stall_s": 20.0, "min_bytes_per_s": 0}
        limits |= {"min_speed_window_s": 0.4, "connect_s": 5.0, "refusal_s": 0.3, "lock_limit_s": 0.3, **self.limits}
        tardis = Tardis(self.url, self.server.api_url, "fake-key-1", Limits(**limits), self.stop.event, 4)
        scratch = self.scratch / uuid.uuid4().hex
        scratch.mkdir()
        me = Identity(RUN, 0, scratch.name, RunSpec(store=self.store.url), "fake-key-1")
        try:
            tools = Tools(self.store, tardis, scratch, mode)
            shard = Shard(me, self.record(), tools, self.stop, lambda: b"")
            tardis.on_parked = shard.parked
            end = shard.run()
        finally:
            tardis.close()
        assert list(scratch.iterdir()) == []
        (made,) = [each for each in ledger.read_attempts(self.store, RUN) if each.attempt == scratch.name]
        return end, made.entries[0] if made.entries else None

    def record(self) -> RunRecord:
        task = Task(Stage.DOWNLOAD, self.day, KEY, ("trades",), Source("binance", "BTCUSDT"), predicted_bytes=1)
        body = plan.encode(plan.Plan(((task,),)))
        if self.store.head(layout.plan(RUN)) is None:
            self.store.put(layout.plan(RUN), body)
        record = RunRecord(RUN, {"store": self.store.url}, {}, ledger.pin(body), plan.shard_sizes(body))
        run_record.write_run(self.store, record)
        return record

    def afresh(self) -> Shards:
        """Return a later run over the same task and store, by a patient worker."""
        for info in list(self.store.list("_runs/")):
            self.store.delete(info.key)
        return Shards(self.server, self.store, self.scratch, self.url)

    @property
    def data(self) -> dict[str, str]:
        """Return the digest of every data object, by key."""
        return {i.key: i.metadata["digest"] for i in self.store.list("") if not i.key.startswith("_runs/")}

    @property
    def requests(self) -> int:
        return int(self.server.stats()["paths"].get(PATH, {"requests": 0})["requests"])

    def served(self) -> bytes:
        """Return what the source serves now."""
        request = urllib.request.Request(self.server.origin + PATH, headers={"Authorization": "Bearer fake-key-1"})
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Shards]]:
    with ExitStack() as stack:

        def make(*, limits: dict[str, Any] | None = None, url: str = "", **options: Any) -> Shards:
            server = stack.enter_context(serve(Options(**{"data": SAMPLES, **options})))
            scratch = tmp_path / uuid.uuid4().hex
            scratch.mkdir()
            store = open_store(f"memory://{uuid.uuid4().hex}")
            return Shards(server, store, scratch, url or server.url, limits or {})

        yield make


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what a day without faults leaves."""
    with serve(Options(data=SAMPLES)) as server:
        store = open_store(f"memory://{uuid.uuid4().hex}")
        shards = Shards(server, store, tmp_path_factory.mktemp("clean"), server.url)
        assert shards.attempt()[0] is WorkerExit.SETTLED
        assert len(shards.data) == 8
        return shards.data


def status(code: int, body: Any = "", **headers: str) -> dict[str, Any]:
    return {
        "fault": "status",
        "code": code,
        "body": body,
        "headers": {k.replace("_", "-"): v for k, v in headers.items()},
    }


def refused(code: int, number: int, message: str = "no", **more: int) -> dict[str, Any]:
    return status(code, {"code": number, "message": message, **more})


def corrupt(kind: str) -> dict[str, Any]:
    return {"fault": "corrupt", "kind": kind}


def cut(framing: str, at: float = 0.5) -> dict[str, Any]:
    return {"fault": "cut", "framing": framing, "at": at}


@dataclass(frozen=True)
class Case:
    """A fault that lasts: exit code, words of the line, how often the file was asked for (0: more than once)."""

    fault: dict[str, Any]
    end: int
    words: tuple[str, ...]
    requests: int = 2
    limits: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join(str(value)[:16] for value in self.fault.values() if value)[:40]


HASTY = {"stall_s": 0.3}
FAILING = [
    # the server errs: tried again, then the shard
    *(Case(status(code), 75, (str(code), NETWORK)) for code in (500, 502, 503, 504, 429)),
    Case(status(403, "<html>Access denied</html>"), 75, ("403 <html>Access denied", NETWORK)),
    Case(refused(400, 99, "date must be ISO 8601 format"), 75, ("400/99", "ISO 8601", NETWORK)),
    # the source refuses for good
    Case(status(404), 65, ("404", "look it up in the catalogue, ask the vendor, or retry later")),
    Case(refused(400, 99), 65, ("400/99 no",), 1),
    Case(refused(400, 100, "Invalid 'exchange'"), 78, ("400/100 Invalid 'exchange'",), 1),
    Case(refused(401, 401), 65, ("401/401 no", "the key works and covers", "retry later")),
    Case(refused(403, 12, "not in your plan"), 65, ("403/12 not in your plan", "the key works and covers")),
    Case(
        refused(403, 274, "active elsewhere", retryAfterSeconds=893),
        77,
        ("told to wait 893 s", "nothing downloaded for 0.3 s", "egress must be one address"),
        0,
    ),
    # the connection
    Case({"fault": "reset"}, 75, ("no answer from 127.0.0.1", NETWORK)),
    Case({"fault": "reset", "at": 0.5}, 75, ("the body broke off after", NETWORK)),
    Case(corrupt("hang_up"), 75, ("no answer from 127.0.0.1", NETWORK)),
    Case(corrupt("silence"), 75, ("stalled: no complete answer for 0.3 s", NETWORK), limits=HASTY),
    Case(corrupt("slow_head"), 75, ("stalled: no complete answer for 0.3 s", NETWORK), limits=HASTY),
    Case({"fault": "stall"}, 75, ("stalled: no byte for 0.3 s", NETWORK), limits=HASTY),
    Case({"fault": "slow", "bytes_per_s": 2000}, 75, ("too slow: ", NETWORK), limits={"min_bytes_per_s": 100_000}),
    Case(cut("content-length"), 75, ("the body broke off after", NETWORK)),
    Case(cut("chunked"), 75, ("the body broke off after", NETWORK)),
    Case(cut("close"), 65, ("the gzip stream is cut", DAMAGED)),
    # the bytes
    Case(corrupt("html"), 65, ("not gzip but an HTML page: '<!DOCTYPE html>", DAMAGED)),
    Case(corrupt("empty_body"), 65, ("an empty body", DAMAGED)),
    Case(corrupt("wrong_md5"), 65, ("the body's MD5 is", "x-md5 says", DAMAGED)),
    Case(corrupt("truncated_gzip"), 65, ("the gzip stream is cut", DAMAGED)),
    Case(corrupt("gzip_trailer"), 65, ("damaged gzip stream", DAMAGED)),
    Case(corrupt("gzip_length"), 65, ("damaged gzip stream", DAMAGED)),
    Case(corrupt("trailing_garbage"), 65, ("garbage after the end of the gzip stream", DAMAGED)),
    Case(corrupt("gzip_bomb"), 65, ("a line of more than 65536 bytes", DAMAGED)),
    Case(corrupt("fewer_rows"), 65, ("the body's MD5 is", "x-md5 says", DAMAGED)),
    Case(corrupt("first_member"), 65, ("the body's MD5 is", "x-md5 says", DAMAGED)),
    # the lines
    Case(corrupt("no_header"), 65, ("line 1: the header is not that of trades", DAMAGED)),
    Case(corrupt("header_order"), 65, ("line 1: the header is not that of trades", DAMAGED)),
    Case(corrupt("header_renamed"), 65, ("line 1: the header is not that of trades", DAMAGED)),
    Case(corrupt("bom"), 65, ("line 1: the header is not that of trades", DAMAGED)),
    Case(corrupt("crlf"), 65, ("line 1: the header is not that of trades", DAMAGED)),
    Case(corrupt("missing_column"), 65, ("line 658: CSV parse error: Expected 8 columns, got 7", DAMAGED)),
    Case(corrupt("extra_column"), 65, ("line 658: CSV parse error: Expected 8 columns, got 9", DAMAGED)),
    Case(corrupt("nan"), 65, ("line 658: price is not a finite number", DAMAGED)),
    Case(corrupt("infinity"), 65, ("line 658: price is not a finite number", DAMAGED)),
    Case(corrupt("text_price"), 65, ("line 658: ", "n/a", DAMAGED)),
    Case(corrupt("nul"), 65, ("line 658: a NUL byte", DAMAGED)),
    Case(corrupt("other_symbol"), 65, ("line 658: not a row of binance,BTCUSDT", DAMAGED)),
    Case(corrupt("ns_times"), 65, ("line 2: timestamp is no time in microseconds", DAMAGED)),
    Case(corrupt("ms_times"), 65, ("line 2: timestamp is no time in microseconds", DAMAGED)),
    Case(corrupt("far_row"), 65, ("line 1313: local_timestamp is more than a day off 2024-08-08", DAMAGED)),
    Case(corrupt("other_day"), 65, ("none of its 1312 rows arrived on 2024-08-08", "another day's file", DAMAGED)),
    Case(corrupt("unterminated"), 65, ("the last line is not ended", DAMAGED)),
    Case(corrupt("torn_row"), 65, ("the last line is not ended", DAMAGED)),
    Case(corrupt("long_line"), 65, ("a line of more than 65536 bytes", DAMAGED)),
    Case(corrupt("blank_lines"), 65, (f"line {ROWS + 2}: not a row of binance,BTCUSDT", DAMAGED)),
    Case(corrupt("many_columns"), 65, ("a line of more than 65536 bytes", DAMAGED)),
]


@pytest.mark.parametrize("case", FAILING, ids=str)
def test_a_fault_that_lasts_fails_its_task_leaves_nothing_and_is_mended_by_another_try(
    start: Callable[..., Shards], clean: dict[str, str], case: Case
) -> None:
    shards = start(limits=case.limits)
    shards.server.add_faults({"path": PATH, **case.fault})

    end, entry = shards.attempt()

    assert entry is not None
    assert (entry.outcome, entry.facts["exit"], int(end)) == (Outcome.FAILED, case.end, case.end)
    line = str(entry.facts["error"])
    assert [word for word in (WHAT, *case.words) if word not in line] == []
    assert "\n" not in line
    assert shards.requests == case.requests or (not case.requests and shards.requests > 1)
    assert shards.data == {}

    shards.server.clear_faults()
    end, entry = shards.afresh().attempt()
    assert (end, entry and entry.outcome) == (0, Outcome.DONE)
    assert shards.data == clean


PASSING = [
    case
    for case in FAILING
    if case.requests == 2
    and not case.limits
    and case.fault.get("kind") in (None, "hang_up", "html", "gzip_trailer", "fewer_rows", "nan", "other_day")
]


@pytest.mark.parametrize("case", PASSING, ids=str)
def test_a_fault_that_passes_leaves_what_a_day_without_faults_does(
    start: Callable[..., Shards], clean: dict[str, str], case: Case
) -> None:
    shards = start()
    shards.server.add_faults({"path": PATH, "count": 1, **case.fault})

    end, entry = shards.attempt()

    assert entry is not None
    assert (end, entry.outcome, entry.facts["tries"], shards.requests) == (0, Outcome.DONE, 2, 2)
    assert shards.data == clean


# Sound files, whatever they look like: rows (None: as served), facts beside the usual ones.
SOUND: dict[str, tuple[Outcome, int | None, dict[str, int]]] = {
    "two_members": (Outcome.DONE, ROWS, {}),
    "replaced": (Outcome.DONE, ROWS - 1, {}),
    "many_rows": (Outcome.DONE, None, {"unsorted_rows": 0}),
    "unsorted": (Outcome.DONE, ROWS, {"unsorted_rows": 1}),
    "duplicate_ids": (Outcome.DONE, ROWS + 1, {"repeated_ids": 1}),
    "previous_day": (Outcome.DONE, ROWS, {"rows_of_other_days": 1}),
    "next_day": (Outcome.DONE, ROWS, {"rows_of_other_days": 1}),
    "empty_gzip": (Outcome.EMPTY, 0, {}),
    "header_only": (Outcome.EMPTY, 0, {}),
}
ODD = ("unsorted_rows", "repeated_ids", "rows_of_other_days")


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_file_is_kept_row_by_row_and_what_is_strange_in_it_is_told(
    start: Callable[..., Shards], kind: str
) -> None:
    shards = start()
    shards.server.add_faults({"path": PATH, **corrupt(kind)})
    outcome, rows, strange = SOUND[kind]

    end, entry = shards.attempt()

    assert entry is not None
    assert (end, entry.outcome, entry.facts["tries"], shards.requests) == (0, outcome, 1, 1)
    text = gzip.decompress(shards.served())
    assert entry.facts["rows"] == max(0, text.count(b"\n") - 1)
    assert rows is None or entry.facts["rows"] == rows
    if kind == "many_rows":
        times = int(entry.facts["rows"]) // ROWS
        # the day begins anew with each repetition; two trades of one message have one time
        assert entry.facts["unsorted_rows"] == times - 1 > 700
    else:
        assert {name: entry.facts[name] for name in ODD if name in entry.facts} == strange
    info = shards.store.head(TICKS)
    assert info is not None
    assert info.metadata.get("oddities", "") == " ".join(f"{n}={entry.facts[n]}" for n in ODD if n in entry.facts)
    if outcome is Outcome.DONE:
        assert stored(shards.store).equals(read(text))


def read(text: bytes) -> pl.DataFrame:
    frame = pl.read_csv(io.BytesIO(text), schema_overrides={"id": pl.String})
    return frame.select("timestamp", "local_timestamp", "id", "side", "price", "amount")


def stored(store: Store) -> pl.DataFrame:
    info = store.head(TICKS)
    assert info is not None
    with open_object(store, info) as file:
        frame = pl.read_parquet(file.read())
    return frame.with_columns(pl.col("timestamp", "local_timestamp").dt.epoch("us"), pl.col("side").cast(pl.String))


def test_every_kind_of_corruption_stands_in_a_table_here() -> None:
    judged = {case.fault["kind"] for case in FAILING if case.fault["fault"] == "corrupt"}
    assert judged | set(SOUND) == set(CORRUPTIONS) - {"catalogue_drift"}
    assert not judged & set(SOUND)


# --- what can be known of a file that is whole in itself


def test_a_file_replaced_between_tries_is_the_new_one_and_no_mixture(start: Callable[..., Shards]) -> None:
    shards = start()
    shards.server.add_faults(
        {"path": PATH, "count": 1, **cut("content-length", 0.9)}, {"path": PATH, **corrupt("replaced")}
    )
    _, entry = shards.attempt()
    assert entry is not None
    assert (entry.outcome, entry.facts["rows"], entry.facts["tries"]) == (Outcome.DONE, ROWS - 1, 2)
    assert stored(shards.store).equals(read(gzip.decompress(shards.served())))


@pytest.mark.parametrize(("checksums", "requests"), [(True, 1), (False, 2)])
def test_without_framing_a_checksum_or_a_second_fetch_is_needed(
    start: Callable[..., Shards], clean: dict[str, str], *, checksums: bool, requests: int
) -> None:
    shards = start(checksums=checksums)
    shards.server.add_faults({"path": PATH, **cut("close", 1)})
    end, _ = shards.attempt()
    assert (end, shards.requests, shards.data == clean) == (0, requests, True)


def test_without_framing_two_fetches_that_differ_are_no_success(start: Callable[..., Shards]) -> None:
    shards = start(checksums=False, limits={"attempts": 1})
    shards.server.add_faults({"path": PATH, "count": 1, **cut("close", 1)}, {"path": PATH, **corrupt("replaced")})
    end, entry = shards.attempt()
    assert entry is not None
    assert (end, shards.data) == (75, {})
    assert "no sign of the body's end, and two fetches differ" in str(entry.facts["error"])


@pytest.mark.parametrize("kind", ["fewer_rows", "first_member"])
def test_a_shorter_sound_file_of_fitting_length_is_known_by_x_md5_alone_and_replaced_on_demand(
    start: Callable[..., Shards], clean: dict[str, str], kind: str
) -> None:
    shards = start(checksums=False)
    shards.server.add_faults({"path": PATH, "count": 1, **corrupt(kind)})
    _, entry = shards.attempt()
    assert entry is not None
    assert entry.outcome is Outcome.DONE
    assert 0.4 < int(entry.facts["rows"]) / ROWS < 0.6
    assert not set(shards.data.items()) & set(clean.items())

    _, entry = shards.afresh().attempt(mode=Mode.REPLACE)
    assert entry is not None
    assert (entry.outcome, entry.facts["rows"]) == (Outcome.DONE, ROWS)
    assert shards.data == clean


# --- the catalogue


@pytest.mark.parametrize(("code", "outcome"), [(140, Outcome.NOT_AVAILABLE), (300, Outcome.NOT_OFFERED)])
@pytest.mark.parametrize("drifted", [False, True])
def test_a_refusal_is_flagged_unless_the_catalogue_has_moved_too(
    start: Callable[..., Shards], code: int, outcome: Outcome, *, drifted: bool
) -> None:
    shards = start()
    shards.day = date(2024, 8, 9)
    shards.server.add_faults({"path": "*.csv.gz", **refused(400, code)})
    if drifted:
        shards.server.add_faults({"path": "*/exchanges/*", **corrupt("catalogue_drift")})
    end, entry = shards.attempt()
    assert entry is not None
    assert (end, entry.outcome, entry.facts["catalogue_disagrees"]) == (0, outcome, not drifted)
    assert shards.server.stats()["paths"][PATH.replace("08/08", "08/09")]["requests"] == 1
    assert {info.metadata["outcome"] for info in shards.store.list("raw_tick_data")} == {str(outcome)}


def test_a_catalogue_that_moved_does_not_take_a_file_away(start: Callable[..., Shards], clean: dict[str, str]) -> None:
    shards = start()
    shards.server.add_faults({"path": "*/exchanges/*", **corrupt("catalogue_drift")})
    assert shards.attempt()[0] == 0
    assert shards.data == clean


# --- told to wait, refused, nobody there


@pytest.mark.parametrize("as_date", [False, True])
def test_a_wait_that_is_told_is_obeyed_and_is_no_failure(
    start: Callable[..., Shards], clean: dict[str, str], *, as_date: bool
) -> None:
    shards = start(limits={"attempts": 1})
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
    told = format_datetime(until, usegmt=True) if as_date else "1"
    shards.server.add_faults({"path": PATH, "count": 1, **status(429, Retry_After=told)})
    began = time.monotonic()
    end, entry = shards.attempt()
    assert time.monotonic() - began > (0 if as_date else 1)
    assert not as_date or datetime.now(UTC) >= until
    assert entry is not None
    assert (end, entry.facts["tries"], shards.requests) == (0, 1, 2)
    assert shards.data == clean


def test_a_lock_of_the_key_that_ends_is_waited_for(start: Callable[..., Shards], clean: dict[str, str]) -> None:
    shards = start(limits={"attempts": 1, "lock_limit_s": 60})
    shards.server.add_faults({"path": PATH, "count": 2, **refused(403, 274, "elsewhere", retryAfterSeconds=1)})
    began = time.monotonic()
    end, entry = shards.attempt()
    assert time.monotonic() - began > 2
    assert entry is not None
    assert (end, entry.facts["tries"], shards.requests) == (0, 1, 3)
    assert shards.data == clean


def test_a_used_up_quota_parks_the_worker_with_a_line_until_it_is_told_to_stop(
    start: Callable[..., Shards], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.worker.shard.PROGRESS_S", 0.05)
    shards = start(limits={"attempts": 1, "lock_limit_s": 60})
    shards.server.add_faults({"path": PATH, **status(429, "transfer limit", Retry_After="3600")})
    ends: list[Any] = []
    thread = threading.Thread(target=lambda: ends.append(shards.attempt()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not (lines := [r.getMessage() for r in caplog.records if "3600" in r.getMessage()]):
        assert time.monotonic() < deadline, "no line"
        time.sleep(0.01)
    watch = Watch(shards.store, shards.record())
    while not (causes := watch.status(Sight()).causes):
        assert time.monotonic() < deadline, "no cause"
        time.sleep(0.01)
    assert [(cause.kind, cause.shards) for cause in causes] == [("parked", (0,))]
    shards.stop.now("SIGTERM", preempted=True)
    thread.join(60)
    (parked,) = lines
    assert "quota" in parked
    assert "429 transfer limit" in parked
    assert (ends, shards.requests, shards.data) == ([(143, None)], 1, {})


def test_a_quota_that_stays_used_up_ends_in_another_try_of_the_shard(start: Callable[..., Shards]) -> None:
    shards = start(limits={"attempts": 9, "lock_limit_s": 0.5})
    shards.server.add_faults({"path": PATH, **status(429, "transfer limit", Retry_After="1")})
    end, entry = shards.attempt()
    assert entry is not None
    line = str(entry.facts["error"])
    assert [word for word in (WHAT, "told to wait 1 s: 429 transfer limit", "retry") if word not in line] == []
    assert (end, shards.requests, shards.data) == (75, 2, {})


def test_a_key_revoked_while_the_run_is_on_ends_it_and_a_good_one_resumes_it(
    start: Callable[..., Shards], clean: dict[str, str], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("fake-key-1\n")
    shards = start(key_file=keys)
    shards.server.add_faults({"path": PATH, "fault": "hold", "at": 0.5, "count": 1})
    ends: list[Any] = []
    thread = threading.Thread(target=lambda: ends.append(shards.attempt()))
    thread.start()
    while not shards.requests:
        time.sleep(0.01)
    keys.write_text("fake-key-2\n")
    shards.server.add_faults({"path": PATH, "count": 1, **cut("content-length")})
    shards.server.clear_faults()
    thread.join(60)
    assert ends[0][0] == 0, "a body that has begun is not taken back"

    other = Shards(shards.server, open_store(f"memory://{uuid.uuid4().hex}"), shards.scratch, shards.url)
    end, entry = other.attempt()
    assert entry is not None
    line = str(entry.facts["error"])
    wanted = (WHAT, "401/401", "refused for 0.3 s, by api-key-info too", "set a valid TARDIS_API_KEY")
    assert [word for word in wanted if word not in line] == []
    assert "fake-key" not in line
    assert (end, other.data) == (77, {})

    keys.write_text("fake-key-1\n")
    assert other.afresh().attempt()[0] == 0
    assert other.data == clean


def test_nobody_listening_is_tried_again(start: Callable[..., Shards]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    shards = start(url=f"http://127.0.0.1:{port}/v1")
    end, entry = shards.attempt()
    assert entry is not None
    line = str(entry.facts["error"])
    wanted = (WHAT, "no answer from 127.0.0.1", "refused", "attempts: 2", NETWORK)
    assert [word for word in wanted if word not in line] == []
    assert (end, shards.data) == (75, {})
