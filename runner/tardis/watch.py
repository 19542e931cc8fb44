"""Reading sockets with a watch in hand: silence, trickles and a stop are noticed while a read blocks.

A socket's own time-out starts anew with every byte, and a stop is not seen by a blocked read. So every byte of every
answer, head and framing included, comes through `_Watched.readinto`, which waits in short ticks and asks a `Watch`
after each. Only time spent waiting for the server counts: while our side is busy nobody is to blame.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from runner.errors import DrainedError, TransientError
from runner.tardis.limits import Limits

_TICK_S = 0.25
_BUCKETS = 32


class Watch:
    """Patience with one request: raises when the server is silent, too slow, or the process is told to stop."""

    def __init__(self, limits: Limits, stop: threading.Event) -> None:
        self._limits = limits
        self._stop = stop
        self._in_body = False
        self._waited_s = 0.0
        self._received: deque[tuple[int, int]] = deque()
        self._in_window = 0
        patience = (_TICK_S, limits.stall_s / 4, limits.min_speed_window_s / 8)
        self.tick_s = max(0.001, min(p for p in patience if p > 0))

    def body_begins(self) -> None:
        """Start to judge the speed: the head of the answer is there."""
        self._in_body = True
        self._waited_s = 0.0

    def idle(self, silent_s: float) -> None:
        """Judge a read that has been silent for `silent_s` so far; the head must be there within the same limit."""
        self.check_stop()
        waited_s = self._waited_s + silent_s
        if (silent_s if self._in_body else waited_s) > self._limits.stall_s:
            part = "no byte" if self._in_body else "no complete answer"
            raise TransientError(f"stalled: {part} for {self._limits.stall_s:g} s")
        self._judge_speed(waited_s)

    def received(self, count: int, waited_s: float) -> None:
        """Take note of `count` bytes that came after `waited_s` of waiting, and judge head time and speed."""
        self.check_stop()
        self._waited_s += waited_s
        if not self._in_body:
            self.idle(0.0)
            return
        bucket = int(self._waited_s * _BUCKETS / self._limits.min_speed_window_s) if self._speed_matters else 0
        self._in_window += count
        if self._received and self._received[-1][0] == bucket:
            self._received[-1] = (bucket, self._received[-1][1] + count)
        else:
            self._received.append((bucket, count))
        self._judge_speed(self._waited_s)

    def check_stop(self) -> None:
        """Raise DrainedError once the process is told to stop."""
        if self._stop.is_set():
            raise DrainedError("told to stop while waiting for Tardis")

    @property
    def _speed_matters(self) -> bool:
        return self._limits.min_bytes_per_s > 0 and self._limits.min_speed_window_s > 0

    def _judge_speed(self, waited_s: float) -> None:
        window_s = self._limits.min_speed_window_s
        if not self._in_body or not self._speed_matters or waited_s < window_s:
            return
        oldest = int((waited_s - window_s) * _BUCKETS / window_s)
        while self._received and self._received[0][0] < oldest:
            self._in_window -= self._received.popleft()[1]
        if self._in_window < self._limits.min_bytes_per_s * window_s:
            raise TransientError(
                f"too slow: {self._in_window} bytes in {window_s:g} s, below {self._limits.min_bytes_per_s:g} bytes/s"
            )


_CURRENT: ContextVar[Watch] = ContextVar("watch of the request this thread is making")


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Put connections made and answers begun by this thread under `watch`."""
    token = _CURRENT.set(watch)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class _Watched(io.RawIOBase):
    """The receiving side of a socket, read in ticks."""

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self._sock = sock
        # keeps the descriptor open until this is closed, as http.client expects of a socket's file
        self._hold = sock.makefile("rb", buffering=0)
        self._watch = watch
        sock.settimeout(watch.tick_s)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        began = time.monotonic()
        while True:
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                self._watch.idle(time.monotonic() - began)
                continue
            self._watch.received(count, time.monotonic() - began)
            return count

    def close(self) -> None:
        self._hold.close()
        super().close()


class _Lines(io.BufferedReader):
    """An answer's lines and body. A line must end: else half of a chunk's size, say 0 of 0400, looks like the last."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if line and not line.endswith(b"\n") and (size is None or size < 0 or len(line) < size):
            raise http.client.IncompleteRead(line)
        return line


class _Response(http.client.HTTPResponse):
    """An answer whose bytes all come through the watch that was current when it began."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _Lines(_Watched(sock, _CURRENT.get()))


class _Connecting:
    """Connect in ticks: a stop must not wait for an address that does not answer."""

    response_class: Any = _Response
    host: str
    port: int
    timeout: float | None
    socket_options: list[tuple[int, int, int | bytes]] | None

    def _new_conn(self) -> socket.socket:
        conn: Any = self
        try:
            addresses = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            raise NameResolutionError(self.host, conn, socket.gaierror(str(e))) from e
        failure: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                _connect(sock, address, self.timeout or 0.0)
            except TimeoutError as e:
                sock.close()
                raise ConnectTimeoutError(conn, f"no connection within {self.timeout} s") from e
            except OSError as e:
                sock.close()
                failure = e
                continue
            except BaseException:
                sock.close()
                raise
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(self.timeout)
            return sock
        raise NewConnectionError(conn, f"cannot connect: {failure}") from failure


def _connect(sock: socket.socket, address: Any, timeout_s: float) -> None:
    watch = _CURRENT.get()
    sock.setblocking(False)  # noqa: FBT003  the standard library's only spelling
    deadline = time.monotonic() + timeout_s
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, os.strerror(code))
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while not poll.poll(watch.tick_s * 1000):
        watch.check_stop()
        if time.monotonic() > deadline:
            raise TimeoutError
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


class _Connection(_Connecting, HTTPConnection):
    pass


class _SecureConnection(_Connecting, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def pools(connections: int) -> urllib3.PoolManager:
    """Return keep-alive pools whose every read and connect is watched; requests need `watching` around them."""
    manager = urllib3.PoolManager(num_pools=8, maxsize=connections)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
