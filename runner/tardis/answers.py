"""What an answer other than the file means: pure reading of status, headers and body."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NoReturn

from runner.errors import ConfigError, SourceError, TransientError

INVALID_EXCHANGE = 100
NOT_AVAILABLE = 140
LOCKED = 274
NOT_OFFERED = 300
_LONGEST_WAIT_S = 86_400.0
_MESSAGE_CHARS = 300
# a page of an object store may show the signature further down
_PAGE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal in Tardis's words; `code` is None when the body is not its JSON. `wait_s`: how long it says to wait."""

    status: int
    code: int | None
    message: str
    wait_s: float | None = None

    def __str__(self) -> str:
        code = f"/{self.code}" if self.code is not None else ""
        return f"{self.status}{code} {self.message}".rstrip()


class ToldToWait(TransientError):  # noqa: N818  not an error of anybody: a date to come back
    """The source said when to come back: not a failure of this file."""

    def __init__(self, answer: Answer, wait_s: float) -> None:
        super().__init__(f"told to wait {wait_s:g} s: {answer}")
        self.wait_s = wait_s
        self.locked = answer.code == LOCKED


class RefusedError(TransientError):
    """The key was refused: believed once it has lasted, and the probe is refused too."""


class GoneError(TransientError):
    """No such file, or refused though the key covers it: believed once it was asked for often enough."""

    def __init__(self, answer: Answer, why: str = "") -> None:
        super().__init__(f"{answer}{why}")
        self.answer = answer


def read_answer(status: int, headers: Mapping[str, str], body: str) -> Answer:
    """Return what an answer says. JSON bodies have `code`, `message`, `retryAfterSeconds`; others are shown cut."""
    try:
        doc = json.loads(body)
    except (ValueError, RecursionError):
        doc = None
    if not isinstance(doc, dict):
        return Answer(status, None, _one_line(body)[:_PAGE_CHARS], _retry_after(headers))
    code = doc.get("code")
    told = doc.get("retryAfterSeconds")
    wait_s = _seconds(told) if isinstance(told, int | float | str) else None
    return Answer(
        status,
        code if isinstance(code, int) else -1,
        _one_line(str(doc.get("message", "")))[:_MESSAGE_CHARS],
        wait_s if wait_s is not None else _retry_after(headers),
    )


def raise_for(answer: Answer, *, lock_wait_s: float) -> NoReturn:
    """Raise what an answer without data means; `lock_wait_s` where a locked key is not told how long to wait."""
    if answer.code == LOCKED:
        raise ToldToWait(answer, answer.wait_s or lock_wait_s)
    if answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) and answer.wait_s is not None:
        raise ToldToWait(answer, answer.wait_s)
    # a vendor's firewall also answers 403, with a page instead of JSON
    if answer.status == HTTPStatus.UNAUTHORIZED or (answer.status == HTTPStatus.FORBIDDEN and answer.code is not None):
        raise RefusedError(str(answer))
    if answer.status == HTTPStatus.NOT_FOUND:
        raise GoneError(answer)
    if answer.status == HTTPStatus.BAD_REQUEST and answer.code == INVALID_EXCHANGE:
        raise ConfigError(f"{answer}")
    # both official clients take this one for a passing trouble
    if answer.status == HTTPStatus.BAD_REQUEST and answer.code is not None and "ISO 8601" not in answer.message:
        raise SourceError(f"{answer}")
    raise TransientError(str(answer))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _seconds(value: float | str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return min(seconds, _LONGEST_WAIT_S) if math.isfinite(seconds) and seconds > 0 else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    # RFC 9110 10.2.3: whole seconds, or a date; the answer's own Date makes a date immune to our clock
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    return _seconds((until - (_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
