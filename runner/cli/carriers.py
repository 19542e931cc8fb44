"""Who carries a run out: chosen once, by the backend of its spec; the commands know only the protocol."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runner.backends.kubernetes.client import Client
from runner.backends.kubernetes.values import Layer
from runner.cli.given import CLUSTER, Given
from runner.errors import SpecError
from runner.run_record import RunRecord
from runner.runs import Carrier, Cluster, Controlled, Local
from runner.spec import Backend, RunSpec
from runner.store import Store
from runner.task import Stage


class Carriers:
    """The carriers of a store's runs, reached as a command line says. `layers` lie over the chart's values."""

    def __init__(self, store: Store, given: Given, layers: Sequence[Layer] = ()) -> None:
        self._store, self._given, self._layers = store, given, layers
        self._clients: dict[tuple[str | None, str | None, bool], Client] = {}

    def of(self, record: RunRecord) -> Carrier:
        """Return who carries a run out: its record says which backend, and where; or that it is a controller's."""
        if record.request["stage"] == Stage.PIPELINE:
            return Controlled(self._store)
        # The name of its context is that of another kubeconfig, maybe; whether it is the cluster is seen there.
        return self._made(self.spec_of(record), or_current=self._given.flags.get("context") is None)

    def for_spec(self, spec: RunSpec) -> Carrier:
        """Return who carries out runs of this spec."""
        return self._made(spec, or_current=False)

    def _made(self, spec: RunSpec, *, or_current: bool) -> Carrier:
        return self.local() if spec.backend is Backend.LOCAL else self.cluster(spec, or_current=or_current)

    def spec_of(self, record: RunRecord) -> RunSpec:
        """Return the spec that a run began with, in the place that the command line names where it does."""
        said = {key: value for key in CLUSTER if (value := self._given.flags.get(key)) is not None}
        return RunSpec.build({**record.spec, **said}, origins={}, default=f"run {record.id}")

    def same(self, record: RunRecord, spec: RunSpec) -> Carrier:
        """Return who carries out a run that is not ended. Raises SpecError when the spec asks for another backend."""
        began = self.spec_of(record).backend
        if began is not spec.backend:
            raise SpecError(
                f"run {record.id} began on the {began} backend and is not ended: give --backend {began}, "
                f"or end it first: runner cancel {record.id}"
            )
        return self.of(record)

    def local(self) -> Local:
        """Return the runs of this machine; their locks lie in the user's state directory."""
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Local(self._store, Path(home) / "market-data-runner", os.environ)

    def cluster(self, spec: RunSpec, *, or_current: bool = False) -> Cluster:
        """Return the runs of the cluster that a spec names; it is reached when it is first asked."""
        where = (spec.context, spec.namespace, or_current)

        def connect() -> Client:
            if where not in self._clients:
                kubeconfig = self._given.kubeconfig
                self._clients[where] = Client(
                    kubeconfig=kubeconfig, context=where[0], namespace=where[1], or_current=or_current
                )
            return self._clients[where]

        return Cluster(self._store, connect, self._layers)
