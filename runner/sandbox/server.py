"""The HTTP server under every sandbox: sockets, statistics, faults and control; what is answered is the application's.

Control: `GET /__sandbox/stats`, `POST /__sandbox/reset`, `POST /__sandbox/clock {"now": …}`,
`GET | POST | DELETE /__sandbox/faults`.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from runner.errors import SpecError
from runner.sandbox.clock import Clock
from runner.sandbox.faults import NAMES, Fault, Faults
from runner.sandbox.replies import Reply, Request, as_json, line
from runner.sandbox.stats import Stats
from runner.sandbox.wire import Wire, send

_log = logging.getLogger(__name__)

_CONTROL = "__sandbox"
_POLL_S = 0.02
_WITH_BODY = (200, 206)
_RESET_AT = 0.5


@dataclass(frozen=True)
class Control:
    """What the control requests of one sandbox act on, shared by all its ports."""

    clock: Clock
    stats: Stats = field(default_factory=Stats)
    faults: Faults = field(default_factory=Faults)
    on_reset: tuple[Callable[[], None], ...] = ()

    def answer(self, request: Request) -> Reply:
        """Answer a request below `/__sandbox`."""
        action = _CONTROLS.get((request.method, "/".join(request.parts[1:])))
        if action is None:
            return line(404, f"no control {request.method} {request.path}; there are {', '.join(_names())}")
        try:
            return action(self, json.loads(request.body) if request.body.strip() else None)
        except ValueError as error:
            return line(400, f"control {request.path}: the body is not JSON ({error}); mend it")
        except SpecError as error:
            return line(400, str(error))

    def set_clock(self, document: Any) -> Reply:
        """Set the clock from `{"now": "2024-08-10T08:00:00Z"}`."""
        text = document.get("now") if isinstance(document, dict) and document.keys() == {"now"} else None
        try:
            now = datetime.fromisoformat(text or "")
        except (TypeError, ValueError) as error:
            raise SpecError(f'clock {document!r}: give {{"now": "2024-08-10T08:00:00Z"}}') from error
        self.clock.set(now if now.tzinfo else now.replace(tzinfo=UTC))
        return as_json({"now": self.clock.now().isoformat()})

    def add_faults(self, document: Any) -> Reply:
        """Put faults before those in force."""
        self.faults.add(document)
        return as_json(self.faults.document())

    def clear_faults(self, _document: Any) -> Reply:
        """Take all faults away."""
        self.faults.clear()
        return as_json([])

    def reset(self, _document: Any) -> Reply:
        """Forget faults, statistics, locks and the clock."""
        self.faults.clear()
        self.stats.reset()
        self.clock.reset()
        for action in self.on_reset:
            action()
        return as_json({})


_CONTROLS: Mapping[tuple[str, str], Callable[[Control, Any], Reply]] = {
    ("GET", "stats"): lambda control, _: as_json(control.stats.document()),
    ("POST", "reset"): Control.reset,
    ("POST", "clock"): Control.set_clock,
    ("GET", "faults"): lambda control, _: as_json(control.faults.document()),
    ("POST", "faults"): Control.add_faults,
    ("DELETE", "faults"): Control.clear_faults,
}


def _names() -> list[str]:
    return [f"{method} /{_CONTROL}/{name}" for method, name in _CONTROLS]


@dataclass(frozen=True, slots=True)
class App:
    """One port: what answers, under which path that is counted, and who a client is to it.

    `label` names the path of statistics and faults, `address` what the application sees of a peer with a claimed
    address, `redirect` is the answer where a fault of that name strikes. Faults named in `early` strike before the
    application acts; `part` is told of the share of a request's body that came before such a reset. `commits` tells
    whether an answer changed something.
    """

    control: Control
    answer: Callable[[Request], Reply]
    label: Callable[[Request], str]
    address: Callable[[str, str | None], str]
    redirect: Callable[[Request], Reply] | None = None
    early: frozenset[str] = frozenset()
    part: Callable[[Request], None] | None = None
    commits: Callable[[Request, Reply], bool] | None = None


class Port(socketserver.ThreadingTCPServer):
    """A listening socket with a thread per connection, all of which end with `close`."""

    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = False
    block_on_close = True

    def __init__(self, host: str, port: int, app: App) -> None:
        self.app = app
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._mutex = threading.Lock()
        try:
            super().__init__((host, port), _Request)
        except OSError as error:
            raise SpecError(
                f"sandbox: cannot listen on {host}:{port}: {error.strerror}; choose another port"
            ) from error
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL_S,), name=f"sandbox-{self.number}")

    @property
    def number(self) -> int:
        """Return the port's number."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, end every connection, join every thread."""
        self.closing.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        with self._mutex:
            for connection in self._open:
                _shut(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember a connection, so that it can be ended."""
        with self._mutex:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        with self._mutex:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- the base class's signature
        """Log what went wrong with one connection; clients that hang up are no news."""
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        _log.log(level, "sandbox connection failed client=%s", client_address, exc_info=True)


def _answered(app: App, request: Request) -> Reply:
    """Return the application's answer; a directory or key file spoilt under the server is said in a 500."""
    try:
        return app.answer(request)
    except SpecError as error:
        _log.warning("sandbox cannot answer path=%s: %s", request.path, error)
        return line(500, str(error))


def _late(app: App, request: Request, reply: Reply) -> Collection[str]:
    """Return the faults that may strike once the application has acted."""
    is_commit = app.commits is not None and app.commits(request, reply)
    return NAMES - app.early if is_commit else NAMES - app.early - {"commit_then_503"}


def _spoil(wire: Wire, app: App, request: Request, fault: Fault) -> None:
    """Carry out a fault on a request that never reaches the application, or only in part."""
    if fault.fault != "reset":
        return send(wire, Reply(503), fault)
    if app.part is not None:
        share = _RESET_AT if fault.at is None else fault.at
        app.part(replace(request, body=request.body[: int(len(request.body) * share)]))
    return wire.reset()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        _log.debug("connection was closed already")


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    server: Port

    def _serve(self) -> None:
        request = self._read()
        app = self.server.app
        if request.parts[0] == _CONTROL and request.method != "HEAD":
            wire = Wire(self, Stats().open("", None, ""), self.server.closing)
            return send(wire, app.control.answer(request), None)
        return self._answer(app, request)

    def _answer(self, app: App, request: Request) -> None:
        path = app.label(request)
        ticket = app.control.stats.open(path, request.key, request.address)
        try:
            wire = Wire(self, ticket, self.server.closing)
            fault = app.control.faults.take(path, has_body=False, names=app.early)
            if fault is not None:
                return _spoil(wire, app, request, fault)
            # HEAD is answered as the source answers it: 404 also for what exists.
            reply = Reply(404) if request.method == "HEAD" else _answered(app, request)
            fault = app.control.faults.take(path, has_body=reply.status in _WITH_BODY, names=_late(app, request, reply))
            if fault is not None and fault.fault == "redirect":
                reply, fault = app.redirect(request) if app.redirect else reply, None
            return send(wire, reply, fault)
        finally:
            ticket.close()

    def _read(self) -> Request:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        body = self.rfile.read(int(length)) if length.isdigit() else b""
        address = self.server.app.address(self.client_address[0], headers.get("x-fake-client-ip"))
        parts = tuple(unquote(part) for part in url.path.lstrip("/").split("/"))
        query = dict(parse_qsl(url.query))
        return Request(self.command, unquote(url.path), parts, query, headers, body, address, url.query)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 -- the names are the base class's

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is the base class's
        _log.debug("%s %s", self.address_string(), format % args)
