"""One HTTP GET at a time: redirects, framing, failures in our words. No retries, no meaning of answers.

The key goes to the origin it was meant for and nowhere else; neither it nor the query of a URL (which may be a
signature) gets into a message or a log.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from http.client import HTTPException
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from runner import __version__
from runner.errors import ConfigError, TransientError
from runner.tardis.limits import Limits
from runner.tardis.watch import Watch, pools, watching

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 64 * 1024
_TEXT_BYTES = 64 * 1024
_CAUSE_CHARS = 200
_LENGTH_DIGITS = 18
_MD5 = re.compile("[0-9a-f]{32}")
_PORTS = {"http": 80, "https": 443}
_FAILURES = (HTTPError, HTTPException, OSError)


def origin_of(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) of an http or https URL; ConfigError for anything else."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        scheme, host, port = "", "", 0
    if scheme not in _PORTS or not host:
        raise ConfigError(f"not an http(s) address: scheme {scheme!r}, host {host!r}; correct the Tardis URL")
    return scheme, host, port


def clean_key(key: str) -> str:
    """Return a key fit for a header; ConfigError, which does not show it, when it has anything but visible ASCII."""
    if not key or not all("!" <= c <= "~" for c in key):
        raise ConfigError("the Tardis key is empty or has blanks, line ends or other odd characters; set it again")
    return key


class Reply:
    """An answer whose body is still on the wire. Close it in any case."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self.chunked = self.headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
        length = self.headers.get("Content-Length", "").strip()
        is_length = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
        self.length = int(length) if is_length and not self.chunked else None

    @property
    def framed(self) -> bool:
        """Tell whether the answer itself says where its body ends."""
        return self.chunked or self.length is not None

    @property
    def md5(self) -> str | None:
        """Return what `x-md5` says, as bare lower-case hex; None when not sent, or not an MD5."""
        text = self.headers.get("x-md5", "").strip().strip('"').lower()
        return text if _MD5.fullmatch(text) else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it came, undecoded, in what a single read gave; TransientError when it is not whole."""
        received = 0
        while True:
            try:
                piece = self._response.read1(_CHUNK_BYTES, decode_content=False)
            except _FAILURES as e:
                whole = f" of {self.length}" if self.length is not None else ""
                raise TransientError(f"the body broke off after {received}{whole} bytes: {_cause(e)}") from e
            if not piece:
                break
            received += len(piece)
            yield piece
        if self.length is not None and received != self.length:
            raise TransientError(f"the body has {received} bytes, Content-Length says {self.length}")

    def text(self) -> str:
        """Return the beginning of the body (64 KiB at most), which is enough for any refusal."""
        body = bytearray()
        for piece in self.chunks():
            body += piece
            if len(body) >= _TEXT_BYTES:
                break
        return bytes(body[:_TEXT_BYTES]).decode("utf-8", "replace")

    def close(self) -> None:
        """Give the connection up, unless the body was read to its end: then it is already back in its pool."""
        self._response.close()


class Wire:
    """GETs with a watch on each, over pooled connections."""

    def __init__(self, limits: Limits, stop: threading.Event, connections: int) -> None:
        self._limits = limits
        self._stop = stop
        self._pools = pools(connections)
        # its messages hold whole URLs, and a redirect's query is a signature
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def get(self, url: str, key: str | None) -> Reply:
        """Return the answer after at most five redirects; `key` is sent to the origin of `url` only."""
        home = origin_of(url)
        for _ in range(_MAX_REDIRECTS + 1):
            reply = self._hop(url, key if origin_of(url) == home else None)
            if reply.status not in _REDIRECTS:
                return reply
            url = _target(url, reply)
        raise TransientError(f"more than {_MAX_REDIRECTS} redirects")

    def close(self) -> None:
        """Close the connections kept for later."""
        self._pools.clear()

    def _hop(self, url: str, key: str | None) -> Reply:
        headers = {"User-Agent": f"market-data-runner/{__version__}", "Accept-Encoding": "gzip"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        watch = Watch(self._limits, self._stop)
        watch.check_stop()
        timeout = urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.stall_s)
        try:
            with watching(watch):
                response = self._pools.request(
                    "GET",
                    url,
                    headers=headers,
                    timeout=timeout,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
        except _FAILURES as e:
            raise TransientError(f"no answer from {urlsplit(url).hostname}: {_cause(e)}") from e
        watch.body_begins()
        return Reply(response)


def _target(url: str, reply: Reply) -> str:
    try:
        location = reply.headers.get("Location", "")
        reply.text()  # a body read to its end keeps the connection
    finally:
        reply.close()
    try:
        target = urljoin(url, location)
        scheme = origin_of(target)[0]
    except (ValueError, ConfigError):
        # the cause would show the address
        raise TransientError(f"redirected ({reply.status}) to no http(s) address") from None
    if not location:
        raise TransientError(f"redirected ({reply.status}) without saying where to")
    if urlsplit(url).scheme == "https" and scheme != "https":
        raise TransientError(f"redirected ({reply.status}) from https to {scheme}, which is not followed")
    return target


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_CAUSE_CHARS]
