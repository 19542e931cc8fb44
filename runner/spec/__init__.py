"""RunSpec and configuration: what a run is asked to do, where each value came from. The only defaults."""

from runner.spec.model import Backend, RetrySpec, RunSpec, Selection, TardisSpec
from runner.spec.resolve import Resolved, resolve, tardis_key

__all__ = ["Backend", "Resolved", "RetrySpec", "RunSpec", "Selection", "TardisSpec", "resolve", "tardis_key"]
