"""What holds for every test: property tests judge results, not how fast a busy machine makes examples.

A shell starts what runs in its background with SIGINT ignored, and so would be every process that a test starts there.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("gate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")
