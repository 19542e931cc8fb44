"""The sandbox Tardis: datasets, metadata and the signed bucket on two loopback ports, with control.

>>> with serve(Options()) as server:
...     server.stats()["total"]["requests"]
0

Not here: the raw feed and the live applications.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import SpecError
from runner.sandbox.access import Access, Egress
from runner.sandbox.api import Api
from runner.sandbox.catalogue import Catalogue
from runner.sandbox.clock import Clock
from runner.sandbox.datasets import Bucket, Datasets, DayPath
from runner.sandbox.generate import Generated, read_spec
from runner.sandbox.replies import Reply, Request, refusal
from runner.sandbox.running import Running
from runner.sandbox.server import App, Control

_REDIRECTED = 302
_OK = 200


@dataclass(frozen=True, slots=True)
class Options:
    """What a sandbox Tardis serves, and how.

    `data` holds `{exchange}/{data_type}/{YYYY}/{MM}/{DD}/{SYMBOL}.csv.gz` and optionally `exchanges/{exchange}.json`.
    `generate` is the path of a JSON specification, or its content. Generated days are kept in `cache`, by default in
    a directory that ends with the server. Durations are sandbox seconds, of which `time_factor` pass in a real one.
    `redirect` sends day files from a second origin, `checksums` with x-md5. Port 0 is any free one.
    """

    data: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    bucket_port: int = 0
    key_file: Path | None = None
    generate: Path | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    cache: Path | None = None
    egress: str = ""
    lock_ttl_s: float = 900.0
    time_factor: float = 1.0
    redirect: bool = False
    checksums: bool = True
    signature_ttl_s: float = 300.0


@dataclass(frozen=True, slots=True)
class _Site:
    """Everything that one sandbox answers on its first port."""

    options: Options
    datasets: Datasets
    api: Api
    bucket: Bucket
    bucket_port: int

    def answer(self, request: Request) -> Reply:
        if request.method != "GET":
            return refusal(404, 404, "Not found")
        wanted = DayPath.read(request)
        if wanted is None:
            return self.api.answer(request)
        return self.moved(request) if self.options.redirect else self.datasets.answer(request, wanted)

    def moved(self, request: Request) -> Reply:
        """Return the link to a day file on the second origin instead of the file."""
        wanted = DayPath.read(request)
        reply = self.datasets.answer(request, wanted) if wanted else self.api.answer(request)
        if reply.status != _OK:
            return reply
        host = request.headers.get("host", "").rpartition(":")[0] or self.options.host
        link = f"http://{host}:{self.bucket_port}{self.bucket.sign(request.path, reply)}"
        return Reply(_REDIRECTED, {"Location": link})


class Server(Running):
    """A running sandbox Tardis; it leaves no temporary file either."""

    def __init__(self, options: Options) -> None:
        _check(options)
        clock = Clock(options.time_factor)
        access = Access(options.key_file, options.lock_ttl_s, clock)
        bucket = Bucket(clock, options.signature_ttl_s)
        super().__init__(options.host, Control(clock, on_reset=(access.lock.reset, bucket.reset)))
        egress = Egress.parse(options.egress)
        entries = read_spec(options.generate)
        catalogue = Catalogue(options.data, tuple(entry.offered for entry in entries), clock)
        generated = Generated(entries, options.cache or self._scratch(), self._closed, catalogue.member_files)
        store = self._listen(options.bucket_port, App(self._state, bucket.answer, bucket.label, egress.address))
        datasets, api = Datasets(access, catalogue, generated, options.checksums), Api(access, catalogue, clock)
        site = _Site(options, datasets, api, bucket, store.number)
        self._listen(options.port, App(self._state, site.answer, _path, egress.address, site.moved))
        self._start()

    def _scratch(self) -> Path:
        return Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="runner-sandbox-")))

    @property
    def url(self) -> str:
        """Return the base of day files."""
        return f"{self.origin}/v1"

    @property
    def api_url(self) -> str:
        """Return the base of the metadata."""
        return self.url


def _path(request: Request) -> str:
    return request.path


def _check(options: Options) -> None:
    for name in ("lock_ttl_s", "time_factor", "signature_ttl_s"):
        value = getattr(options, name)
        if not value > 0:
            raise SpecError(f"sandbox: {name.replace('_', '-')} is {value}; give a number above 0")


def serve(options: Options) -> Server:
    """Start a sandbox Tardis and return it running; close it, or use it in a `with`."""
    return Server(options)
