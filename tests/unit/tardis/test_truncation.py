"""An answer cut at any byte, head and framing included, is never taken for the file."""

from __future__ import annotations

import gzip
import hashlib
from contextlib import suppress
from datetime import date

import pytest

from runner.errors import TransientError
from runner.market.schema import DATA_TYPES
from runner.tardis import csv
from runner.tardis.client import DayFile
from runner.task import Outcome

FILE = DayFile("binance", "trades", date(2024, 8, 8), "BTCUSDT")
HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
ROWS = [f"binance,BTCUSDT,{1723161540000000 + n},{1723161540000100 + n},{n},buy,{n}.5,1\n" for n in range(2)]
# The end of the first member is the end of a row: what comes until there is a sound file.
MEMBERS = (gzip.compress((HEADER + ROWS[0]).encode(), mtime=0), gzip.compress(ROWS[1].encode(), mtime=0))
BODY = b"".join(MEMBERS)
MD5 = hashlib.md5(BODY).hexdigest()


def ids(chunks):
    batches = csv.read(chunks, DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT")
    return [each for batch in batches for each in batch.column("id").to_pylist()]


FRAMINGS = ("content-length", "chunked", "chunked-padded", "close")


def framed(framing: str, members: tuple[bytes, ...]) -> tuple[str, bytes]:
    """Return the header that frames a body and the body as it is sent, a chunk for each gzip member."""
    body = b"".join(members)
    if framing == "content-length":
        return f"Content-Length: {len(body)}\r\n", body
    if framing == "close":
        return "", body
    size = "08x" if framing == "chunked-padded" else "x"
    chunks = b"".join(f"{len(each):{size}}\r\n".encode() + each + b"\r\n" for each in members)
    return "Transfer-Encoding: chunked\r\n", chunks + b"0\r\n\r\n"


def answer(framing: str, *, checksum: bool) -> tuple[bytes, int]:
    """Return a whole answer, and how many of its bytes must come before the body is whole."""
    line, payload = framed(framing, MEMBERS)
    md5 = f"x-md5: {MD5}\r\n" if checksum else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n{line}{md5}Connection: close\r\n\r\n".encode()
    return head + payload, len(head) + payload.rindex(BODY[-1:]) + 1


@pytest.mark.parametrize("checksum", [True, False], ids=["x-md5", "no-x-md5"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_cut_at_any_byte_is_no_success(raw_server, tardis, framing, checksum):
    whole, least = answer(framing, checksum=checksum)
    cut = 0

    def script(call):
        # a second fetch, where one is made, gets everything
        call.send(whole if call.number else whole[:cut])

    server = raw_server(script)
    client = tardis(server.url, attempts=1, stall_s=60.0)
    for length in range(least):
        cut = length
        server.calls.clear()
        with pytest.raises(TransientError, match=r"^binance trades 2024-08-08 BTCUSDT: [^\n]*$"):
            client.fetch(FILE, ids)
    # nothing but the end of the chunks is missing: refused or not, never something else
    for length in range(least, len(whole)):
        cut = length
        server.calls.clear()
        with suppress(TransientError):
            assert client.fetch(FILE, ids).value == ["0", "1"], cut


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_sound_beginning_of_a_file_is_found_out_wherever_anything_tells(raw_server, tardis, framing):
    """Framed as if it were whole, it is refused by x-md5; without that and with a length that fits nothing can tell."""
    line, short = framed(framing, MEMBERS[:1])
    for md5 in (f"x-md5: {MD5}\r\n", ""):
        head = f"HTTP/1.1 200 OK\r\n{line}{md5}Connection: close\r\n\r\n".encode()
        server = raw_server(lambda call, head=head: call.send(head + short))
        client = tardis(server.url, attempts=1)
        if md5:
            with pytest.raises(TransientError, match="x-md5 says"):
                client.fetch(FILE, ids)
        else:
            fetched = client.fetch(FILE, ids)
            assert (fetched.outcome, fetched.value) == (Outcome.DONE, ["0"])
            assert len(server.calls) == (2 if framing == "close" else 1)
