"""The source: whether its catalogue answers, what our key covers, and whether another address holds that key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

from runner.doctor.check import Check, fail, ok, unknown, warn
from runner.doctor.clock import Asked, Reading
from runner.errors import NotAllowedError, RunnerError, SpecError, TransientError
from runner.market.symbols import exchange_of
from runner.spec import Backend, RunSpec
from runner.tardis.answers import LOCKED, read_answer
from runner.tardis.catalogue import Catalogue, parse_exchange
from runner.tardis.client import Limits, Tardis
from runner.tardis.files import DayFile
from runner.tardis.wire import Wire

NAMES = ("source", "key", "egress")
_SET_KEY = "put a valid key into a file, then: export TARDIS_API_KEY_FILE=FILE"
_AGAIN = "look at the network and at --tardis-url and --tardis-api-url, then runner doctor again"


def examine(spec: RunSpec, read_key: Callable[[], str | None], readings: list[Reading]) -> Iterator[Check]:
    """Yield the checks of source and key and, where runs are carried out here, of the address that we come from.

    What the source's clock says is added to `readings`.
    """
    try:
        key, fault = read_key(), ""
    except SpecError as e:
        key, fault = None, str(e)
    limits, stop = _limits(spec), threading.Event()
    with closing(Tardis(spec.tardis.url, spec.tardis.api_url, key, limits, stop, 1)) as tardis:
        wire = Wire(limits, stop, 1)
        try:
            catalogue, found = _source(spec, tardis, wire, readings)
            yield found
            cover, found = _key(spec, tardis, fault)
            yield found
            if spec.backend is Backend.LOCAL:
                unread = unknown("egress", "the key cannot be read", _SET_KEY)
                yield unread if fault else _egress(tardis, wire, catalogue, cover)
        finally:
            wire.close()


def _limits(spec: RunSpec) -> Limits:
    """Return less patience than a run has: somebody waits for this."""
    return Limits(
        attempts=2,
        backoff_s=min(1.0, spec.tardis.backoff_s),
        backoff_max_s=1.0,
        stall_s=min(15.0, spec.tardis.stall_s),
        min_bytes_per_s=0,
        min_speed_window_s=spec.tardis.min_speed_window_s,
        connect_s=min(5.0, spec.tardis.connect_s),
        refusal_s=0.0,
        lock_limit_s=0.0,
    )


def _source(spec: RunSpec, tardis: Tardis, wire: Wire, readings: list[Reading]) -> tuple[Catalogue | None, Check]:
    exchange = exchange_of(spec.venues[0])
    try:
        asked = Asked.now()
        # Small, whatever it answers to no key.
        with closing(wire.get(f"{tardis.api_url}/api-key-info", None)) as reply:
            if reading := asked.header("the source", reply.headers.get("Date", "")):
                readings.append(reading)
        catalogue = parse_exchange(tardis.exchange(exchange))
    except RunnerError as e:
        return None, fail("source", str(e), _AGAIN)
    last = catalogue.exported_days_until - timedelta(days=1)
    return catalogue, ok("source", f"{spec.tardis.api_url} answers; {exchange} is exported up to {last}")


def _key(spec: RunSpec, tardis: Tardis, fault: str) -> tuple[Sequence[Mapping[str, Any]], Check]:
    if fault:
        return (), fail("key", fault, _SET_KEY)
    if tardis.key is None and spec.backend is Backend.KUBERNETES:
        see = "export TARDIS_API_KEY_FILE=FILE, with the key of the Secret, then runner doctor again"
        return (), unknown("key", "none is set here; whether that of the Secret works is seen with it alone", see)
    if tardis.key is None:
        return (), warn("key", "none is set, so only the first days of months can be had", _SET_KEY)
    try:
        cover = tardis.key_info()
    except NotAllowedError as e:
        return (), fail("key", str(e), _SET_KEY)
    except RunnerError as e:
        return (), unknown("key", str(e), _AGAIN)
    return cover, _covered(spec, cover)


def _covered(spec: RunSpec, cover: Sequence[Mapping[str, Any]]) -> Check:
    until = {str(each.get("exchange")): str(each.get("to"))[:10] for each in cover}
    lacking = [venue for venue in spec.venues if exchange_of(venue) not in until]
    plan = "ask the vendor for another plan, or name fewer with --venues"
    if lacking:
        return warn("key", f"valid, yet it does not cover {', '.join(lacking)}", plan)
    ends = min(until[exchange_of(venue)] for venue in spec.venues)
    begins = max(str(each.get("from"))[:10] for each in cover if str(each.get("exchange")) in until)
    span = f"days from {begins} to {ends} of every venue asked for"
    if ends < str(datetime.now(UTC).date()):
        return warn("key", f"valid, yet it covers no new days: {span}", plan)
    return ok("key", f"valid; covers {span}")


def _egress(tardis: Tardis, wire: Wire, catalogue: Catalogue | None, cover: Sequence[Mapping[str, Any]]) -> Check:
    if tardis.key is None:
        return ok("egress", "without a key it does not matter which address we come from")
    file = _any_file(catalogue, cover)
    if file is None:
        return unknown("egress", "no file is known that this key may have, to ask for it", "runner doctor")
    try:
        with closing(wire.get(tardis.url + file.path, tardis.key)) as reply:
            if reply.status == HTTPStatus.OK:
                return ok("egress", "the key may be used from this address")
            answer = read_answer(reply.status, reply.headers, reply.text().replace(tardis.key, "***"))
    except TransientError as e:
        return unknown("egress", f"{file}: {e}", _AGAIN)
    if answer.code == LOCKED:
        mend = "let what runs there end, or have it and this machine leave by one address (a NAT)"
        return fail("egress", f"another address holds the key for {answer.wait_s or 0:.0f} s more, and we wait", mend)
    return unknown("egress", f"{file}: {answer}", "runner doctor")


def _any_file(catalogue: Catalogue | None, cover: Sequence[Mapping[str, Any]]) -> DayFile | None:
    """Return a file that a key is needed for and that it covers, as new as can be."""
    for entry in cover:
        if catalogue is None or entry.get("exchange") != catalogue.exchange:
            continue
        last = min(catalogue.exported_days_until - timedelta(days=1), _day(entry.get("to")))
        for day in (last - timedelta(days=back) for back in range(2)):
            for symbol in catalogue.symbols:
                # The first day of a month is free, so it tells nothing.
                if day.day != 1 and symbol.offered_on(day) and symbol.data_types:
                    return DayFile(catalogue.exchange, symbol.data_types[0], day, symbol.id)
    return None


def _day(text: object) -> date:
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return date.max
