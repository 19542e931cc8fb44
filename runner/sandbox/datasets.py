"""The datasets application: `GET /v1/{exchange}/{data type}/{YYYY}/{MM}/{DD}/{SYMBOL}.csv.gz` and its signed bucket.

Checks come in the source's order: date, key, exchange, symbol, data type, availability, file.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from runner.sandbox.access import Access
from runner.sandbox.catalogue import Catalogue, Offered, known_exchanges, read_day, text
from runner.sandbox.clock import Clock
from runner.sandbox.replies import EMPTY_GZIP, Content, Reply, Request, csv_file, csv_reply, not_found, refusal

_SUFFIX = ".csv.gz"
_BAD_PARAM = 100
_NOT_AVAILABLE = 140
_NOT_OFFERED = 300
_BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class DayPath:
    """The path of a day file, taken apart; `day` is None when it is no date."""

    exchange: str
    data_type: str
    day: date | None
    symbol: str

    @classmethod
    def read(cls, request: Request) -> DayPath | None:
        """Return the day file that a request names, None when its path is not one."""
        match request.parts:
            case ("v1", exchange, data_type, year, month, day, name) if name.endswith(_SUFFIX):
                return cls(exchange, data_type, read_day(year, month, day), name.removesuffix(_SUFFIX))
        return None


class DayFiles(Protocol):
    """Generated days."""

    def path(self, exchange: str, data_type: str, day: date, symbol: str) -> Path | None:
        """Return the file of a generated day, None when this day is not generated."""


@dataclass(frozen=True, slots=True)
class Datasets:
    """Day files; not every plan of the source has `checksums` (x-md5) with them."""

    access: Access
    catalogue: Catalogue
    generated: DayFiles
    checksums: bool = True

    def answer(self, request: Request, wanted: DayPath) -> Reply:
        """Answer a request for a day file."""
        if wanted.day is None:
            message = "Invalid date in the path. Please use YYYY/MM/DD, a date in ISO 8601 format with slashes"
            return refusal(400, _BAD_PARAM, message)
        return (
            self.access.refuse(request, wanted.day)
            or self._refuse_names(wanted)
            or self._file(wanted.exchange, wanted.data_type, wanted.day, self._listed(wanted))
        )

    def _listed(self, wanted: DayPath) -> str:
        """Return the symbol as catalogue and directory write it."""
        return self.catalogue.offered(wanted.exchange)[wanted.symbol].symbol

    def _refuse_names(self, wanted: DayPath) -> Reply | None:
        refused = bad_exchange(wanted.exchange, self.catalogue.exchanges())
        if refused:
            return refused
        offered = self.catalogue.offered(wanted.exchange).get(wanted.symbol)
        if offered is None:
            return refusal(400, _NOT_OFFERED, f"Invalid 'symbol' param provided: '{wanted.symbol}'")
        if wanted.data_type not in offered.data_types:
            message = f"Data type '{wanted.data_type}' is not supported for '{wanted.symbol}'"
            return refusal(400, _NOT_OFFERED, message)
        return _refuse_day(wanted, offered)

    def _file(self, exchange: str, data_type: str, day: date, symbol: str) -> Reply:
        path = self.catalogue.file(exchange, data_type, day, symbol)
        path = path or self.generated.path(exchange, data_type, day, symbol)
        if path is None and self.catalogue.has_hole(exchange, data_type, day, symbol):
            return not_found()
        reply = csv_reply(Content(EMPTY_GZIP)) if path is None else csv_file(path)
        return reply if self.checksums else replace(reply, headers={"Content-Type": reply.headers["Content-Type"]})


def _refuse_day(wanted: DayPath, offered: Offered) -> Reply | None:
    """Compare whole days: the day on which a symbol begins or ends counts as a whole one."""
    if wanted.day is None or (offered.since.date() <= wanted.day and _midnight(wanted.day) < offered.until):
        return None
    what = f"Requested dataset is not available for '{wanted.symbol}' '{wanted.data_type}' on {wanted.day}"
    if wanted.day < offered.since.date():
        return refusal(400, _NOT_AVAILABLE, f"{what}: available only since {text(offered.since.date())}")
    return refusal(400, _NOT_AVAILABLE, f"{what}: available only up to {offered.until:%Y-%m-%dT%H:%M:%S.000Z}")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def bad_exchange(exchange: str, here: list[str]) -> Reply | None:
    """Return the 400 for an exchange that this sandbox has nothing of."""
    if exchange in here:
        return None
    allowed = here or known_exchanges()
    close = get_close_matches(exchange, allowed, n=1, cutoff=0.0)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    message = f"Invalid 'exchange' param provided: '{exchange}'.{hint} Allowed values: {', '.join(allowed)}"
    return refusal(400, _BAD_PARAM, message)


class Bucket:
    """The second origin: signed links to day files, refused with a header Authorization or after their time."""

    def __init__(self, clock: Clock, ttl_s: float) -> None:
        self._clock = clock
        self._ttl = timedelta(seconds=ttl_s)
        self._mutex = threading.Lock()
        self._links: dict[str, tuple[str, Reply, datetime]] = {}

    def sign(self, path: str, reply: Reply) -> str:
        """Return the path of a link to what `reply` holds."""
        signature = secrets.token_hex(16)
        with self._mutex:
            self._links[signature] = (path, reply, self._clock.now() + self._ttl)
        return f"/{_BUCKET}/{signature}"

    def reset(self) -> None:
        """Forget every link."""
        with self._mutex:
            self._links.clear()

    def label(self, request: Request) -> str:
        """Return the path under which a signed request is counted: `/bucket` and the path of the day file."""
        path, _, _ = self._links.get(request.parts[-1], (request.path.removeprefix(f"/{_BUCKET}"), None, None))
        return f"/{_BUCKET}{path}"

    def answer(self, request: Request) -> Reply:
        """Answer a request on the second origin."""
        found = self._links.get(request.parts[-1]) if request.parts[0] == _BUCKET and len(request.parts) == 2 else None  # noqa: PLR2004 -- /bucket/<sig>
        if "authorization" in request.headers:
            return _refused_by_store(400, "InvalidArgument", "Only one auth mechanism allowed")
        if found is None:
            return _refused_by_store(403, "SignatureDoesNotMatch", "The request signature does not match")
        _, reply, expires = found
        if self._clock.now() >= expires:
            return _refused_by_store(403, "AccessDenied", "Request has expired")
        return reply


def _refused_by_store(status: int, code: str, message: str) -> Reply:
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, {"Content-Type": "application/xml"}, Content(document.encode()))
