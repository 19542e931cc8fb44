"""A server that sends exactly the bytes a test wants, and the limits of Tardis in fractions of a second."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from runner.tardis.client import Limits, Tardis


@dataclass
class Call:
    """One request as it came, and the socket to answer on. `over` is set when the test ends: wait on it, or pace."""

    sock: socket.socket
    number: int
    head: str
    over: threading.Event

    @property
    def path(self) -> str:
        return self.head.split(" ", 2)[1]

    @property
    def authorization(self) -> str | None:
        return next((line[15:] for line in self.head.split("\r\n") if line.startswith("Authorization: ")), None)

    def send(self, *parts: bytes | str) -> None:
        self.sock.sendall(b"".join(part if isinstance(part, bytes) else part.encode() for part in parts))

    def answer(self, body: bytes | str, status: str = "200 OK", *headers: str) -> None:
        payload = body if isinstance(body, bytes) else body.encode()
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(payload)}", "Connection: close", *headers, "", "")
        self.send("\r\n".join(lines), payload)

    def trickle(self, data: bytes, pause_s: float) -> None:
        for byte in data:
            if self.over.wait(pause_s):
                return
            self.send(bytes([byte]))


@dataclass
class RawServer:
    """Answers each request on its own connection with `script(call)`, then closes it."""

    script: Callable[[Call], None]
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(60)
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    head += piece
                with self.lock:
                    call = Call(sock, len(self.calls), head.decode(), self.over)
                    self.calls.append(call)
                self.script(call)
            except OSError:
                return  # the client hung up, as some tests want

    def close(self) -> None:
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(60)


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[Call], None]], RawServer]]:
    servers: list[RawServer] = []

    def start(script: Callable[[Call], None]) -> RawServer:
        servers.append(RawServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def tardis() -> Iterator[Callable[..., Tardis]]:
    clients: list[Tardis] = []

    def connect(url: str, *, key: str | None = "fake-key-1", **options: object) -> Tardis:
        limits = {
            "attempts": 2,
            "backoff_s": 0.01,
            "backoff_max_s": 0.05,
            "stall_s": 30.0,
            "min_bytes_per_s": 0,
            "min_speed_window_s": 0.5,
            "connect_s": 10.0,
            "refusal_s": 0.2,
            "lock_limit_s": 0.5,
        }
        limits |= {name: options.pop(name) for name in list(options) if name in limits}
        client = Tardis(
            url=url,
            api_url=str(options.pop("api_url", url)),
            key=key,
            limits=Limits(**limits),
            stop=threading.Event(),
            connections=int(options.pop("connections", 4)),
            **options,
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()
