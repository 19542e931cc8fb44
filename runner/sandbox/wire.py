"""Put a reply on a socket, whole or spoilt as a fault says: everything here can be seen with a packet sniffer."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler

from runner.sandbox.corrupt import BODIES
from runner.sandbox.faults import Fault
from runner.sandbox.replies import Body, Content, Reply
from runner.sandbox.stats import Ticket

_POLL_S = 0.02
_LAST_BYTES = 1
_FORBIDDEN = json.dumps(
    {"error": {"code": 403, "message": "permission was withdrawn", "errors": [{"reason": "forbidden"}]}}
)
# Slow bodies leave in this many pieces a second.
_PIECES_PER_S = 20
_HEAD_BYTE_S = 0.1


@dataclass(frozen=True, slots=True)
class Wire:
    """One connection while one answer is sent on it."""

    http: BaseHTTPRequestHandler
    ticket: Ticket
    closing: threading.Event

    def head(self, reply: Reply, framing: str) -> None:
        """Send the status line and the headers."""
        self.ticket.answer(reply.status)
        self.http.send_response(reply.status)
        for name, value in reply.headers.items():
            self.http.send_header(name, str(value))
        for name, value in _framing_headers(framing, reply.body):
            self.http.send_header(name, value)
        if framing == "close":
            self.http.close_connection = True
        self.http.end_headers()

    def body(self, chunks: Iterator[bytes], *, is_chunked: bool = False) -> None:
        """Send a part of the body."""
        for chunk in chunks:
            if chunk:
                self.http.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)
                self.ticket.sent(len(chunk))

    def ending(self, body: Body, start: int, *, completed: bool) -> None:
        """Send a body from `start` to its end; it is counted before its last byte is out."""
        last = max(start, body.size - _LAST_BYTES)
        self.body(body.chunks(start, last))
        self.ticket.close(completed=completed)
        try:
            self.body(body.chunks(last, body.size))
        except OSError:
            if completed:
                self.ticket.retract()
            raise

    def pause(self, fault: Fault, seconds: float | None) -> bool:
        """Wait for so long, or until the fault is cleared; False when the client or the server has gone."""
        waited = 0.0
        while not fault.cleared.is_set() and (seconds is None or waited < seconds):
            step = _POLL_S if seconds is None else min(_POLL_S, seconds - waited)
            fault.cleared.wait(step)
            waited += step
            if self.closing.is_set() or self._is_abandoned():
                return False
        return not self.closing.is_set()

    def _is_abandoned(self) -> bool:
        connection = self.http.connection
        try:
            peeked: bytes = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return not peeked

    def drop(self) -> None:
        """End the connection in an orderly way after what was sent."""
        self.ticket.close()
        self.http.close_connection = True

    def reset(self) -> None:
        """End the connection with a RST."""
        self.ticket.close()
        self.http.close_connection = True
        connection = self.http.connection
        # Only a socket closed with data pending and no linger sends RST; files made from it keep it open, so detach.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())


def _framing_headers(framing: str, body: Body) -> list[tuple[str, str]]:
    if framing == "chunked":
        return [("Transfer-Encoding", "chunked")]
    if framing == "close":
        return [("Connection", "close")]
    return [("Content-Length", str(body.size))]


def send(wire: Wire, reply: Reply, fault: Fault | None) -> None:
    """Send a reply as it is, or as a fault spoils it."""
    if fault is None:
        _whole(wire, reply)
    else:
        _FAULTS[fault.fault](wire, reply, fault)


def _whole(wire: Wire, reply: Reply) -> None:
    is_ok = reply.status == 200  # noqa: PLR2004 -- HTTP
    if not reply.body.size:
        wire.ticket.close(completed=is_ok)
    wire.head(reply, "content-length")
    wire.ending(reply.body, 0, completed=is_ok)


def _status(wire: Wire, _reply: Reply, fault: Fault) -> None:
    text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
    body = Content(b"" if wire.http.command == "HEAD" else text.encode())
    _whole(wire, Reply(fault.code, fault.headers, body))


def _first_part(wire: Wire, reply: Reply, fault: Fault, default: float) -> int:
    """Send the headers and the share `at` of the body, never all of it; return where the rest begins."""
    at = default if fault.at is None else fault.at
    stop = min(int(reply.body.size * at), max(0, reply.body.size - 1))
    wire.head(reply, "content-length")
    wire.body(reply.body.chunks(0, stop))
    return stop


def _reset(wire: Wire, reply: Reply, fault: Fault) -> None:
    if fault.at is not None:
        _first_part(wire, reply, fault, 0)
    wire.reset()


def _stall(wire: Wire, reply: Reply, fault: Fault) -> None:
    _first_part(wire, reply, fault, 0.5)
    wire.pause(fault, None)
    wire.drop()


def _hold(wire: Wire, reply: Reply, fault: Fault) -> None:
    start = _first_part(wire, reply, fault, 0.5)
    if wire.pause(fault, None):
        wire.ending(reply.body, start, completed=True)
    else:
        wire.drop()


def _slow(wire: Wire, reply: Reply, fault: Fault) -> None:
    wire.head(reply, "content-length")
    piece, sent = max(1, int(fault.bytes_per_s / _PIECES_PER_S)), 0
    while sent < reply.body.size - piece and not fault.cleared.is_set():
        wire.body(reply.body.chunks(sent, sent + piece))
        sent += piece
        if not wire.pause(fault, piece / fault.bytes_per_s):
            return wire.drop()
    return wire.ending(reply.body, sent, completed=True)


def _cut(wire: Wire, reply: Reply, fault: Fault) -> None:
    at = 0.5 if fault.at is None else fault.at
    wire.head(reply, fault.framing)
    wire.body(reply.body.chunks(0, int(reply.body.size * at)), is_chunked=fault.framing == "chunked")
    wire.drop()


def _corrupt(wire: Wire, reply: Reply, fault: Fault) -> None:
    carry_out = _ANSWERS.get(fault.kind)
    if carry_out is None:
        return _whole(wire, BODIES[fault.kind].spoil(reply))
    return carry_out(wire, reply, fault)


def _hang_up(wire: Wire, _reply: Reply, _fault: Fault) -> None:
    wire.drop()


def _silence(wire: Wire, _reply: Reply, fault: Fault) -> None:
    wire.pause(fault, None)
    wire.drop()


def _slow_head(wire: Wire, reply: Reply, fault: Fault) -> None:
    wire.ticket.answer(reply.status)
    for byte in f"HTTP/1.1 {reply.status} OK\r\nContent-Type: text/csv\r\nContent-Length: {reply.body.size}\r\n\r\n":
        wire.http.wfile.write(byte.encode())
        if not wire.pause(fault, _HEAD_BYTE_S):
            return wire.drop()
    return wire.ending(reply.body, 0, completed=True)


_ANSWERS: Mapping[str, Callable[[Wire, Reply, Fault], None]] = {
    "hang_up": _hang_up,
    "silence": _silence,
    "slow_head": _slow_head,
}


def _deny(wire: Wire, reply: Reply, fault: Fault) -> None:
    _status(wire, reply, replace(fault, code=403, body=fault.body or _FORBIDDEN))


_FAULTS: Mapping[str, Callable[[Wire, Reply, Fault], None]] = {
    "status": _status,
    "commit_then_503": _status,
    "deny_after": _deny,
    "reset": _reset,
    "stall": _stall,
    "hold": _hold,
    "slow": _slow,
    "cut": _cut,
    "corrupt": _corrupt,
}
