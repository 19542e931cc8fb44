"""The source that a spec names."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runner.spec import RunSpec
from runner.tardis.client import Limits, Tardis


def tardis_of(  # noqa: PLR0913 what a worker wants to hear of, by name
    spec: RunSpec,
    key: str | None,
    *,
    stop: threading.Event | None = None,
    on_bytes: Callable[[int], None] | None = None,
    on_parked: Callable[[float], None] | None = None,
    anyone_downloaded: Callable[[float], bool] | None = None,
) -> Tardis:
    """Return a client with the patience that the spec asks for and one worker's part of its connections."""
    t = spec.tardis
    limits = Limits(
        attempts=t.attempts,
        backoff_s=t.backoff_s,
        backoff_max_s=t.backoff_max_s,
        stall_s=t.stall_s,
        min_bytes_per_s=t.min_bytes_per_s,
        min_speed_window_s=t.min_speed_window_s,
        connect_s=t.connect_s,
        refusal_s=t.refusal_s,
        lock_limit_s=t.lock_limit_s,
    )
    return Tardis(
        url=t.url,
        api_url=t.api_url,
        key=key,
        limits=limits,
        stop=stop or threading.Event(),
        connections=max(1, t.connections // spec.parallelism),
        on_bytes=on_bytes,
        on_parked=on_parked,
        anyone_downloaded=anyone_downloaded,
    )
