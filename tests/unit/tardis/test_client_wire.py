"""The client against byte-exact framings, stalls, trickles, redirects and stops, each over a real socket."""

from __future__ import annotations

import gzip
import hashlib
import logging
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date

import pytest

from runner.errors import (
    ConfigError,
    DrainedError,
    IntegrityError,
    NotAllowedError,
    RunnerError,
    TransientError,
)
from runner.market.schema import DATA_TYPES
from runner.tardis import csv
from runner.tardis.client import DayFile
from runner.task import Outcome

FILE = DayFile("binance", "trades", date(2024, 8, 8), "BTCUSDT")
HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
ROWS = [f"binance,BTCUSDT,{1723161540000000 + n},{1723161540000100 + n},{n},buy,{n}.5,1\n" for n in range(1000)]
FIRST_MEMBER = gzip.compress((HEADER + "".join(ROWS[:500])).encode(), mtime=0)
BODY = FIRST_MEMBER + gzip.compress("".join(ROWS[500:]).encode(), mtime=0)
MD5 = hashlib.md5(BODY).hexdigest()
PLAIN_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
HANGS_S = 60.0  # how long a server that hangs does so; a machine at work is sooner, however slow


def join(chunks):
    return b"".join(chunks)


def count_rows(chunks):
    return sum(b.num_rows for b in csv.read(chunks, DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT"))


def framed(framing, body, *, promised=None):
    """Return a whole answer, or one cut where `body` ends while `promised` was announced."""
    promised = body if promised is None else promised
    if framing == "close":
        return PLAIN_HEAD.encode() + b"Connection: close\r\n\r\n" + body
    if framing == "content-length":
        return f"{PLAIN_HEAD}Content-Length: {len(promised)}\r\n\r\n".encode() + body
    # one chunk that announces all, so that a cut falls inside it
    whole = f"{len(promised):x}\r\n".encode() + body
    return (
        PLAIN_HEAD.encode()
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + whole
        + (b"\r\n0\r\n\r\n" if body == promised else b"")
    )


@contextmanager
def in_time():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < HANGS_S / 2


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_body_is_no_success(raw_server, tardis, framing, share):
    part = BODY[: int(len(BODY) * share)]
    server = raw_server(lambda call: call.send(framed(framing, part, promised=BODY)))
    with pytest.raises(TransientError, match=r"^binance trades 2024-08-08 BTCUSDT: the body broke off .*attempts: 2"):
        tardis(server.url).fetch(FILE, join)
    assert len(server.calls) == 2


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_without_framing_is_found_by_the_gzip_trailer(raw_server, tardis, share):
    server = raw_server(lambda call: call.send(framed("close", BODY[: int(len(BODY) * share)])))
    with pytest.raises(IntegrityError, match="gzip stream is cut"):
        tardis(server.url).fetch(FILE, count_rows)


def test_a_cut_between_chunks_is_no_success(raw_server, tardis):
    head = PLAIN_HEAD + "Transfer-Encoding: chunked\r\n\r\n"
    server = raw_server(lambda call: call.send(head, f"{len(FIRST_MEMBER):x}\r\n", FIRST_MEMBER, "\r\n"))
    with pytest.raises(TransientError, match="broke off"):
        tardis(server.url).fetch(FILE, count_rows)


def test_a_cut_at_member_and_row_boundary_without_framing_is_caught_by_a_second_fetch(raw_server, tardis):
    server = raw_server(lambda call: call.send(framed("close", BODY if call.number else FIRST_MEMBER)))
    fetched = tardis(server.url).fetch(FILE, count_rows)
    assert (fetched.value, fetched.source_md5, fetched.attempts) == (1000, MD5, 2)


def test_a_cut_at_member_and_row_boundary_is_caught_by_x_md5(raw_server, tardis):
    head = f"{PLAIN_HEAD}x-md5: {MD5}\r\n\r\n"
    server = raw_server(lambda call: call.send(head, BODY if call.number else FIRST_MEMBER))
    fetched = tardis(server.url).fetch(FILE, count_rows)
    assert (fetched.value, fetched.attempts, len(server.calls)) == (1000, 2, 2)


@pytest.mark.parametrize(("framing", "requests"), [("content-length", 1), ("chunked", 1), ("close", 2)])
def test_a_whole_body_is_a_success_in_any_framing(raw_server, tardis, framing, requests):
    server = raw_server(lambda call: call.send(framed(framing, BODY)))
    told = []
    fetched = tardis(server.url, on_bytes=told.append).fetch(FILE, join)
    assert fetched.outcome is Outcome.DONE
    assert (fetched.value, fetched.source_md5, fetched.source_bytes) == (BODY, MD5, len(BODY))
    assert (fetched.attempts, fetched.proof, len(server.calls)) == (1, None, requests)
    assert sum(told) == len(BODY) * requests


@pytest.mark.parametrize("shown", [MD5, f'"{MD5}"', f'"{MD5.upper()}"'])
def test_x_md5_replaces_the_second_fetch_quoted_or_not(raw_server, tardis, shown):
    server = raw_server(lambda call: call.send(f"{PLAIN_HEAD}x-md5: {shown}\r\n\r\n", BODY))
    assert tardis(server.url).fetch(FILE, join).value == BODY
    assert len(server.calls) == 1


def test_a_wrong_x_md5_is_an_integrity_error(raw_server, tardis):
    server = raw_server(lambda call: call.answer(BODY, "200 OK", f'x-md5: "{"0" * 32}"'))
    with pytest.raises(IntegrityError, match=f"MD5 is {MD5}.*attempts: 2"):
        tardis(server.url).fetch(FILE, join)


def test_an_empty_body_is_an_integrity_error(raw_server, tardis):
    server = raw_server(lambda call: call.answer(b""))
    with pytest.raises(IntegrityError, match="empty body"):
        tardis(server.url).fetch(FILE, join)


@pytest.mark.parametrize("sent", ["", "HTTP/1.1 200", f"{PLAIN_HEAD}Content-Length: 1000\r\n"])
def test_silence_in_the_head_ends_within_the_stall_limit(raw_server, tardis, sent):
    def script(call):
        call.send(sent)
        call.over.wait(HANGS_S)

    server = raw_server(script)
    with in_time(), pytest.raises(TransientError, match="stalled"):
        tardis(server.url, attempts=1, stall_s=0.4).fetch(FILE, join)


def test_silence_in_the_body_ends_within_the_stall_limit(raw_server, tardis):
    def script(call):
        call.send(framed("content-length", BODY[:700], promised=BODY))
        call.over.wait(HANGS_S)

    server = raw_server(script)
    with in_time(), pytest.raises(TransientError, match=r"stalled: no byte for 0.4 s"):
        tardis(server.url, attempts=1, stall_s=0.4).fetch(FILE, join)


@pytest.mark.parametrize(
    ("head", "trickled"),
    [
        (f"{PLAIN_HEAD}Content-Length: {len(BODY)}\r\n\r\n", BODY),
        (f"{PLAIN_HEAD}Transfer-Encoding: chunked\r\n\r\n", f"{len(BODY):x}\r\n".encode() + BODY),
        (f"{PLAIN_HEAD}Transfer-Encoding: chunked\r\n\r\n", b"3;" + b"x" * 5000),
        (f"{PLAIN_HEAD}Connection: close\r\n\r\n", BODY),
    ],
    ids=["content-length", "chunked", "chunk-extension", "close"],
)
def test_a_trickle_ends_within_the_minimum_speed_window(raw_server, tardis, head, trickled):
    def script(call):
        call.send(head)
        call.trickle(trickled, 0.02)

    server = raw_server(script)
    limited = tardis(server.url, attempts=1, min_bytes_per_s=1000)
    with in_time(), pytest.raises(TransientError, match=r"too slow: [0-9]+ bytes in 0.5 s"):
        limited.fetch(FILE, join)


def test_a_trickled_head_ends_within_the_stall_limit(raw_server, tardis):
    server = raw_server(lambda call: call.trickle(PLAIN_HEAD.encode() * 50, 0.02))
    with in_time(), pytest.raises(TransientError, match=r"no complete answer for 0.4 s"):
        tardis(server.url, attempts=1, stall_s=0.4).fetch(FILE, join)


def test_a_body_that_slows_down_after_a_fast_start_is_given_up(raw_server, tardis):
    def script(call):
        call.send(framed("content-length", b"x" * 3_000_000, promised=b"x" * 4_000_000))
        call.trickle(b"x" * 1_000_000, 0.02)

    server = raw_server(script)
    with in_time(), pytest.raises(TransientError, match="too slow"):
        tardis(server.url, attempts=1, min_bytes_per_s=1000).fetch(FILE, join)


def test_a_slow_but_sufficient_body_is_read_to_its_end(raw_server, tardis):
    def script(call):
        call.send(f"{PLAIN_HEAD}Content-Length: {len(BODY)}\r\n\r\n")
        for start in range(0, len(BODY), 200):
            call.over.wait(0.03)
            call.send(BODY[start : start + 200])

    server = raw_server(script)
    # one of ten must pass: a pause of the machine itself looks like one of the server
    assert tardis(server.url, attempts=10, min_bytes_per_s=1000).fetch(FILE, join).value == BODY


def test_time_spent_by_the_consumer_is_not_blamed_on_the_server(raw_server, tardis):
    body = bytes(150_000)
    server = raw_server(lambda call: call.answer(body))
    pause = threading.Event()

    def slow(chunks):
        size = 0
        for chunk in chunks:
            pause.wait(0.6)
            size += len(chunk)
        return size

    client = tardis(server.url, attempts=10, stall_s=0.5, min_bytes_per_s=100_000, min_speed_window_s=0.5)
    assert client.fetch(FILE, slow).value == len(body)


def test_a_refused_connection_is_transient(tardis):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError, match=r"^binance trades .*refused.*attempts: 3"):
        tardis(f"http://127.0.0.1:{port}", attempts=3).fetch(FILE, join)


@contextmanager
def hanging_port():
    """Yield a port whose backlog is full, so that connecting neither succeeds nor fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.settimeout(0)
            sock.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for sock in waiting:
                sock.close()


def test_a_connection_that_hangs_ends_within_its_limit(tardis):
    with hanging_port() as port, in_time(), pytest.raises(TransientError, match=r"no connection within"):
        tardis(f"http://127.0.0.1:{port}", attempts=1, connect_s=0.3).fetch(FILE, join)


def test_a_reset_is_retried(raw_server, tardis):
    def script(call):
        if call.number == 0:
            call.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return
        call.answer(BODY)

    server = raw_server(script)
    assert tardis(server.url).fetch(FILE, join).attempts == 2


def moved(call, location, status="302 Found"):
    call.answer("", status, f"Location: {location}")


@pytest.mark.parametrize("location", ["/v1/again", ""])
def test_redirects_that_lead_nowhere_end(raw_server, tardis, location):
    server = raw_server(lambda call: moved(call, location))
    with pytest.raises(TransientError, match="redirect"):
        tardis(server.url, attempts=1).fetch(FILE, join)
    assert len(server.calls) == (6 if location else 1)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://[::1"])
def test_only_http_redirects_are_followed(raw_server, tardis, location):
    server = raw_server(lambda call: moved(call, location))
    with pytest.raises(TransientError, match="no http"):
        tardis(server.url, attempts=1).fetch(FILE, join)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_the_key_stays_with_its_origin(raw_server, tardis, status):
    bucket = raw_server(lambda call: call.answer(BODY))
    server = raw_server(lambda call: moved(call, f"{bucket.url}/signed?sig=abc", status))
    assert tardis(server.url).fetch(FILE, join).value == BODY
    assert [call.authorization for call in server.calls] == ["Bearer fake-key-1"]
    assert [call.authorization for call in bucket.calls] == [None]
    assert bucket.calls[0].path == "/v1/signed?sig=abc"


def test_the_key_follows_a_redirect_within_its_origin(raw_server, tardis):
    server = raw_server(lambda call: call.answer(BODY) if call.number else moved(call, "/v1/other"))
    assert tardis(server.url).fetch(FILE, join).value == BODY
    assert [call.authorization for call in server.calls] == ["Bearer fake-key-1"] * 2


@pytest.mark.parametrize("failing", ["status", "cut", "header", "refused"])
def test_neither_a_signature_nor_the_key_is_ever_shown(raw_server, tardis, caplog, failing):
    caplog.set_level(logging.DEBUG)

    def fail(call):
        if failing == "status":
            call.answer("no: fake-key-1", "503 Unavailable")
        elif failing == "cut":
            call.send(framed("content-length", BODY[:100], promised=BODY))
        else:
            call.send(f"{PLAIN_HEAD}no header at all\r\nContent-Length: {len(BODY)}\r\n\r\n")

    bucket = raw_server(fail)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    base = dead if failing == "refused" else bucket.url
    server = raw_server(lambda call: moved(call, f"{base}/signed?sig=s3cr3t"))
    client = tardis(server.url)
    with pytest.raises(TransientError) as caught:
        client.fetch(FILE, join)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(client)
    assert "s3cr3t" not in shown
    assert "fake-key-1" not in shown
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["fake-key-1\n", "fake key-1", "", "fäke-key-1", "fake-key-1\r\nX: y"])
def test_an_impossible_key_is_refused_without_showing_it(tardis, key):
    with pytest.raises(ConfigError) as caught:
        tardis("http://127.0.0.1:1", key=key)
    assert "key-1" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:80", "http://", "http://h:port"])
def test_an_impossible_address_is_refused(tardis, url):
    with pytest.raises(ConfigError, match=r"http\(s\)"):
        tardis(url)


def test_a_stop_ends_a_body(raw_server, tardis):
    client = None

    def script(call):
        call.send(framed("content-length", BODY[:700], promised=BODY))
        client.stop.set()
        call.over.wait(HANGS_S)

    server = raw_server(script)
    client = tardis(server.url, stall_s=60)
    with in_time(), pytest.raises(DrainedError):
        client.fetch(FILE, join)


def test_a_stop_ends_a_body_that_keeps_flowing(raw_server, tardis):
    def script(call):
        call.send(f"{PLAIN_HEAD}Content-Length: 1000000000\r\n\r\n")
        while not call.over.is_set():
            call.send(bytes(65536))

    server = raw_server(script)
    client = tardis(server.url)

    def stopping(chunks):
        for n, _ in enumerate(chunks):
            if n == 10:
                client.stop.set()

    with in_time(), pytest.raises(DrainedError):
        client.fetch(FILE, stopping)


def test_a_stop_ends_the_wait_for_an_answer(raw_server, tardis):
    client = None

    def script(call):
        client.stop.set()
        call.over.wait(HANGS_S)

    server = raw_server(script)
    client = tardis(server.url, stall_s=60)
    with in_time(), pytest.raises(DrainedError):
        client.fetch(FILE, join)


def test_a_stop_ends_connecting(tardis):
    with hanging_port() as port:
        client = tardis(f"http://127.0.0.1:{port}", connect_s=60)
        threading.Timer(0.1, client.stop.set).start()
        with in_time(), pytest.raises(DrainedError):
            client.fetch(FILE, join)


@pytest.mark.parametrize(
    ("status", "header"), [("503 Unavailable", "Retry-After: 600"), ("500 Oops", "X-None: 1")], ids=["told", "backoff"]
)
def test_a_stop_ends_a_pause(raw_server, tardis, status, header):
    client = None

    def script(call):
        call.answer("", status, header)
        threading.Timer(0.1, client.stop.set).start()

    server = raw_server(script)
    client = tardis(server.url, backoff_s=600, backoff_max_s=600)
    with in_time(), pytest.raises(DrainedError):
        client.fetch(FILE, join)


def test_a_stop_ends_the_wait_for_a_free_connection(raw_server, tardis):
    def script(call):
        threading.Timer(0.1, client.stop.set).start()
        call.over.wait(HANGS_S)

    server = raw_server(script)
    client = tardis(server.url, connections=1, stall_s=60)
    with in_time(), ThreadPoolExecutor(3) as threads:
        fetches = [threads.submit(client.fetch, FILE, join) for _ in range(3)]
        for fetch in fetches:
            with pytest.raises(DrainedError):
                fetch.result()
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("status", "told", "body"),
    [
        ("429 Slow down", "Retry-After: 1", ""),
        ("503 Unavailable", "Retry-After: 1", ""),
        (
            "429 Slow down",
            "Date: Sat, 10 Aug 2024 08:00:00 GMT\r\nRetry-After: Sat, 10 Aug 2024 08:00:01 GMT",
            "",
        ),
        ("403 Forbidden", "X-None: 1", '{"code": 274, "message": "active elsewhere", "retryAfterSeconds": 1}'),
    ],
    ids=["429", "503", "date", "274"],
)
def test_a_told_wait_is_obeyed_and_is_no_failure(raw_server, tardis, status, told, body):
    at = []

    def script(call):
        at.append(time.monotonic())
        call.answer(BODY) if call.number else call.answer(body, status, told)

    server = raw_server(script)
    fetched = tardis(server.url, attempts=1, lock_limit_s=60).fetch(FILE, join)
    assert (fetched.value, fetched.attempts) == (BODY, 1)
    assert 1 <= at[1] - at[0] < HANGS_S


@pytest.mark.parametrize("told", ["", "0", "-5", "soon", "nan", "inf", "Sat, 10 Aug 1996 08:00:00 GMT"])
def test_a_wait_that_says_nothing_is_a_failure(raw_server, tardis, told):
    server = raw_server(lambda call: call.answer("", "429 Slow down", f"Retry-After: {told}"))
    with pytest.raises(TransientError, match=r"429.*attempts: 3"):
        tardis(server.url, attempts=3).fetch(FILE, join)
    assert len(server.calls) == 3


def test_told_waits_without_end_are_given_up(raw_server, tardis):
    server = raw_server(lambda call: call.answer("", "429 Slow down", "Retry-After: 0.1"))
    with in_time(), pytest.raises(TransientError, match="told to wait"):
        tardis(server.url, lock_limit_s=3.0).fetch(FILE, join)
    assert len(server.calls) > 2


def test_a_waiting_fetch_gives_its_connection_to_another(raw_server, tardis):
    waiting = threading.Event()

    def script(call):
        if "ETHUSDT" in call.path:
            call.answer(BODY)
        else:
            call.answer("", "429 Slow down", "Retry-After: 600")
            waiting.set()

    server = raw_server(script)
    client = tardis(server.url, connections=1, lock_limit_s=6000)
    with ThreadPoolExecutor(1) as threads:
        held_up = threads.submit(client.fetch, FILE, join)
        assert waiting.wait(HANGS_S)
        other = DayFile("binance", "trades", date(2024, 8, 8), "ETHUSDT")
        assert client.fetch(other, join).value == BODY
        client.stop.set()
        with pytest.raises(DrainedError):
            held_up.result(HANGS_S)


LOCKED = '{"code": 274, "message": "already active from another IP address", "retryAfterSeconds": 0.05}'


def test_a_lock_without_any_progress_ends_the_run(raw_server, tardis):
    server = raw_server(lambda call: call.answer(LOCKED, "403 Forbidden"))
    asked = []
    client = tardis(server.url, anyone_downloaded=lambda seconds: bool(asked.append(seconds)))
    with in_time(), pytest.raises(NotAllowedError, match=r"^binance trades .*egress must be one address"):
        client.fetch(FILE, join)
    assert asked == [0.5]


def test_a_lock_is_waited_for_as_long_as_another_worker_downloads(raw_server, tardis):
    server = raw_server(lambda call: call.answer(LOCKED, "403 Forbidden"))
    answers = [True, True, False]
    with pytest.raises(NotAllowedError):
        tardis(server.url, anyone_downloaded=lambda _: answers.pop(0)).fetch(FILE, join)
    assert answers == []


def test_a_long_lock_is_looked_at_again_when_patience_ends(raw_server, tardis):
    server = raw_server(lambda call: call.answer(LOCKED.replace("0.05", "893"), "403 Forbidden"))
    with in_time(), pytest.raises(NotAllowedError):
        tardis(server.url).fetch(FILE, join)
    assert len(server.calls) == 2


def test_errors_of_the_consumer_end_the_fetch_as_they_are(raw_server, tardis):
    server = raw_server(lambda call: call.answer(BODY))

    def full_disk(chunks):
        next(chunks)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        tardis(server.url).fetch(FILE, full_disk)
    assert len(server.calls) == 1


@pytest.mark.parametrize("consume", [lambda chunks: None, next, lambda chunks: (next(chunks), chunks.close())])
def test_a_body_that_was_not_read_to_its_end_is_no_success(raw_server, tardis, consume):
    server = raw_server(lambda call: call.answer(bytes(200_000)))
    with pytest.raises(IntegrityError, match="before the end of the body"):
        tardis(server.url).fetch(FILE, consume)


def test_the_consumer_is_called_anew_and_may_ask_for_another_attempt(raw_server, tardis):
    server = raw_server(lambda call: call.answer(BODY))
    seen = []

    def picky(chunks):
        seen.append(join(chunks))
        if len(seen) == 1:
            raise IntegrityError("line 7: odd")
        return len(seen)

    assert tardis(server.url).fetch(FILE, picky).value == 2
    assert seen == [BODY, BODY]


def test_connections_are_kept_alive(tardis):
    connections = []

    def serve(listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connections.append(sock)
            with sock:
                while sock.recv(65536):
                    sock.sendall(framed("content-length", BODY))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        client = tardis(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(5):
            assert client.fetch(FILE, join).value == BODY
        assert len(connections) == 1
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "no valid JSON"),
        ('{"a": ', "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("{}", "not the objects"),
        ("[1]", "not the objects"),
        ("null", "not the objects"),
    ],
)
def test_broken_metadata_is_an_integrity_error(raw_server, tardis, body, why):
    server = raw_server(lambda call: call.answer(body))
    with pytest.raises(IntegrityError, match=f"^/exchanges: .*{why}.*attempts: 2"):
        tardis(server.url).exchanges()


@pytest.mark.parametrize("zipped", [gzip.compress(b"[]", mtime=0)[:-3], b"\x1f\x8bxxxxxxxxxxxxxxxxx", b""])
def test_broken_compressed_metadata_is_an_integrity_error(raw_server, tardis, zipped):
    server = raw_server(lambda call: call.answer(zipped, "200 OK", "Content-Encoding: gzip"))
    with pytest.raises(IntegrityError):
        tardis(server.url, attempts=1).exchanges()


@pytest.mark.slow
def test_metadata_without_end_is_an_integrity_error(raw_server, tardis):
    bomb = gzip.compress(bytes(300_000_000), 1, mtime=0)
    server = raw_server(lambda call: call.answer(bomb, "200 OK", "Content-Encoding: gzip"))
    with pytest.raises(IntegrityError, match="bytes of JSON"):
        tardis(server.url, attempts=1).exchanges()


def test_compressed_metadata_is_read(raw_server, tardis):
    server = raw_server(
        lambda call: call.answer(gzip.compress(b'[{"id": "binance"}]', mtime=0), "200 OK", "Content-Encoding: gzip")
    )
    assert tardis(server.url).exchanges() == [{"id": "binance"}]
    assert server.calls[0].authorization is None


def test_every_error_is_one_of_ours_and_one_line(raw_server, tardis):
    answers = ["400 Bad", "401 No", "403 No", "404 No", "418 Tea", "204 Nothing", "206 Part", "500 Oops", "999 Odd"]
    for status in answers:
        for body in ("", "<html>\n<p>x\n", "{}", '{"code": "x"}', '{"code": null, "message": ["a\\nb"]}', "[]"):
            server = raw_server(lambda call, status=status, body=body: call.answer(body, status))
            with pytest.raises(RunnerError) as caught:
                tardis(server.url, attempts=1, refusal_s=0).fetch(FILE, join)
            assert str(caught.value).startswith("binance trades 2024-08-08 BTCUSDT: ")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Blocked: Bearer fake-key-1</html>",
        b"<html>" + b"x" * 45 + b"fake-key-1 is cut after its beginning",
        gzip.compress(b"fake-key-1 is no header\n"),
        gzip.compress(HEADER.encode() + b"binance,BTCUSDT,fake-key-1,0,0,buy,1,1\n"),
    ],
    ids=["a page", "a page cut in the key", "a header", "a row"],
)
def test_what_is_served_in_the_place_of_a_file_may_repeat_the_key_and_nobody_sees_it(raw_server, tardis, body):
    server = raw_server(lambda call: call.answer(body))
    with pytest.raises(IntegrityError, match=r"^binance trades 2024-08-08 BTCUSDT: .*\[hidden\]") as caught:
        tardis(server.url).fetch(FILE, count_rows)
    assert "fake-key" not in str(caught.value)


@pytest.mark.parametrize("key", ["secret7", "binance-trades-key-1234567890"])
def test_a_key_of_any_length_is_hidden_and_what_failed_is_named_though_it_begins_so(raw_server, tardis, key):
    server = raw_server(lambda call: call.answer(f"no file for {key} here".encode()))
    with pytest.raises(IntegrityError, match=r"^binance trades 2024-08-08 BTCUSDT: .*no file for \[hidden\]") as caught:
        tardis(server.url, key=key).fetch(FILE, count_rows)
    assert key not in str(caught.value)


def test_a_length_of_thousands_of_digits_is_no_length(raw_server, tardis):
    head = f"{PLAIN_HEAD}Content-Length: {'9' * 5_000}\r\nConnection: close\r\n\r\n".encode()
    server = raw_server(lambda call: call.send(head + BODY))
    assert tardis(server.url).fetch(FILE, join).value == BODY
    assert len(server.calls) == 2  # as of an answer that does not say where it ends


def test_the_catalogue_of_another_exchange_is_not_believed(raw_server, tardis):
    server = raw_server(lambda call: call.answer('{"id": "bybit", "datasets": {}}'))
    with pytest.raises(IntegrityError, match="catalogue of binance was asked for, and that of 'bybit' came"):
        tardis(server.url).exchange("binance")
