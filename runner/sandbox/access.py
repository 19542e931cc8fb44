"""Who may read: keys with their plan, the one-address lock of a key, and which clients share an address.

Key file: one key a line, `key [from] [to] [expires]`; `from` (inclusive) and `to` (exclusive) are the days that the
key's plan covers, `expires` the day on which it stops working; `-` leaves one open, `#` starts a comment.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from runner.errors import SpecError
from runner.sandbox.clock import Clock
from runner.sandbox.replies import Reply, Request, refusal

_EVERYBODY = "all"
# The real code of a 401 is not recorded anywhere; clients must go by the status.
_UNAUTHORIZED = 401
_LOCKED = 274


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its plan: days [starts, ends), until the instant `expires`; None is open."""

    text: str
    starts: date | None = None
    ends: date | None = None
    expires: datetime | None = None

    def covers(self, day: date) -> bool:
        """Say whether the plan includes a day."""
        return (self.starts is None or day >= self.starts) and (self.ends is None or day < self.ends)

    def is_expired(self, now: datetime) -> bool:
        """Say whether the key has stopped working."""
        return self.expires is not None and now >= self.expires


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys of a key file; raise SpecError with the line that cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise SpecError(f"key file {path}: {error.strerror}; give a readable file with one key a line") from error
    keys = (_read_key(path, number, line.split("#")[0].split()) for number, line in enumerate(lines, 1))
    return {key.text: key for key in keys if key}


def _read_key(path: Path, number: int, words: list[str]) -> Key | None:
    if not words:
        return None
    try:
        starts, ends, expires = (
            None if word == "-" else date.fromisoformat(word)
            for word in (words[1:] + ["-"] * 3)[: max(3, len(words) - 1)]
        )
    except ValueError as error:
        raise SpecError(
            f"key file {path} line {number}: not `key [from] [to] [expires]` with dates; mend it"
        ) from error
    return Key(words[0], starts, ends, _midnight(expires) if expires else None)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Egress:
    """Which client networks count as one address; without any, all real clients are one."""

    networks: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Egress:
        """Read `10.244.0.0/16=a,10.245.0.0/16=b`; raise SpecError otherwise."""
        pairs = [item.partition("=") for item in text.replace(",", " ").split()]
        try:
            return cls(tuple((ipaddress.ip_network(network), name or network) for network, _, name in pairs))
        except ValueError as error:
            raise SpecError(f"egress {text!r}: {error}; write networks as 10.244.0.0/16=a,10.245.0.0/16=b") from error

    def address(self, peer: str, claimed: str | None) -> str:
        """Return the address that the source sees of a client, `claimed` being its X-Fake-Client-IP header.

        Without networks every real client is one address, and a claimed one stands for itself.
        """
        if not self.networks:
            return claimed or _EVERYBODY
        seen = claimed or peer
        try:
            ip = ipaddress.ip_address(seen)
        except ValueError:
            return seen
        return next((name for network, name in self.networks if ip in network), seen)


class KeyLock:
    """One key, one address at a time: a key stays with the address that used it last for `ttl_s` sandbox seconds."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl = timedelta(seconds=ttl_s)
        self._mutex = threading.Lock()
        self._holders: dict[str, tuple[str, datetime]] = {}

    def claim(self, key: str, address: str, now: datetime) -> float:
        """Take or refresh the lock and return 0, or return the seconds for which another address still holds it."""
        with self._mutex:
            holder, used = self._holders.get(key, (address, now))
            # A clock set back must not lengthen the lock.
            remaining = (self._ttl - max(now - used, timedelta())).total_seconds()
            if holder != address and remaining > 0:
                return remaining
            self._holders[key] = (address, now)
            return 0.0

    def reset(self) -> None:
        """Forget who holds what."""
        with self._mutex:
            self._holders.clear()


class Access:
    """Authentication of both applications."""

    def __init__(self, key_file: Path | None, lock_ttl_s: float, clock: Clock) -> None:
        self._key_file = key_file
        self._clock = clock
        self.lock = KeyLock(lock_ttl_s)
        self._keys()

    def _keys(self) -> Mapping[str, Key] | None:
        # Read anew for every request, so that a key can be revoked under a running client.
        return None if self._key_file is None else read_keys(self._key_file)

    def key(self, request: Request) -> Key | Reply:
        """Return the key of a request, or the 401 that refuses it. Without a key file any key is good."""
        if request.key is None:
            return refusal(401, _UNAUTHORIZED, "Unauthorized. Missing API key: provide an Authorization: Bearer header")
        keys = self._keys()
        if keys is None:
            return Key(request.key)
        return keys.get(request.key) or refusal(401, _UNAUTHORIZED, "Unauthorized. Invalid API key provided")

    def refuse(self, request: Request, day: date) -> Reply | None:
        """Return why a day file is refused, None when it may be read; the first day of a month is free."""
        is_free = day.day == 1
        if is_free and request.key is None:
            return None
        key, now = self.key(request), self._clock.now()
        if isinstance(key, Reply):
            return key
        if key.is_expired(now):
            return refusal(401, _UNAUTHORIZED, "Unauthorized. API key has expired")
        if is_free:
            return None
        if not key.covers(day):
            return refusal(401, _UNAUTHORIZED, f"Unauthorized. API key does not include access to {day} data")
        return self._refuse_address(key, request.address, now)

    def _refuse_address(self, key: Key, address: str, now: datetime) -> Reply | None:
        remaining_s = self.lock.claim(key.text, address, now)
        if not remaining_s:
            return None
        # Told in real seconds, so that a client that obeys a fast clock waits as long as it must and no longer.
        wait_s = math.ceil(remaining_s / self._clock.factor)
        message = (
            "This Data API key is already active from another IP address. A Data API key can be used from a single "
            f"IP address at the same time. Please retry in {wait_s} seconds."
        )
        return refusal(403, _LOCKED, message, retryAfterSeconds=wait_s)
