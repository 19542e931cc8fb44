"""What the client makes of everything the sandbox Tardis answers: files, refusals, locks, faults."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest

from runner.errors import (
    ConfigError,
    DrainedError,
    IntegrityError,
    NotAllowedError,
    SourceError,
    TransientError,
)
from runner.market.schema import DATA_TYPES
from runner.sandbox import tardis as sandbox
from runner.sandbox.tardis import Options, Server
from runner.tardis import csv
from runner.tardis.client import DayFile
from runner.task import Outcome

SAMPLES = Path(sandbox.__file__).parent / "data"
DAY = date(2024, 8, 8)
FILE = DayFile("binance", "trades", DAY, "BTCUSDT")
RAW = (SAMPLES / "binance/trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()
ROWS = gzip.decompress(RAW).count(b"\n") - 1
ANY = "*/trades/*"


def join(chunks):
    return b"".join(chunks)


def count_rows(chunks):
    return sum(b.num_rows for b in csv.read(chunks, DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT"))


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(sandbox.serve(Options(**{"data": SAMPLES} | options)))


@pytest.fixture
def server(serve) -> Server:
    return serve()


@pytest.fixture
def keys(tmp_path) -> Callable[[str], Path]:
    def write(text):
        path = tmp_path / "keys"
        path.write_text(text)
        return path

    return write


def requests_of(server, pattern="trades"):
    return sum(facts["requests"] for path, facts in server.stats()["paths"].items() if pattern in path)


@pytest.mark.parametrize("redirect", [False, True])
def test_a_real_file_arrives_whole(serve, tardis, redirect):
    fetched = tardis(serve(redirect=redirect).url).fetch(FILE, join)
    assert fetched.outcome is Outcome.DONE
    assert fetched.value == RAW
    assert (fetched.source_md5, fetched.source_bytes) == (hashlib.md5(RAW).hexdigest(), len(RAW))
    assert (fetched.attempts, fetched.proof) == (1, None)


def test_a_real_file_is_read_row_by_row(server, tardis):
    assert tardis(server.url).fetch(FILE, count_rows).value == ROWS


def test_a_symbol_is_asked_for_as_paths_spell_it():
    assert DayFile("x", "t", DAY, "btc/usd:a b?").path == "/x/t/2024/08/08/BTC-USD-A%20B%3F.csv.gz"


@pytest.mark.parametrize(
    ("file", "outcome", "code"),
    [
        (DayFile("binance", "trades", date(2024, 8, 7), "BTCUSDT"), Outcome.NOT_AVAILABLE, 140),
        (DayFile("binance", "trades", DAY, "NOSUCH"), Outcome.NOT_OFFERED, 300),
        (DayFile("binance", "liquidations", DAY, "BTCUSDT"), Outcome.NOT_OFFERED, 300),
        (DayFile("binance", "trades", date(2024, 8, 10), "BTCUSDT"), Outcome.PENDING, 140),
        (DayFile("binance", "trades", date(2031, 1, 1), "BTCUSDT"), Outcome.PENDING, 140),
    ],
)
def test_no_data_has_a_proof_and_no_retry(server, tardis, file, outcome, code):
    fetched = tardis(server.url).fetch(file, join)
    assert fetched.outcome is outcome
    assert (fetched.value, fetched.source_md5, fetched.source_bytes, fetched.attempts) == (None, None, 0, 1)
    assert (fetched.proof.status, fetched.proof.code, fetched.proof.catalogue_disagrees) == (400, code, False)
    assert fetched.proof.message
    assert requests_of(server, ".csv.gz") == 1


@pytest.mark.parametrize(("code", "outcome"), [(140, Outcome.NOT_AVAILABLE), (300, Outcome.NOT_OFFERED)])
def test_a_refusal_of_what_the_catalogue_offers_is_flagged(server, tardis, code, outcome):
    server.add_faults({"path": ANY, "fault": "status", "code": 400, "body": {"code": code, "message": "none"}})
    fetched = tardis(server.url).fetch(FILE, join)
    assert fetched.outcome is outcome
    assert fetched.proof.catalogue_disagrees
    assert fetched.proof.message == "none"


def test_an_unknown_exchange_is_a_configuration_error(server, tardis):
    with pytest.raises(ConfigError, match=r"^bybit-futures trades 2024-08-08 BTCUSDT: 400/100 .*exchange"):
        tardis(server.url).fetch(DayFile("bybit-futures", "trades", DAY, "BTCUSDT"), join)
    with pytest.raises(ConfigError, match=r"^/exchanges/bybit-futures: 400/100"):
        tardis(server.url).exchange("bybit-futures")


def hasty(fault):
    """Return the limit that ends `fault` soon, and no other: a machine may pause like a server."""
    return {"stall": {"stall_s": 0.4}, "slow": {"min_bytes_per_s": 10_000}}.get(fault["fault"], {})


@pytest.mark.parametrize(("count", "attempts"), [(1, 2), (2, 3)])
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "code": 500},
        {"fault": "status", "code": 502, "body": "<html>bad gateway</html>"},
        {"fault": "status", "code": 503},
        {"fault": "status", "code": 429},
        {"fault": "status", "code": 404},
        {"fault": "status", "code": 403, "body": "<html>who are you</html>"},
        {"fault": "status", "code": 400, "body": {"code": 1, "message": "must be ISO 8601 format"}},
        {"fault": "reset", "at": 0},
        {"fault": "reset", "at": 0.5},
        {"fault": "stall", "at": 0.5},
        {"fault": "slow", "bytes_per_s": 2000},
        {"fault": "cut", "at": 0.5, "framing": "content-length"},
        {"fault": "cut", "at": 0.5, "framing": "chunked"},
        {"fault": "cut", "at": 0.5, "framing": "close"},
        {"fault": "corrupt", "kind": "gzip_trailer"},
        {"fault": "corrupt", "kind": "html"},
        {"fault": "corrupt", "kind": "trailing_garbage"},
        {"fault": "corrupt", "kind": "truncated_gzip"},
        {"fault": "corrupt", "kind": "wrong_md5"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values()))[:40] if isinstance(fault, dict) else None,
)
def test_passing_faults_are_survived(server, tardis, fault, count, attempts):
    server.add_faults({"path": ANY, "count": count, **fault})
    fetched = tardis(server.url, attempts=3, **hasty(fault)).fetch(FILE, count_rows)
    assert (fetched.value, fetched.attempts) == (ROWS, attempts)
    assert fetched.source_md5 == hashlib.md5(RAW).hexdigest()


@pytest.mark.parametrize(
    ("fault", "error", "why"),
    [
        ({"fault": "status", "code": 500}, TransientError, "500"),
        ({"fault": "status", "code": 404}, SourceError, "404"),
        ({"fault": "status", "code": 403, "body": "<p>no"}, TransientError, "403 <p>no"),
        ({"fault": "reset", "at": 0.5}, TransientError, "broke off"),
        ({"fault": "stall", "at": 0.5}, TransientError, "stalled"),
        ({"fault": "slow", "bytes_per_s": 2000}, TransientError, "too slow"),
        ({"fault": "cut", "at": 0.99, "framing": "content-length"}, TransientError, "broke off"),
        ({"fault": "cut", "at": 0.99, "framing": "chunked"}, TransientError, "broke off"),
        ({"fault": "cut", "at": 0.99, "framing": "close"}, IntegrityError, "gzip stream is cut"),
        ({"fault": "corrupt", "kind": "gzip_trailer"}, IntegrityError, "gzip"),
        ({"fault": "corrupt", "kind": "html"}, IntegrityError, "HTML page"),
        ({"fault": "corrupt", "kind": "trailing_garbage"}, IntegrityError, "garbage after"),
        ({"fault": "corrupt", "kind": "truncated_gzip"}, IntegrityError, "cut"),
        ({"fault": "corrupt", "kind": "wrong_md5"}, IntegrityError, "x-md5"),
        ({"fault": "status", "code": 400, "body": {"code": 7, "message": "odd"}}, SourceError, "400/7 odd"),
    ],
    ids=str,
)
def test_lasting_faults_end_in_one_line(server, tardis, fault, error, why):
    server.add_faults({"path": ANY, **fault})
    with pytest.raises(error) as caught:
        tardis(server.url, **hasty(fault)).fetch(FILE, count_rows)
    assert type(caught.value) is error
    assert re.match(rf"binance trades 2024-08-08 BTCUSDT: [^\n]*{why}[^\n]*$", str(caught.value))


def test_a_404_for_a_day_not_exported_yet_is_pending(server, tardis):
    server.add_faults({"path": ANY, "fault": "status", "code": 404})
    fetched = tardis(server.url).fetch(DayFile("binance", "trades", date(2024, 8, 10), "BTCUSDT"), join)
    assert (fetched.outcome, fetched.proof.status) == (Outcome.PENDING, 404)


def test_many_threads_under_many_faults_get_every_file_whole(serve, tardis):
    server = serve(redirect=True)
    faults = [
        {"fault": "reset", "at": 0.5},
        {"fault": "cut", "at": 0.7, "framing": "close"},
        {"fault": "cut", "at": 0.5, "framing": "chunked"},
        {"fault": "status", "code": 503},
        {"fault": "corrupt", "kind": "gzip_trailer"},
        {"fault": "corrupt", "kind": "html"},
        {"fault": "corrupt", "kind": "wrong_md5"},
    ]
    server.add_faults(*({"path": "*", "probability": 0.06, "seed": n, **fault} for n, fault in enumerate(faults)))
    client = tardis(server.url, attempts=30, connections=3)
    with ThreadPoolExecutor(6) as threads:
        fetched = list(threads.map(lambda _: client.fetch(FILE, count_rows), range(60)))
    assert {(f.value, f.source_md5) for f in fetched} == {(ROWS, hashlib.md5(RAW).hexdigest())}
    assert max(f.attempts for f in fetched) > 1


def test_the_catalogue_is_asked_once(server, tardis):
    client = tardis(server.url)
    files = [DayFile("binance", "trades", date(2024, 7, day), "BTCUSDT") for day in range(1, 20)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda file: client.fetch(file, join), files))
    assert client.exchange("binance")["id"] == "binance"
    assert requests_of(server, "/exchanges/binance") == 1


def test_bodies_in_flight_stay_within_the_budget(server, tardis):
    client = tardis(server.url, connections=2)
    both = threading.Barrier(2)

    def meet(chunks):
        both.wait(30)
        return len(join(chunks))

    with ThreadPoolExecutor(6) as threads:
        sizes = list(threads.map(lambda _: client.fetch(FILE, meet).value, range(6)))
    assert sizes == [len(RAW)] * 6
    assert max(facts["concurrency_max"] for facts in server.stats()["paths"].values()) <= 2


def test_a_held_body_is_dropped_on_a_stop(server, tardis):
    server.add_faults({"path": ANY, "fault": "hold", "at": 0.5})
    client = tardis(server.url, stall_s=60)
    began = threading.Event()
    client.on_bytes = lambda _: began.set()
    with ThreadPoolExecutor(1) as threads:
        fetch = threads.submit(client.fetch, FILE, count_rows)
        assert began.wait(30)
        client.stop.set()
        stopped = time.monotonic()
        with pytest.raises(DrainedError):
            fetch.result(30)
        assert time.monotonic() - stopped < 30


# --- keys


def test_without_a_key_the_first_of_a_month_is_free_and_other_days_say_what_to_set(server, tardis):
    client = tardis(server.url, key=None)
    with pytest.raises(NotAllowedError, match=r"^binance trades 2024-08-08 BTCUSDT: 401.*TARDIS_API_KEY"):
        client.fetch(FILE, join)
    assert requests_of(server, ".csv.gz") == 1
    free = client.fetch(DayFile("binance", "trades", date(2024, 8, 1), "BTCUSDT"), join)
    assert free.outcome is Outcome.NOT_AVAILABLE


def test_an_unknown_key_is_believed_only_after_its_time(serve, tardis, keys):
    server = serve(key_file=keys("another-fake-key\n"))
    began = time.monotonic()
    with pytest.raises(NotAllowedError, match=r"^binance trades .*401.*refused for 0.4 s.*TARDIS_API_KEY") as caught:
        tardis(server.url, refusal_s=0.4, attempts=1).fetch(FILE, join)
    assert 0.4 <= time.monotonic() - began < 30
    assert requests_of(server) > 1
    assert "fake-key-1" not in str(caught.value)


def test_a_refusal_that_passes_is_no_failure(serve, tardis, keys):
    path = keys("another-fake-key\n")
    server = serve(key_file=path)
    # two, because the key may become good between the refusal and the probe: then it is a refusal of this file
    client = tardis(server.url, refusal_s=30, attempts=2)
    with ThreadPoolExecutor(1) as threads:
        fetch = threads.submit(client.fetch, FILE, count_rows)
        while requests_of(server, "api-key-info") < 4:
            client.stop.wait(0.01)
        keys("fake-key-1\n")
        fetched = fetch.result(30)
    assert fetched.value == ROWS
    assert fetched.attempts <= 2 < requests_of(server)


def test_an_expired_key_is_not_allowed(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1 - - 2020-01-01\n"))
    with pytest.raises(NotAllowedError):
        tardis(server.url).fetch(FILE, join)
    with pytest.raises(NotAllowedError, match="TARDIS_API_KEY"):
        tardis(server.url).key_info()


@pytest.mark.parametrize("plan", ["2024-08-09 2024-09-01", "2020-01-01 2024-01-01"])
def test_a_day_outside_the_plan_fails_alone_and_names_what_the_key_covers(serve, tardis, keys, plan):
    server = serve(key_file=keys(f"fake-key-1 {plan}\n"))
    starts, ends = plan.split()
    with pytest.raises(SourceError, match=rf"^binance trades 2024-08-08 .*401.*covers {starts} to {ends} of binance"):
        tardis(server.url, refusal_s=60).fetch(FILE, join)
    assert requests_of(server) == 1


def test_a_refused_day_that_the_key_covers_is_tried_again_then_fails_alone(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1\n"))
    server.add_faults({"path": ANY, "fault": "status", "code": 401, "body": {"code": 401, "message": "no"}})
    with pytest.raises(SourceError, match="401/401 no; the key works and covers"):
        tardis(server.url, attempts=3).fetch(FILE, join)
    assert requests_of(server) == 3


def test_a_plan_that_excludes_is_judged_like_a_refused_key(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1 2020-01-01 2021-01-01\n"))
    server.add_faults({"path": ANY, "fault": "status", "code": 403, "body": {"code": 12, "message": "plan"}})
    with pytest.raises(SourceError, match="403/12 plan; the key works"):
        tardis(server.url).fetch(FILE, join)


def test_key_info_says_what_the_key_covers(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1 2024-08-01 2024-09-01\n"))
    covered = tardis(server.url).key_info()
    assert {entry["exchange"] for entry in covered} >= {"binance"}
    with pytest.raises(NotAllowedError, match=r"^/api-key-info: 401"):
        tardis(server.url, key="fake-key-2").key_info()


def test_a_locked_key_is_waited_for(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1\n"), lock_ttl_s=900, time_factor=900)
    began = time.monotonic()
    hold_lock_elsewhere(server)
    fetched = tardis(server.url, attempts=1, lock_limit_s=60).fetch(FILE, count_rows)
    assert (fetched.value, fetched.attempts) == (ROWS, 1)
    assert 0.5 < time.monotonic() - began < 30


def test_a_key_locked_for_ever_is_not_allowed(serve, tardis, keys):
    server = serve(key_file=keys("fake-key-1\n"))
    hold_lock_elsewhere(server)
    with pytest.raises(NotAllowedError, match=r"274.*egress must be one address"):
        tardis(server.url).fetch(FILE, join)


def hold_lock_elsewhere(server):
    request = urllib.request.Request(
        server.url + FILE.path, headers={"Authorization": "Bearer fake-key-1", "X-Fake-Client-IP": "192.0.2.7"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == RAW


def test_the_list_of_exchanges_is_as_the_source_gives_it(server, tardis):
    with urllib.request.urlopen(f"{server.api_url}/exchanges") as answer:
        given = json.load(answer)
    assert [exchange["id"] for exchange in given] == ["binance"]
    assert tardis(server.url).exchanges() == given
