"""The same pipeline where each step's run is a Job: a small API server, and a stand-in for the cluster's own work."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from runner import run_record, runs
from runner.backends.kubernetes.client import Client
from runner.errors import DrainedError
from runner.pipeline import DayEnd, Means, Source, Terms, Verdict, days_of, run_days
from runner.runs import Cluster
from runner.spec import Backend, RunSpec
from tests.unit.backends.kubernetes import api as double
from tests.unit.conftest import World, client_of
from tests.unit.pipeline.conftest import Mornings


@contextmanager
def kubelet(api: double.Api, world: World, done: Counter[str]) -> Iterator[None]:
    """Do the shards of every Job that appears, once, and say that it is complete."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            for name, job in list(api.objects["jobs"].items()):
                if "status" not in job:
                    record = run_record.get_run(world.store, name)
                    spec = RunSpec.build(record.spec, origins={}, default=name)
                    world.tardis = client_of(world.server)
                    for shard in range(record.shards):
                        world.shard(record, spec, shard).run()
                    done[name] += 1
                    over = {"type": "Complete", "status": "True"}
                    indexes = f"0-{record.shards - 1}" if record.shards > 1 else "0"
                    api.put("jobs", {**job, "status": {"conditions": [over], "completedIndexes": indexes}})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def api() -> Iterator[double.Api]:
    with double.serve() as server:
        yield server


def test_what_a_day_on_a_cluster_lacks_is_mended_there(mornings: Mornings, api: double.Api, tmp_path: Path) -> None:
    mornings.clock("2024-08-02T12:00:00+00:00")
    world, client = mornings.world, Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}))
    cluster = Cluster(world.store, lambda: client, pause_s=0.01)
    where = {"backend": Backend.KUBERNETES, "namespace": "market", "context": "here", "image": "runner:test"}
    mornings.asked = where
    means = replace(mornings.means(), carrier_of=lambda *_: cluster)
    (end,) = run_days(means, mornings.spec, Terms(0.0, 0.01), [date(2024, 8, 2)])
    assert end.verdict is Verdict.PENDING
    (lack,) = end.lacks
    assert lack.command.endswith("--backend kubernetes --namespace market --context here --image runner:test")


def test_steps_are_jobs_that_go_on_without_their_controller(
    mornings: Mornings, api: double.Api, tmp_path: Path
) -> None:
    world, done = mornings.world, mornings.done
    client = Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}))
    mounted = {"pod": {"volumeMounts": [{"name": "s", "mountPath": f"{tmp_path}/store"}], "volumes": [{"name": "s"}]}}
    cluster = Cluster(world.store, lambda: client, [mounted], pause_s=0.01)
    spec = cluster.placed(world.spec(start_date=None, backend=Backend.KUBERNETES, image="runner:test"))

    def pipeline(stop: bool) -> list[DayEnd]:  # noqa: FBT001 a test's own
        source = Source(lambda: client_of(world.server))
        told = (lambda: any(name.startswith("download") for name in api.objects["jobs"])) if stop else (lambda: False)
        means = Means(world.store, source, lambda *_: cluster, told, lambda _: lambda _: None)
        days = days_of("2024-08-02", lambda: pytest.fail("no clock"), 1)
        return list(run_days(means, spec, Terms(0.0, 0.01), days))

    with kubelet(api, world, done):
        with pytest.raises(DrainedError):
            pipeline(stop=True)
        (end,) = pipeline(stop=False)
        again = pipeline(stop=False)

    assert end.verdict is Verdict.COMPLETE
    assert [each.verdict for each in again] == [Verdict.NOTHING]
    assert set(done.values()) == {1}
    assert sorted(name.split("-")[0] for name in done) == [
        "availability",
        "availability",
        "candles",
        "download",
        "instruments",
        "validate",
        "validate",
    ]
    assert all(runs.ending(world.store, name) is not None for name in run_record.run_ids(world.store))
