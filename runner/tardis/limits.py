"""How patient the client is with Tardis. Values come from the run specification; here stand only their meanings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Patience with the source: counts, seconds, bytes.

    attempts             failed attempts before one file is given up (waits that the source asked for are not failures)
    backoff_s            first pause between attempts; doubles up to `backoff_max_s`, with jitter
    stall_s              longest silence of a connection; also the longest time until the head of an answer is there
    min_bytes_per_s      slowest body accepted, on average over any `min_speed_window_s` of waiting; 0 accepts all
    connect_s            longest time to connect
    refusal_s            how long a key must stay refused before the refusal is believed
    lock_limit_s         how long "active from another address" may last while nothing is downloaded at all
    """

    attempts: int
    backoff_s: float
    backoff_max_s: float
    stall_s: float
    min_bytes_per_s: float
    min_speed_window_s: float
    connect_s: float = 10.0
    refusal_s: float = 60.0
    lock_limit_s: float = 2700.0
