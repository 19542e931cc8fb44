"""`runner worker`: one shard, told by its environment what to do."""

from __future__ import annotations

import os

from runner import worker as shard


def worker() -> int:
    """Do one shard of a run. Its environment says which: RUNNER_RUN, RUNNER_SPEC, JOB_COMPLETION_INDEX."""
    return shard.main(os.environ)
