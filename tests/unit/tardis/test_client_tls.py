"""The client over TLS, as it meets the real source: the same patience, and a certificate that counts."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date

import pytest
import trustme

from runner.errors import DrainedError, TransientError
from runner.tardis.client import DayFile

FILE = DayFile("binance", "trades", date(2024, 8, 8), "BTCUSDT")
BODY = bytes(range(256)) * 4000
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n".encode()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return (certificate, key, authority) files of 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, trusted = folder / "cert.pem", folder / "key.pem", folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key, trusted


@pytest.fixture
def tls_server(certificate) -> Iterator[Callable[[Callable[[ssl.SSLSocket], None]], str]]:
    """Start a server that handshakes and then hands each connection to a script; yields its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate[:2])
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(script):
        def accept():
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(raw, server_side=True) as sock:
                        sock.settimeout(10)
                        script(sock)
                except OSError:
                    raw.close()  # the client did not like the certificate, or hung up

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(60)


@pytest.fixture
def trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[2]))


def join(chunks):
    return b"".join(chunks)


def serve_forever(sock):
    while sock.recv(65536):
        sock.sendall(HEAD + b"\r\n" + BODY)


@pytest.mark.usefixtures("trusted")
def test_files_arrive_over_one_kept_connection(tls_server, tardis):
    accepted = []

    def script(sock):
        accepted.append(sock)
        serve_forever(sock)

    client = tardis(tls_server(script))
    assert [client.fetch(FILE, join).value == BODY for _ in range(3)] == [True] * 3
    assert len(accepted) == 1
    client.close()


def test_an_unknown_certificate_is_refused_before_the_key_is_sent(tls_server, tardis):
    heard = []
    with pytest.raises(TransientError, match="certificate verify failed"):
        tardis(tls_server(lambda sock: heard.append(sock.recv(65536)))).fetch(FILE, join)
    assert heard == []


@pytest.mark.usefixtures("trusted")
def test_a_stall_ends_within_its_limit(tls_server, tardis):
    gone = threading.Event()

    def script(sock):
        sock.recv(65536)
        sock.sendall(HEAD + b"\r\n" + BODY[:100_000])
        gone.wait(60)

    client = tardis(tls_server(script), attempts=1, stall_s=0.4)
    began = time.monotonic()
    with pytest.raises(TransientError, match="stalled: no byte"):
        client.fetch(FILE, join)
    gone.set()
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("trusted")
def test_a_stop_ends_a_body(tls_server, tardis):
    gone = threading.Event()

    def script(sock):
        sock.recv(65536)
        sock.sendall(HEAD + b"\r\n" + BODY[:100_000])
        client.stop.set()
        gone.wait(60)

    client = tardis(tls_server(script), stall_s=60)
    with pytest.raises(DrainedError):
        client.fetch(FILE, join)
    gone.set()


@pytest.mark.usefixtures("trusted")
def test_a_redirect_from_https_to_http_is_not_followed(tls_server, tardis):
    def script(sock):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(TransientError, match="from https to http"):
        tardis(tls_server(script), attempts=1).fetch(FILE, join)
