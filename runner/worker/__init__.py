"""One shard: environment → run → plan rows → stage over each task → ledger → exit code.

The same worker runs as a local process and as a pod; only its environment tells it what to do.
"""

from runner.worker.main import main

__all__ = ["main"]
