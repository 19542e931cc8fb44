"""Tardis over HTTP: whole verified day files, or the reason why there is none.

Synchronous; one object serves all threads of a worker. The parts: wire.py one GET, watch.py its patience, answers.py
what a refusal says, retry.py trying again. Here: what counts as success, and what every answer means for a task.
Source: https://docs.tardis.dev (CSV datasets, HTTP API), and measurements of the live service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from runner import logs
from runner.errors import (
    ConfigError,
    DrainedError,
    IntegrityError,
    NotAllowedError,
    RunnerError,
    SourceError,
    TransientError,
)
from runner.tardis.answers import (
    NOT_AVAILABLE,
    NOT_OFFERED,
    Answer,
    GoneError,
    RefusedError,
    ToldToWait,
    raise_for,
    read_answer,
)
from runner.tardis.body import Body, document, objects
from runner.tardis.catalogue import Catalogue, parse_exchange
from runner.tardis.files import DayFile, Fetched, Proof
from runner.tardis.limits import Limits
from runner.tardis.retry import Tries
from runner.tardis.wire import Reply, Wire, clean_key, origin_of
from runner.task import Outcome

__all__ = ["DayFile", "Fetched", "Limits", "Proof", "Tardis"]

T = TypeVar("T")

_SLOT_TICK_S = 0.25
_SHORTEST_SHOWN = 8
_WITHOUT_DATA = {NOT_AVAILABLE: Outcome.NOT_AVAILABLE, NOT_OFFERED: Outcome.NOT_OFFERED}


@dataclass(eq=False)
class Tardis:
    """A connection to Tardis, shared by threads.

    `connections` bodies are in flight at most. From many threads, `on_bytes` is told every received count, `on_parked`
    the seconds of every long wait that the source asks for.
    `anyone_downloaded(seconds)`: whether any worker of the run downloaded something in the last `seconds`; asked only
    when the key has been locked by another address for `limits.lock_limit_s` and this object got nothing.
    """

    url: str
    api_url: str
    key: str | None = field(repr=False)
    limits: Limits
    stop: threading.Event = field(repr=False)
    connections: int
    on_bytes: Callable[[int], None] | None = field(default=None, repr=False)
    on_parked: Callable[[float], None] | None = field(default=None, repr=False)
    anyone_downloaded: Callable[[float], bool] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.key = clean_key(self.key) if self.key is not None else None
        self.url, self.api_url = self.url.rstrip("/"), self.api_url.rstrip("/")
        origin_of(self.url)
        origin_of(self.api_url)
        self._wire = Wire(self.limits, self.stop, self.connections)
        self._slots = threading.BoundedSemaphore(self.connections)
        self._catalogue_lock = threading.Lock()
        self._documents: dict[str, dict[str, Any]] = {}
        self._catalogues: dict[str, Catalogue] = {}
        self._progress_at = time.monotonic()

    def exchanges(self) -> list[dict[str, Any]]:
        """Return `GET /exchanges`: every exchange the source has, as it describes them."""
        return self._retried("/exchanges", lambda: objects(self._json("/exchanges")))

    def exchange(self, exchange: str) -> dict[str, Any]:
        """Return `GET /exchanges/:id`, asked once per object; ConfigError for an exchange that Tardis does not know."""
        path = f"/exchanges/{quote(exchange, safe='')}"
        with self._catalogue_lock:
            if exchange not in self._documents:
                self._documents[exchange] = self._retried(path, lambda: self._described(exchange, path))
            return self._documents[exchange]

    def exported(self, exchange: str, day: date) -> bool:
        """Tell whether the source has exported a day of an exchange, by a catalogue asked for once per object."""
        return self._catalogue(exchange).exported(day)

    def key_info(self) -> list[dict[str, Any]]:
        """Return `GET /api-key-info`: what the key covers. NotAllowedError at once when it is refused or expired."""
        return self._retried("/api-key-info", self._accepted)

    def fetch(self, file: DayFile, consume: Callable[[Iterator[bytes]], T]) -> Fetched[T]:
        """Return a verified day file as `consume` made it, or the proof that there is none.

        `consume` gets the compressed chunks of one attempt, is called anew on each, must exhaust them, and may raise
        IntegrityError to have the file fetched again; its other errors end the fetch. Raises TransientError,
        IntegrityError, SourceError, NotAllowedError, ConfigError, DrainedError: each one line that names the file.
        """
        tries = Tries(str(file), self.limits, self.stop, self._stuck, self.on_parked)
        try:
            fetched = self._settled(file, self._tried(tries, file, consume))
        except TransientError as e:
            raise self._final(str(file), e, tries.attempts) from e
        except (SourceError, NotAllowedError, ConfigError) as e:
            raise type(e)(f"{file}: {self._hidden(str(e))}") from e
        return replace(fetched, attempts=max(tries.attempts, 1))

    def close(self) -> None:
        """Close idle connections; a later request opens new ones."""
        self._wire.close()

    def _tried(self, tries: Tries, file: DayFile, consume: Callable[[Iterator[bytes]], T]) -> Fetched[T]:
        try:
            return tries.run(partial(self._attempt, file, consume))
        except GoneError as e:
            # a day that is not exported yet is pending, whatever is answered
            if e.answer.status != HTTPStatus.NOT_FOUND or self._catalogue(file.exchange).exported(file.day):
                raise
            return _without_data(Outcome.PENDING, e.answer)

    def _attempt(self, file: DayFile, consume: Callable[[Iterator[bytes]], T]) -> Fetched[T]:
        with self._slot(), closing(self._wire.get(self.url + file.path, self.key)) as reply:
            if reply.status == HTTPStatus.OK:
                return self._received(file, reply, consume)
            answer = self._answer(reply)
        # outside the slot: what follows may ask the API
        outcome = _WITHOUT_DATA.get(answer.code or 0) if answer.status == HTTPStatus.BAD_REQUEST else None
        if outcome is not None:
            return _without_data(outcome, answer)
        try:
            return raise_for(answer, lock_wait_s=self.limits.backoff_max_s)
        except RefusedError as e:
            return self._refused(file, answer, e)

    def _received(self, file: DayFile, reply: Reply, consume: Callable[[Iterator[bytes]], T]) -> Fetched[T]:
        body = Body(reply, self._count)
        value = consume(body.chunks)
        body.finish()
        if not reply.framed and reply.md5 is None:
            self._confirm(file, body)
        return Fetched(Outcome.DONE, value, body.md5, body.size)

    def _confirm(self, file: DayFile, first: Body) -> None:
        """Fetch again what came without any sign of its end, and see that it is the same."""
        with closing(self._wire.get(self.url + file.path, self.key)) as reply:
            if reply.status != HTTPStatus.OK:
                raise TransientError(f"no sign of the body's end, and the second fetch got {self._answer(reply)}")
            second = Body(reply, self._count)
            second.finish(drain=True)
        if (first.md5, first.size) != (second.md5, second.size):
            raise TransientError(
                f"no sign of the body's end, and two fetches differ: {first.size}, {second.size} bytes"
            )

    def _refused(self, file: DayFile, answer: Answer, refusal: RefusedError) -> NoReturn:
        if self.key is None:
            free = "without a key only the first day of a month is served; set TARDIS_API_KEY"
            raise NotAllowedError(f"{answer}; {free}") from refusal
        cover = [entry for entry in self._probe() if entry.get("exchange") == file.exchange]
        ranges = ", ".join(f"{_day(entry, 'from')} to {_day(entry, 'to')}" for entry in cover) or "nothing"
        why = f"; the key works and covers {ranges} of {file.exchange}"
        if any(_day(entry, "from") <= str(file.day) <= _day(entry, "to") for entry in cover):
            raise GoneError(answer, why)
        raise SourceError(f"{answer}{why}; take a day inside, or another plan") from refusal

    def _probe(self) -> list[dict[str, Any]]:
        info = objects(self._json("/api-key-info", self.key))
        if not info:
            raise RefusedError("the key has expired: api-key-info lists nothing")
        return info

    def _accepted(self) -> list[dict[str, Any]]:
        try:
            return self._probe()
        except RefusedError as e:
            raise NotAllowedError(f"{e}; set a valid TARDIS_API_KEY") from e

    def _described(self, exchange: str, path: str) -> dict[str, Any]:
        found = objects([self._json(path)])[0]
        if (name := found.get("id")) != exchange:
            raise IntegrityError(f"the catalogue of {exchange} was asked for, and that of {name!r:.40} came")
        return found

    def _json(self, path: str, key: str | None = None) -> Any:
        with closing(self._wire.get(self.api_url + path, key)) as reply:
            if reply.status == HTTPStatus.OK:
                return document(reply)
            answer = self._answer(reply)
        return raise_for(answer, lock_wait_s=self.limits.backoff_max_s)

    def _retried(self, what: str, attempt: Callable[[], T]) -> T:
        tries = Tries(what, self.limits, self.stop, self._stuck, self.on_parked)
        try:
            return tries.run(attempt)
        except TransientError as e:
            raise self._final(what, e, tries.attempts) from e
        except (SourceError, NotAllowedError, ConfigError) as e:
            raise type(e)(f"{what}: {self._hidden(str(e))}") from e

    def _final(self, what: str, error: TransientError, attempts: int) -> RunnerError:
        """Return the error that ends a request whose attempts all failed, the last one with `error`."""
        said = self._hidden(str(error))
        tried = f"{what}: {said} (attempts: {attempts})"
        if isinstance(error, ToldToWait):
            limit = f"{what}: {said}; nothing downloaded for {self.limits.lock_limit_s:g} s"
            if error.locked:
                return NotAllowedError(f"{limit}: egress must be one address for all users of this key")
            return TransientError(f"{limit}: a quota is used up, or the source is down; retry later")
        if isinstance(error, RefusedError):
            since = f"refused for {self.limits.refusal_s:g} s, by api-key-info too"
            return NotAllowedError(f"{what}: {said}; {since}: set a valid TARDIS_API_KEY")
        if isinstance(error, GoneError):
            return SourceError(f"{tried}; look it up in the catalogue, ask the vendor, or retry later")
        if isinstance(error, IntegrityError):
            return IntegrityError(f"{tried}; the source serves it damaged: retry later, or report it")
        return TransientError(f"{tried}; check the network and the source, then retry")

    def _settled(self, file: DayFile, fetched: Fetched[T]) -> Fetched[T]:
        if fetched.proof is None or fetched.outcome is Outcome.PENDING:
            return fetched
        catalogue = self._catalogue(file.exchange)
        if not catalogue.exported(file.day):
            return replace(fetched, outcome=Outcome.PENDING)
        disagrees = catalogue.offers(file.symbol, file.data_type, file.day)
        return replace(fetched, proof=replace(fetched.proof, catalogue_disagrees=disagrees))

    def _catalogue(self, exchange: str) -> Catalogue:
        if exchange not in self._catalogues:
            self._catalogues[exchange] = parse_exchange(self.exchange(exchange))
        return self._catalogues[exchange]

    def _stuck(self, since: float) -> bool:
        limit_s = self.limits.lock_limit_s
        if time.monotonic() - max(since, self._progress_at) < limit_s:
            return False
        return self.anyone_downloaded is None or not self.anyone_downloaded(limit_s)

    def _count(self, received: int) -> None:
        self._progress_at = time.monotonic()
        if self.on_bytes is not None:
            self.on_bytes(received)

    def _answer(self, reply: Reply) -> Answer:
        return read_answer(reply.status, reply.headers, self._hidden(reply.text()))

    def _hidden(self, text: str) -> str:
        """Return a text of the source's without the key, which a server may repeat and an excerpt cut in two."""
        key = self.key or ""
        for length in range(len(key), max(_SHORTEST_SHOWN, len(key) // 2), -1):
            text = text.replace(key[:length], logs.HIDDEN)
        return logs.redact(text.replace(key, logs.HIDDEN) if key else text)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        while not self._slots.acquire(timeout=_SLOT_TICK_S):
            if self.stop.is_set():
                raise DrainedError("told to stop while waiting for a connection")
        try:
            yield
        finally:
            self._slots.release()


def _without_data(outcome: Outcome, answer: Answer) -> Fetched[Any]:
    return Fetched(outcome, proof=Proof(answer.status, answer.code, answer.message))


def _day(entry: dict[str, Any], name: str) -> str:
    return str(entry.get(name))[:10]
