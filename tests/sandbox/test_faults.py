"""Every fault, seen from the other end of a socket."""

import gzip
import hashlib
import http.client
import socket
import threading
import time
from pathlib import Path

import pytest

PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
FILE = (Path(__file__).parents[2] / "runner/sandbox/data/binance/trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()


def connect(server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)


def raw(server, path=PATH, key="fake-key-1") -> bytes:
    """Return every byte that arrives until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    return received


def control(fetch, server, method, name, body=None):
    return fetch(server.url, f"/__sandbox/{name}", method=method, key=None, body=body)


def faults(fetch, server, *items):
    answer = control(fetch, server, "POST", "faults", list(items))
    assert answer.status == 200, answer.body
    return answer


def test_status_with_headers_and_body_strikes_count_times(server, fetch):
    fault = {"path": "*/trades/*", "fault": "status", "code": 429, "headers": {"Retry-After": 7}, "body": "later"}
    faults(fetch, server, fault | {"count": 2})
    answers = [fetch(server.url, PATH) for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].body == b"later"
    assert answers[2].body == FILE


def test_status_with_a_json_body(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "status", "code": 403, "body": {"code": 274, "retryAfterSeconds": 3}})
    assert fetch(server.url, PATH).json == {"code": 274, "retryAfterSeconds": 3}


def test_faults_match_only_their_path(server, fetch):
    faults(fetch, server, {"path": "*/quotes/2024/08/08/*", "fault": "status", "code": 500})
    assert fetch(server.url, PATH).status == 200
    assert fetch(server.url, PATH.replace("trades", "quotes")).status == 500


@pytest.mark.parametrize("at", [None, 0.5])
def test_reset_ends_the_connection_with_a_rst(server, fetch, at):
    faults(fetch, server, {"path": "*", "fault": "reset"} | ({} if at is None else {"at": at}))
    with pytest.raises(ConnectionResetError):
        raw(server)


@pytest.mark.parametrize("at", [0, 0.5, 0.999])
def test_cut_by_content_length_promises_more_than_it_sends(server, fetch, at):
    faults(fetch, server, {"path": "*", "fault": "cut", "at": at, "framing": "content-length"})
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert f"content-length: {len(FILE)}".encode() in head.lower()
    assert body == FILE[: int(len(FILE) * at)]


def test_cut_of_chunks_never_sends_the_last_chunk(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "cut", "at": 0.5, "framing": "chunked"})
    head, _, body = raw(server).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"content-length" not in head.lower()
    size, _, rest = body.partition(b"\r\n")
    assert int(size, 16) == len(FILE) // 2
    assert rest == FILE[: len(FILE) // 2] + b"\r\n"
    with pytest.raises(http.client.IncompleteRead):
        fetch(server.url, PATH)


def test_cut_by_close_looks_like_a_whole_answer(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "cut", "at": 0.5, "framing": "close"})
    answer = fetch(server.url, PATH)
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert answer.body == FILE[: len(FILE) // 2]
    with pytest.raises(EOFError):
        gzip.decompress(answer.body)


def test_corrupt_gzip_trailer_has_right_content_and_wrong_crc(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "gzip_trailer"})
    answer = fetch(server.url, PATH)
    assert answer.status == 200
    assert answer.body[:-8] == FILE[:-8]
    assert answer.body[-4:] == FILE[-4:]
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(answer.body)
    assert answer.headers["x-md5"] == f'"{hashlib.md5(answer.body).hexdigest()}"'


def test_corrupt_gzip_trailer_of_an_empty_day(start, put, fetch, tmp_path):
    put("binance/trades/2024/08/08/BTCUSDT").write_bytes(b"")
    server = start(data=tmp_path / "data")
    assert gzip.decompress(fetch(server.url, PATH).body) == b""
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "gzip_trailer"})
    body = fetch(server.url, PATH).body
    assert len(body) == 20
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(body)


def test_corrupt_html_is_a_page_with_status_200(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "html"})
    answer = fetch(server.url, PATH)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert answer.body.startswith(b"<!DOCTYPE html>")
    assert "x-md5" not in answer.headers


def test_corrupt_md5_promises_another_file(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "wrong_md5"})
    answer = fetch(server.url, PATH)
    assert answer.body == FILE
    assert answer.headers["x-md5"] != f'"{hashlib.md5(FILE).hexdigest()}"'


def test_corrupt_truncated_gzip_is_complete_http(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "truncated_gzip"})
    body = fetch(server.url, PATH).body
    assert FILE.startswith(body)
    with pytest.raises(EOFError):
        gzip.decompress(body)


def test_corrupt_trailing_garbage_follows_the_file(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "corrupt", "kind": "trailing_garbage"})
    assert fetch(server.url, PATH).body == FILE + b"\x00garbage"


def test_stall_sends_a_part_and_then_nothing(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "stall", "at": 0.25})
    connection = connect(server)
    connection.request("GET", PATH, headers={"Authorization": "Bearer fake-key-1"})
    response = connection.getresponse()
    assert response.read(len(FILE) // 4) == FILE[: len(FILE) // 4]
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        response.read(1)
    response.close()
    connection.close()


def test_hold_keeps_a_body_open_until_the_fault_is_cleared(server, fetch):
    faults(fetch, server, {"path": "*/trades/*", "fault": "hold", "count": 1})
    connection = connect(server)
    connection.request("GET", PATH, headers={"Authorization": "Bearer fake-key-1"})
    response = connection.getresponse()
    first = response.read(len(FILE) // 2)
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        response.fp.peek(1)
    assert fetch(server.url, PATH).body == FILE, "the second request is not held"
    assert server.stats()["paths"][PATH]["in_flight"] == 1
    assert control(fetch, server, "DELETE", "faults").json == []
    connection.sock.settimeout(20)
    connection.close()
    response.close()
    assert first == FILE[: len(FILE) // 2]


def test_held_body_ends_whole_after_the_fault_is_cleared(server, fetch):
    faults(fetch, server, {"path": "*/trades/*", "fault": "hold"})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(fetch(server.url, PATH)))
    thread.start()
    while server.stats()["total"]["bytes"] < len(FILE) // 2:
        time.sleep(0.005)
    server.clear_faults()
    thread.join()
    assert answers[0].body == FILE
    assert server.stats()["paths"][PATH]["bodies_completed"] == 1


def test_slow_obeys_its_rate(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "slow", "bytes_per_s": len(FILE) * 4})
    begin = time.monotonic()
    assert fetch(server.url, PATH).body == FILE
    assert 0.2 < time.monotonic() - begin < 60


def test_redirect_sends_one_request_to_the_second_origin(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "redirect", "count": 1})
    answer = fetch(server.url, PATH)
    assert (answer.status, answer.body) == (302, b"")
    host, _, path = answer.headers["location"].removeprefix("http://").partition("/")
    assert fetch(f"http://{host}", f"/{path}", key=None).body == FILE
    assert fetch(server.url, PATH).status == 200


def test_newest_fault_comes_first(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "status", "code": 500})
    faults(fetch, server, {"path": "*", "fault": "status", "code": 502, "count": 1}, {"path": "*", "fault": "reset"})
    assert fetch(server.url, PATH).status == 502
    with pytest.raises(ConnectionResetError):
        raw(server)


def test_faults_of_bodies_leave_other_answers_alone(server, fetch):
    faults(fetch, server, {"path": "*", "fault": "cut", "at": 0.5, "count": 1})
    assert fetch(server.url, PATH.replace("BTC", "XYZ")).json["code"] == 300
    with pytest.raises(http.client.IncompleteRead):
        fetch(server.url, PATH)


def test_probability_is_repeatable_by_its_seed(server, fetch):
    def statuses(seed):
        control(fetch, server, "POST", "reset")
        faults(fetch, server, {"path": "*", "fault": "status", "code": 500, "probability": 0.5, "seed": seed})
        return [fetch(server.url, PATH).status for _ in range(24)]

    assert statuses(7) == statuses(7) != statuses(8)
    assert set(statuses(7)) == {200, 500}


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"path": "*", "fault": "explode"}, "unknown fault 'explode'"),
        ({"path": "*", "fault": "cut", "bytes_per_s": 3}, "unknown field bytes_per_s"),
        ({"fault": "reset"}, "no path"),
        ({"path": "*", "fault": "cut", "at": 1.5}, "at is 1.5"),
        ({"path": "*", "fault": "cut", "at": True}, "at is True"),
        ({"path": "*", "fault": "cut", "framing": "pigeon"}, "framing is 'pigeon'"),
        ({"path": "*", "fault": "corrupt", "kind": "x"}, "kind is 'x'"),
        ({"path": "*", "fault": "reset", "count": 0}, "count is 0"),
        ({"path": "*", "fault": "reset", "probability": 2}, "probability is 2"),
        ({"path": "*", "fault": "status", "code": 99}, "code is 99"),
        ({"path": "*", "fault": "status", "headers": [1]}, "headers is [1]"),
        ({"path": "*", "fault": "slow", "bytes_per_s": 0}, "bytes_per_s is 0"),
        ("reset", "not an object"),
    ],
)
def test_wrong_faults_are_refused_in_one_line_and_none_is_added(server, fetch, fault, word):
    answer = control(fetch, server, "POST", "faults", [{"path": "*", "fault": "reset"}, fault])
    assert answer.status == 400
    assert word in answer.body.decode()
    assert answer.body.count(b"\n") == 1
    assert control(fetch, server, "GET", "faults").json == []


def test_server_closes_at_once_while_bodies_stall_and_are_held(start, fetch):
    others = set(threading.enumerate())  # servers of other tests may be at work in this process
    server = start(data=Path(__file__).parents[2] / "runner/sandbox/data")
    faults(fetch, server, {"path": "*/quotes/*", "fault": "hold"}, {"path": "*", "fault": "stall"})
    connections = [connect(server) for _ in range(4)]
    for connection, kind in zip(connections, ("trades", "quotes") * 2, strict=True):
        connection.request("GET", PATH.replace("trades", kind), headers={"Authorization": "Bearer fake-key-1"})
        connection.getresponse().read(1)
    begin = time.monotonic()
    server.close()
    assert time.monotonic() - begin < 10
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("sandbox")]
    for connection in connections:
        connection.close()
