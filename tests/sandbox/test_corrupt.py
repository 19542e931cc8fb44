"""Every kind of corruption, as a plain reader of the answer sees it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import socket
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runner.sandbox.corrupt import BODIES, CORRUPTIONS

PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
FILE = (Path(__file__).parents[2] / "runner/sandbox/data/binance/trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()
LINES = gzip.decompress(FILE).decode().splitlines(keepends=True)
HEADER, ROWS = LINES[0], LINES[1:]
ROW = ROWS[len(ROWS) // 2]
DAY_US = 86_400_000_000


@pytest.fixture
def spoilt(server, fetch):
    def answer(kind: str, path: str = PATH, **more):
        server.add_faults({"path": "*", "fault": "corrupt", "kind": kind, "count": 1})
        return fetch(server.url, path, **more)

    return answer


def text_of(answer) -> str:
    return gzip.decompress(answer.body).decode()


def moved(row: str, by_us: int) -> str:
    fields = row.split(",")
    return ",".join([*fields[:2], str(int(fields[2]) + by_us), str(int(fields[3]) + by_us), *fields[4:]])


def scaled(rows, change):
    cells = [row.split(",") for row in rows]
    return [",".join([*c[:2], change(c[2]), change(c[3]), *c[4:]]) for c in cells]


def with_price(text: str) -> str:
    fields = ROW.split(",")
    return ",".join([*fields[:6], text, fields[7]])


def in_middle(*rows: str) -> list[str]:
    half = len(ROWS) // 2
    return [HEADER, *ROWS[:half], *rows, *ROWS[half + 1 :]]


TEXTS = {
    "no_header": ROWS,
    "header_order": ["exchange,symbol,timestamp,local_timestamp,id,side,amount,price\n", *ROWS],
    "header_renamed": ["exchange,symbol,timestamp,local_timestamp,id,side,price,new_amount\n", *ROWS],
    "missing_column": in_middle(ROW.rpartition(",")[0] + "\n"),
    "extra_column": in_middle(ROW[:-1] + ",1\n"),
    "nan": in_middle(with_price("NaN")),
    "infinity": in_middle(with_price("inf")),
    "text_price": in_middle(with_price("n/a")),
    "ns_times": [HEADER, *scaled(ROWS, lambda text: text + "000")],
    "ms_times": [HEADER, *scaled(ROWS, lambda text: text[:-3])],
    "nul": in_middle(ROW[:-1] + "\0\n"),
    "crlf": [line[:-1] + "\r\n" for line in LINES],
    "bom": ["\ufeff", *LINES],
    "unterminated": [*LINES[:-1], LINES[-1][:-1]],
    "torn_row": [*LINES[:-1], LINES[-1][: (len(LINES[-1]) - 1) // 2]],
    "other_symbol": in_middle(ROW.replace("BTCUSDT", "XBTCUSDT")),
    "other_day": [HEADER, *(moved(row, DAY_US) for row in ROWS)],
    "far_row": [*LINES[:-1], moved(ROWS[-1], 365 * DAY_US)],
    "previous_day": [HEADER, moved(ROWS[0], -DAY_US), *ROWS[1:]],
    "next_day": [*LINES[:-1], moved(ROWS[-1], DAY_US)],
    "unsorted": in_middle(ROWS[-1], ROW)[:-1],
    "duplicate_ids": in_middle(ROW, ROW),
    "header_only": [HEADER],
    "replaced": LINES[:-1],
    "two_members": LINES,
    "empty_gzip": [],
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_kind_changes_this_and_nothing_else_and_its_checksum_fits(spoilt, kind):
    answer = spoilt(kind)
    assert text_of(answer) == "".join(TEXTS[kind])
    assert answer.headers["x-md5"] == f'"{hashlib.md5(answer.body).hexdigest()}"'
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(answer.body)))


@pytest.mark.parametrize("kind", ["fewer_rows", "first_member"])
def test_half_a_file_is_sound_gzip_with_the_checksum_of_the_whole(spoilt, kind):
    answer = spoilt(kind)
    text = text_of(answer)
    assert "".join(LINES).startswith(text)
    assert text.endswith("\n")
    assert 0.4 < text.count("\n") / len(LINES) < 0.6
    assert answer.headers["x-md5"] != f'"{hashlib.md5(answer.body).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(answer.body))


def test_two_members_are_two(spoilt):
    member = zlib.decompressobj(31)
    member.decompress(spoilt("two_members").body)
    assert member.eof
    assert member.unused_data[:2] == b"\x1f\x8b"


def test_an_empty_body_has_no_byte(spoilt):
    answer = spoilt("empty_body")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_a_wrong_length_stands_after_a_good_checksum(spoilt):
    body = spoilt("gzip_length").body
    assert (body[:-4], body[-4:]) == (FILE[:-4], bytes(byte ^ 255 for byte in FILE[-4:]))
    with pytest.raises(gzip.BadGzipFile, match="length"):
        gzip.decompress(body)


def test_a_million_rows_are_the_files_own_over_and_over(spoilt):
    text = text_of(spoilt("many_rows"))
    assert text.count("\n") > 1_000_000
    assert text.startswith("".join(LINES) + ROWS[0])


def sizes(body: bytes) -> tuple[int, int, bytes]:
    """Return how many bytes a gzip stream holds, how many of them are line ends, and the last of them."""
    total, ends, last = 0, 0, b""
    while body:
        member = zlib.decompressobj(31)
        while not member.eof:
            piece = member.decompress(body, 1 << 24)
            total, ends, last, body = total + len(piece), ends + piece.count(b"\n"), piece[-1:] or last, b""
            body = member.unconsumed_tail
        body = member.unused_data
    return total, ends, last


def test_a_bomb_is_a_gigabyte_in_a_megabyte(spoilt):
    body = spoilt("gzip_bomb").body
    assert len(body) < 1_100_000
    part = body[: len(body) // 64]
    assert body == part * 64
    assert sizes(part) == ((1 << 30) // 64, 0, b"\0")


def test_a_long_line_has_a_hundred_million_bytes_and_no_end(spoilt):
    plain = len("".join(LINES))
    assert sizes(spoilt("long_line").body) == (plain + 100_000_000, len(LINES), b"1")


def test_blank_lines_are_a_hundred_million(spoilt):
    plain = len("".join(LINES))
    assert sizes(spoilt("blank_lines").body) == (plain + 100_000_000, len(LINES) + 100_000_000, b"\n")


def test_many_columns_are_ten_million(spoilt):
    total, ends, _ = sizes(spoilt("many_columns").body)
    assert (total, ends) == (len(HEADER) + len(ROWS[0]) + 20_000_000, 2)


def test_a_drifted_catalogue_ends_a_day_earlier_and_says_so_in_any_encoding(server, spoilt, fetch):
    path = "/v1/exchanges/binance"
    good = fetch(server.url, path).json["datasets"]
    for packed in (False, True):
        answer = spoilt("catalogue_drift", path, **({"Accept_Encoding": "gzip"} if packed else {}))
        body = gzip.decompress(answer.body) if packed else answer.body
        drifted = json.loads(body)["datasets"]
        assert drifted["exportedUntil"] == good["exportedUntil"]
        for before, after in zip(good["symbols"], drifted["symbols"], strict=True):
            until = datetime.fromisoformat(before["availableTo"]) - timedelta(days=1)
            assert datetime.fromisoformat(after["availableTo"]) == until.astimezone(UTC)


def raw(server, wait_s: float = 20) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as sock:
        sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer fake-key-1\r\n\r\n".encode())
        return sock.recv(1 << 16)


def test_a_connection_may_end_before_a_byte_of_the_answer(server):
    server.add_faults({"path": "*", "fault": "corrupt", "kind": "hang_up", "count": 1})
    assert raw(server) == b""
    assert raw(server).startswith(b"HTTP/1.1 200 OK")


def test_a_connection_may_stay_silent(server):
    server.add_faults({"path": "*", "fault": "corrupt", "kind": "silence", "count": 1})
    with pytest.raises(TimeoutError):
        raw(server, wait_s=0.3)


def test_a_slow_head_comes_byte_by_byte_and_the_file_follows(server):
    server.add_faults({"path": "*", "fault": "corrupt", "kind": "slow_head", "count": 1})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    connection.sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer fake-key-1\r\n\r\n".encode())
    received = connection.sock.recv(1 << 16)
    assert len(received) < 30, "the whole head takes seconds"
    server.clear_faults()
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < len(FILE):
        received += connection.sock.recv(1 << 16)
    connection.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == FILE


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_leaves_answers_without_rows_or_of_another_sort_in_good_order(start, put, fetch, tmp_path, kind):
    put("binance/trades/2024/08/08/BTCUSDT", "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n")
    put("binance/trades/2024/08/09/BTCUSDT").write_bytes(b"")
    server = start(data=tmp_path / "data")
    server.add_faults({"path": "*", "fault": "corrupt", "kind": kind})
    for path in (PATH, PATH.replace("08/08", "08/09"), "/v1/exchanges/binance"):
        assert fetch(server.url, path).status == 200


def test_without_checksums_no_kind_brings_one(start, fetch):
    server = start(data=Path(__file__).parents[2] / "runner/sandbox/data", checksums=False)
    assert "x-md5" not in fetch(server.url, PATH).headers
    for kind in ("fewer_rows", "gzip_trailer", "nan"):
        server.add_faults({"path": "*", "fault": "corrupt", "kind": kind, "count": 1})
        assert "x-md5" not in fetch(server.url, PATH).headers


def test_help_names_every_kind_and_what_it_is():
    command = [sys.executable, "-m", "runner", "sandbox", "tardis", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "120"}).stdout
    told = dict(line.split(maxsplit=1) for line in shown.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert {kind: told.get(kind) for kind in CORRUPTIONS} == dict(CORRUPTIONS)
