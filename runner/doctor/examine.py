"""All checks, in the order in which one mends what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runner.backends.kubernetes.client import Client
from runner.backends.kubernetes.values import Layer
from runner.doctor import clock, cluster, pods, source, store
from runner.doctor.check import Check, Verdict, fail, unknown
from runner.doctor.clock import Reading
from runner.errors import RunnerError
from runner.spec import Backend, RunSpec


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: a request's settings, what lies over the chart's values, the ways to its cluster and key."""

    spec: RunSpec
    layers: Sequence[Layer]
    connect: Callable[[], Client]
    read_key: Callable[[], str | None]


def examine(patient: Patient) -> Iterator[Check]:
    """Yield every check that makes sense for these settings: of a cluster only where one is to carry runs out.

    Writes one small object to the store and deletes it. A key is used from here only where runs are carried out here:
    the source lets one address use it for a while.
    """
    readings: list[Reading] = []
    if patient.spec.backend is Backend.KUBERNETES:
        yield from _cluster(patient, readings)
    yield from store.examine(patient.spec.store, readings)
    yield from source.examine(patient.spec, patient.read_key, readings)
    yield clock.judged(readings)


def _cluster(patient: Patient, readings: list[Reading]) -> Iterator[Check]:
    names = iter((*cluster.NAMES[1:], *pods.NAMES))
    try:
        client = patient.connect()
    except RunnerError as e:
        install = "pip install 'market-data-runner[kubernetes]'"
        yield fail(cluster.NAMES[0], str(e), install if install in str(e) else "kubectl config get-contexts")
        client = None
    if client is not None:
        checks = list(cluster.examine(client, readings))
        yield from checks
        if checks[0].verdict is not Verdict.FAIL:
            yield from pods.examine(client, patient.spec, patient.layers)
            return
        names = iter(pods.NAMES)
    for name in names:
        yield unknown(name, "the cluster does not answer", "runner doctor")
