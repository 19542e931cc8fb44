"""Runs whose Job lives on a cluster: a small API server over a socket, the real store, workers run by hand."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes.config import incluster_config, kube_config

from runner import ledger, run_record, runs
from runner.backends.kubernetes.client import Client
from runner.errors import ConfigError, Exit, NotAllowedError, NotFoundError, SpecError, TransientError
from runner.ledger import Attempt
from runner.runs import Cluster, LogQuery, RunState, Watch, place
from runner.runs.place import Place
from runner.runs.state import CANCELLED, FINISHED, ending
from runner.runs.submit import State, submit
from runner.spec import Backend
from runner.store import ABSENT
from tests.unit.backends.kubernetes import api as double
from tests.unit.backends.kubernetes.api import Fault

ROOT = Path(__file__).resolve().parents[3]
OVER = {"type": "Complete", "status": "True"}


@pytest.fixture
def api() -> Iterator[double.Api]:
    with double.serve() as server:
        server.about["/api/v1/namespaces/market"] = {"metadata": {"name": "market", "uid": "uid-market"}}
        yield server


def mounted(world) -> list[dict]:
    folder = world.store.url.removeprefix("file://")
    return [{"pod": {"volumeMounts": [{"name": "s", "mountPath": folder}], "volumes": [{"name": "s"}]}}]


@pytest.fixture
def cluster(api: double.Api, world, tmp_path: Path) -> Cluster:
    client = Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}))
    return Cluster(world.store, lambda: client, mounted(world), pause_s=0.01)


@pytest.fixture
def spec(world, cluster):
    return cluster.placed(world.spec(backend=Backend.KUBERNETES, image="runner:test"))


@pytest.fixture
def record(world, cluster, spec):
    found = world.submit(spec).record
    assert cluster.start(found, spec)
    return found


def status(api, record, **status) -> None:
    api.put("jobs", {**api.objects["jobs"][record.id], "status": status})


def pod(api, record, shard, phase="Running", *, uid="", code=None):  # noqa: PLR0913 what a pod is
    labels = {
        "batch.kubernetes.io/job-name": record.id,
        "batch.kubernetes.io/job-completion-index": str(shard),
    }
    state = (
        {"running": {}} if code is None else {"terminated": {"exitCode": code, "finishedAt": "2024-08-08T00:00:00Z"}}
    )
    metadata = {
        "name": f"{record.id}-{shard}-{uid or 'a'}",
        "labels": labels,
        "creationTimestamp": "2024-08-08T00:00:00Z",
    }
    if uid:
        metadata["uid"] = uid
    item = {
        "metadata": metadata,
        "spec": {"containers": [{"name": "worker"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "worker", "state": state}]},
    }
    return api.put("pods", item)


def work(world, record, spec, *shards, attempt="") -> list[int]:
    return [int(world.shard(record, spec, shard, attempt=attempt).run()) for shard in shards]


def test_a_run_is_recorded_with_where_it_is_and_its_job_is_made_once(world, api, cluster, spec, record) -> None:
    assert record.spec["namespace"] == "market"
    assert record.spec["context"] == "here"
    job = api.objects["jobs"][record.id]
    assert (job["spec"]["completions"], job["metadata"]["labels"]["runner/run"]) == (2, record.id)
    assert cluster.start(record, spec)
    assert len(api.objects["jobs"]) == 1


def test_no_image_is_said_before_anything_is_recorded(world, api, cluster) -> None:
    with pytest.raises(SpecError, match="--image"):
        cluster.placed(world.spec(backend=Backend.KUBERNETES))
    assert list(run_record.run_ids(world.store)) == []


def test_a_job_of_somebody_else_is_not_taken_for_ours(world, api, cluster, spec) -> None:
    record = world.submit(spec).record
    api.put("jobs", {"metadata": {"name": record.id, "labels": {}}})
    with pytest.raises(ConfigError, match="is not a run of this program"):
        cluster.start(record, spec)


def test_an_answer_that_was_lost_makes_no_second_job(world, api, cluster, spec) -> None:
    record = world.submit(spec).record
    api.faults.append(Fault("POST *", 0, after=True))
    assert cluster.start(record, spec)
    assert api.seen("POST *") == 2
    assert len(api.objects["jobs"]) == 1


def test_a_run_is_followed_to_its_end_which_is_then_in_the_store(world, api, cluster, spec, record) -> None:
    looks = []

    def look(sight) -> None:
        looks.append(sight)
        if len(looks) == 1:
            pod(api, record, 0)
        if sight.at_work == {0} and not api.objects["jobs"][record.id]["status"]:
            assert work(world, record, spec, 0, 1) == [0, 0]
            status(api, record, completedIndexes="0,1", succeeded=2, conditions=[OVER])

    api.put("jobs", {**api.objects["jobs"][record.id], "status": {}})
    assert cluster.carry_out(record, spec, lambda: len(looks) > 200, look) is Exit.DONE
    assert ending(world.store, record.id).exits == {0: 0, 1: 0}
    assert not cluster.settle(record).alive
    seen = api.requests.copy()
    assert not cluster.settle(record).alive
    assert api.requests == seen, "a run that has ended costs the cluster nothing"


def test_whoever_looks_first_writes_the_end_with_the_codes_of_pods_and_ledgers(
    world, api, cluster, spec, record
) -> None:
    world.server.add_faults({"path": "*/trades/2024/08/01/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"})
    codes = work(world, record, spec, 0, 1)
    assert sorted(codes) == [0, 65]
    bad = codes.index(65)
    pod(api, record, bad, "Failed", code=65)
    failed = {"type": "Failed", "status": "True", "reason": "FailedIndexes"}
    status(api, record, completedIndexes=str(1 - bad), failedIndexes=str(bad), conditions=[failed])
    assert not cluster.settle(record).alive
    assert ending(world.store, record.id).exits == {bad: 65, 1 - bad: 0}
    assert runs.verdict(world.store, record) is Exit.INCOMPLETE


def test_a_shard_given_up_without_any_word_is_a_failure_with_a_cause(world, api, cluster, spec, record) -> None:
    work(world, record, spec, 0)
    failed = {"type": "Failed", "status": "True", "reason": "FailedIndexes"}
    status(api, record, completedIndexes="0", failedIndexes="1", conditions=[failed])
    cluster.settle(record)
    found = Watch(world.store, record).status(cluster.settle(record))
    assert found.state is RunState.FAILED
    assert [failure.shard for failure in found.failures] == [1]
    assert "shard 1 was given up" in found.failures[0].error
    assert found.logs.format(shard=1).endswith("job-completion-index=1")


def test_a_refused_key_is_exit_4(world, api, cluster, spec, record) -> None:
    pod(api, record, 0, "Failed", code=77)
    status(api, record, conditions=[{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}])
    cluster.settle(record)
    assert runs.verdict(world.store, record) is Exit.NOT_ALLOWED


def test_a_deleted_job_ends_its_run_and_the_next_submit_is_the_next_pass(world, api, cluster, spec, record) -> None:
    work(world, record, spec, 0)
    api.remove("jobs", record.id)
    found = submit(spec, world.store, world.tardis, cluster.settle)
    assert found.state is State.CREATED
    assert found.record.id == f"{record.id}-r1"
    assert ending(world.store, record.id).state == FINISHED


def test_a_run_whose_job_was_never_made_is_begun_by_the_next_submit(world, api, cluster, spec) -> None:
    first = world.submit(spec).record
    assert not cluster.settle(first).alive
    again = submit(spec, world.store, world.tardis, cluster.settle)
    assert (again.state, again.record) == (State.UNFINISHED, first)
    cluster.start(first, spec)
    assert list(api.objects["jobs"]) == [first.id]


def test_a_job_deleted_before_any_worker_wrote_is_made_again_or_cancelled(world, api, cluster, spec, record) -> None:
    """Nobody can tell it from one that is just about to be made, so that is no end."""
    api.remove("jobs", record.id)
    assert not cluster.settle(record).alive
    again = submit(spec, world.store, world.tardis, cluster.settle)
    assert (again.state, again.record.id) == (State.UNFINISHED, record.id)
    with pytest.raises(SpecError, match=f"first: runner cancel {record.id}"):
        cluster.clean(record.id)
    assert runs.cancel(world.store, record.id)
    cluster.cancel(record, spec, lambda: False)
    assert ending(world.store, record.id).state == CANCELLED
    assert cluster.clean(record.id)


def test_a_job_deleted_while_a_worker_may_live_is_no_end_yet(world, api, cluster, spec, record) -> None:
    ledger.write_progress(world.store, record.id, Attempt(0, "silent", in_flight=("t",)), ABSENT)
    api.remove("jobs", record.id)
    assert cluster.settle(record).alive
    assert ending(world.store, record.id) is None


def somewhere_else(world, record) -> Place:
    """Make the record say that the run is on another cluster."""
    place.forget(world.store, record.id)
    other = Place("https://other.example:6443", ("beef",), "market", "prod")
    assert place.write(world.store, record.id, other)
    return other


def test_where_a_run_is_stands_in_the_store_before_its_job_is_made(world, api, cluster, spec) -> None:
    record = world.submit(spec).record
    api.faults.append(Fault("POST *", 0, count=99))
    with pytest.raises(TransientError):
        cluster.start(record, spec)
    found = place.read(world.store, record.id)
    assert (found.server, found.namespace, found.context) == (api.url, "market", "here")


def test_a_job_that_was_refused_leaves_no_word_of_where_it_is(world, api, cluster, spec) -> None:
    record = world.submit(spec).record
    api.faults.append(Fault("POST *", 422, "spec.completions: Invalid value"))
    with pytest.raises(ConfigError):
        cluster.start(record, spec)
    assert place.read(world.store, record.id) is None


def test_who_speaks_to_another_cluster_writes_no_end_and_says_both_places(world, api, cluster, spec, record) -> None:
    work(world, record, spec, 0, 1)
    api.remove("jobs", record.id)
    somewhere_else(world, record)
    for ask in (cluster.settle, lambda r: cluster.cancel(r, spec, lambda: False), lambda r: cluster.start(r, spec)):
        with pytest.raises(SpecError) as caught:
            ask(record)
        assert "is in namespace market of https://other.example:6443 (context prod)" in str(caught.value)
        assert f"this is namespace market of {api.url} (context here)" in str(caught.value)
        assert f"runner cancel {record.id} --abandon" in str(caught.value)
    assert ending(world.store, record.id) is None
    assert api.objects["jobs"] == {}


def test_a_job_that_is_seen_needs_no_other_proof_of_where_it_is(world, api, cluster, spec, record) -> None:
    """The same cluster by another address, from a pod of it for one."""
    somewhere_else(world, record)
    assert cluster.settle(record).alive
    assert cluster.start(record, spec)
    work(world, record, spec, 0, 1)
    status(api, record, completedIndexes="0,1", conditions=[OVER])
    assert not cluster.settle(record).alive
    assert runs.verdict(world.store, record) is Exit.DONE


def outside(world, record, uid: str) -> None:
    """Make the record say that the run was begun by another address, in the namespace of this uid."""
    place.forget(world.store, record.id)
    there = Place("https://198.51.100.7", ("beef",), "market", "prod", uid=uid)
    assert place.write(world.store, record.id, there)


def test_a_run_begun_outside_goes_on_from_a_pod_of_its_cluster_when_its_job_is_gone(
    world, api, cluster, spec, record
) -> None:
    """As of a pass that somebody began by hand, and the next morning's controller finds."""
    api.remove("jobs", record.id)
    outside(world, record, "uid-market")
    assert not cluster.settle(record).alive
    assert cluster.start(record, spec)
    assert list(api.objects["jobs"]) == [record.id]
    work(world, record, spec, 0, 1)
    api.remove("jobs", record.id)
    assert not cluster.settle(record).alive
    assert ending(world.store, record.id).state == FINISHED


@pytest.mark.parametrize("uid", ["another", ""])
def test_a_namespace_of_the_same_name_elsewhere_is_another_one(world, api, cluster, spec, uid) -> None:
    record = world.submit(spec).record
    outside(world, record, uid)
    for ask in (cluster.settle, lambda r: cluster.start(r, spec)):
        with pytest.raises(SpecError, match=r"runner cancel .* --abandon"):
            ask(record)
    assert api.objects["jobs"] == {}


def test_which_namespace_it_is_stands_in_the_record(world, api, cluster, spec, record) -> None:
    cluster.settle(record)
    assert place.read(world.store, record.id).uid == "uid-market"
    assert api.seen("GET /api/v1/namespaces/market") == 1, "it is asked for once"


def test_a_namespace_that_cannot_be_asked_after_now_is_a_cause_and_no_end(world, api, spec, record, tmp_path) -> None:
    work(world, record, spec, 0, 1)
    api.remove("jobs", record.id)
    api.faults.append(Fault("GET /api/v1/namespaces/market", 503))
    client = Client(kubeconfig=str(tmp_path / "kubeconfig"))
    anew = Cluster(world.store, lambda: client, pause_s=0.01)
    with anew.watching(record) as sight:
        assert [cause.kind for cause in sight().causes] == ["unreachable"]
        assert ending(world.store, record.id) is None
        assert not sight().alive
    assert ending(world.store, record.id).state == FINISHED


@pytest.fixture
def in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay what a pod finds of its cluster where the client library looks for it."""
    for name, text in {"token": "fake-token-1", "ca.crt": "fake", "namespace": "market\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


def test_in_a_pod_no_context_is_recorded_which_would_be_none_elsewhere(world, in_a_pod) -> None:
    client = Client()
    assert (client.context, client.namespace, client.server) == (None, "market", "https://10.96.0.1:443")
    placed = Cluster(world.store, lambda: client, mounted(world)).placed(
        world.spec(backend=Backend.KUBERNETES, image="runner:test")
    )
    assert (placed.context, placed.namespace) == (None, "market")
    assert client.kubectl == "kubectl -n market"
    assert str(Place(client.server, (), "market", client.context)) == (
        "namespace market of https://10.96.0.1:443 (from a pod of it)"
    )


def test_a_run_whose_cluster_is_gone_can_be_given_up_once_its_workers_are_silent(world, cluster, spec, record) -> None:
    ledger.write_progress(world.store, record.id, Attempt(0, "writes", in_flight=("t",)), ABSENT)
    with pytest.raises(SpecError, match="wrote less than a minute ago"):
        cluster.abandon(record)
    work(world, record, spec, 0, 1, attempt="writes")
    cluster.abandon(record)
    assert ending(world.store, record.id).state == CANCELLED


def test_a_job_that_others_made_is_noted_where_it_is_seen(world, api, cluster, spec, record) -> None:
    """As after `kubectl apply` of a rendered Job."""
    place.forget(world.store, record.id)
    assert cluster.settle(record).alive
    assert place.read(world.store, record.id).server == api.url


def test_a_run_that_began_where_nobody_saw_its_job_is_not_ended_and_not_waited_for(
    world, api, cluster, spec, record
) -> None:
    place.forget(world.store, record.id)
    work(world, record, spec, 0)
    api.remove("jobs", record.id)
    seen = cluster.settle(record)
    assert (seen.alive, [cause.kind for cause in seen.causes]) == (False, ["unseen"])
    assert ending(world.store, record.id) is None


def test_a_run_resumed_without_values_has_those_that_it_began_with(world, api, spec, record, tmp_path) -> None:
    first = api.objects["jobs"][record.id]["spec"]
    api.remove("jobs", record.id)
    assert "mountPath" in json.dumps(place.read(world.store, record.id).values)
    bare = Cluster(world.store, lambda: Client(kubeconfig=str(tmp_path / "kubeconfig")))
    assert bare.start(record, spec)
    assert api.objects["jobs"][record.id]["spec"] == first


def test_why_a_run_ended_is_told_to_who_comes_later(world, api, cluster, spec, record) -> None:
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    status(api, record, conditions=[late])
    assert [cause.kind for cause in cluster.settle(record).causes] == ["deadline"]
    api.remove("jobs", record.id)
    assert [cause.kind for cause in cluster.settle(record).causes] == ["deadline"]


def test_memory_that_a_killed_worker_told_of_is_named(world, api, cluster, spec, record) -> None:
    counts = ledger.Counts(total=1, peak_bytes=300 << 20)
    ledger.write_progress(world.store, record.id, Attempt(0, "dead", counts=counts), ABSENT)
    killed = pod(api, record, 0, "Failed", uid="dead", code=137)
    killed["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = "OOMKilled"
    api.put("pods", killed)
    (cause, *_) = cluster.settle(record).causes
    assert cause.message.endswith("having told of 300 MiB")


def everything(cluster, world, record, spec) -> None:
    """Do what the commands do: submit twice, status, status -w, logs, cancel."""
    for _ in range(2):
        cluster.start(record, spec)
    cluster.settle(record)
    with cluster.watching(record) as sight:
        end = time.monotonic() + 2
        while sight().alive and time.monotonic() < end:
            time.sleep(0.02)
    list(cluster.logs(record, LogQuery())())
    runs.cancel(world.store, record.id)
    cluster.cancel(record, spec, lambda: False)


def granted() -> list[tuple[str, str]]:
    """Return (verb, resource) of everything that who submits may do."""
    documents = yaml.safe_load_all((ROOT / "manifests/rbac.yaml").read_text(encoding="utf-8"))
    role = next(each for each in documents if each["kind"] == "Role")
    return [(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]]


@pytest.mark.parametrize(
    # The one kubectl alone uses, in commands that are printed; without the other its clusters' addresses must do.
    "right",
    [each for each in granted() if each not in (("get", "pods"), ("get", "namespaces"))],
)
def test_each_right_is_needed_and_named_where_it_is_missing(world, api, cluster, spec, right) -> None:
    verb, resource = right
    record = world.submit(spec).record
    pod(api, record, 0, "Failed", code=75)
    api.allowed = {each for each in granted() if each not in (right, ("get", "pods"))}
    with pytest.raises(NotAllowedError) as caught:
        everything(cluster, world, record, spec)
    group = "batch" if resource == "jobs" else ""
    assert str(caught.value).endswith(
        f'to allow it add to the Role: {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
    )


def test_the_rights_that_are_shipped_are_enough(world, api, cluster, spec) -> None:
    record = world.submit(spec).record
    pod(api, record, 0, "Failed", code=75)
    api.allowed = set(granted()) - {("get", "pods")}
    everything(cluster, world, record, spec)
    assert ending(world.store, record.id).state == CANCELLED


def test_pods_that_outlive_their_job_are_waited_for(world, api, cluster, spec, record) -> None:
    work(world, record, spec, 0)
    pod(api, record, 1)
    api.remove("jobs", record.id)
    assert cluster.settle(record).alive


def test_a_cluster_that_cannot_be_reached_is_a_cause_and_no_end(world, api, cluster, spec, record) -> None:
    api.faults.append(Fault("*", 0, count=9))
    sight = cluster.settle(record)
    assert sight.alive
    assert [cause.kind for cause in sight.causes] == ["unreachable"]
    assert ending(world.store, record.id) is None


def test_cancelling_drains_then_deletes_and_says_so_in_the_store(world, api, cluster, spec, record) -> None:
    assert work(world, record, spec, 0) == [0]
    pod(api, record, 1, "Failed", code=143)
    status(api, record, completedIndexes="0", active=0)
    assert runs.cancel(world.store, record.id)
    cluster.cancel(record, spec, lambda: False)
    assert api.seen(f"PATCH */jobs/{record.id}") == 1
    assert {"spec": {"suspend": True}} in api.bodies
    assert api.objects["jobs"] == {}
    end = ending(world.store, record.id)
    assert (end.state, end.exits) == (CANCELLED, {0: 0})
    assert runs.verdict(world.store, record) is Exit.INTERRUPTED


def test_a_cancelled_run_is_followed_by_the_next_pass(world, api, cluster, spec, record) -> None:
    runs.cancel(world.store, record.id)
    cluster.cancel(record, spec, lambda: False)
    assert submit(spec, world.store, world.tardis, cluster.settle).record.id == f"{record.id}-r1"


def test_logs_come_from_pods_and_from_the_store_where_pods_are_gone(world, api, cluster, spec, record) -> None:
    ledger.write_log(world.store, record.id, (0, "gone"), b"of the store\n", ABSENT)
    ledger.write_log(world.store, record.id, (1, "lives"), b"the pod's own, older\n", ABSENT)
    name = pod(api, record, 1, uid="lives")["metadata"]["name"]
    api.logs[name] = "2024-08-08T00:00:01.000000000Z first\n2024-08-08T00:00:01.500000000Z second\n"
    new = cluster.logs(record, LogQuery())
    assert [(each.shard, each.attempt, each.text) for each in new()] == [
        (1, "lives", "first\nsecond\n"),
        (0, "gone", "of the store\n"),
    ]
    api.logs[name] += "2024-08-08T00:00:01.700000000Z third\n"
    assert [each.text for each in new()] == ["third\n"]
    assert [each.text for each in cluster.logs(record, LogQuery(shard=0))()] == ["of the store\n"]


def test_logs_of_the_failed_leave_pods_that_run_or_ended_well(world, api, cluster, spec, record) -> None:
    for uid, phase, code in (("a", "Running", None), ("b", "Succeeded", 0), ("c", "Failed", 75)):
        api.logs[pod(api, record, 0, phase, uid=uid, code=code)["metadata"]["name"]] = f"2024-08-08T00:00:01Z {uid}\n"
    assert [each.attempt for each in cluster.logs(record, LogQuery(failed=True))()] == ["c"]


def test_logs_are_the_stores_while_the_cluster_cannot_be_reached(world, api, cluster, spec, record) -> None:
    ledger.write_log(world.store, record.id, (0, "gone"), b"of the store\n", ABSENT)
    api.faults.append(Fault("*", 0, count=9))
    assert [each.attempt for each in cluster.logs(record, LogQuery())()] == ["gone"]


def test_a_pod_that_goes_while_its_log_is_followed_is_read_to_the_end_in_the_store(world, api, cluster, record) -> None:
    name = pod(api, record, 0, uid="a")["metadata"]["name"]
    api.logs[name] = "2024-08-08T00:00:01.000000000Z one\n2024-08-08T00:00:02.000000000Z two\n"
    new = cluster.logs(record, LogQuery(), lambda _: False)
    assert [each.text for each in new()] == ["one\ntwo\n"]
    ledger.write_log(world.store, record.id, (0, "a"), b"one\ntwo\nthree\n", ABSENT)
    assert list(new()) == []
    api.remove("pods", name)
    assert [(each.attempt, each.text) for each in new()] == [("a", "three\n")]
    assert list(new()) == []


def test_logs_are_followed_over_a_lost_connection_without_a_line_lost_or_twice(world, api, cluster, record) -> None:
    name = pod(api, record, 0, uid="a")["metadata"]["name"]
    api.logs[name] = "2024-08-08T00:00:01.000000000Z one\n"
    new = cluster.logs(record, LogQuery(), lambda _: False)
    assert [each.text for each in new()] == ["one\n"]
    api.logs[name] += "2024-08-08T00:00:02.000000000Z two\n"
    ledger.write_log(world.store, record.id, (0, "a"), b"one\n", ABSENT)
    api.faults += [Fault("GET */pods", 0), Fault("GET */log", 503)]
    assert list(new()) == []
    assert list(new()) == []
    assert [each.text for each in new()] == ["two\n"]


def test_pods_that_come_later_are_followed_too_and_few_at_once(world, api, cluster, record) -> None:
    def run(number: int) -> None:
        name = pod(api, record, number, uid=f"u{number}")["metadata"]["name"]
        api.logs[name] = f"2024-08-08T00:00:01.000000000Z of {number}\n"

    run(0)
    waits = []
    new = cluster.logs(record, LogQuery(), lambda seconds: waits.append(seconds) or False)
    assert [each.shard for each in new()] == [0]
    assert waits == []
    for number in range(1, 9):
        run(number)
    assert [each.shard for each in new()] == [1, 2, 3, 4, 5]
    assert [each.shard for each in new()] == [6, 7, 8]
    assert waits == [1.0] * 10, "a request a second"
    assert [each.text for each in cluster.logs(record, LogQuery(shard=7))()] == ["of 7\n"]


def test_following_logs_stops_in_the_middle_of_a_round(world, api, cluster, record) -> None:
    new = cluster.logs(record, LogQuery(), lambda _: True)
    assert list(new()) == []
    api.logs[pod(api, record, 0)["metadata"]["name"]] = "2024-08-08T00:00:01.000000000Z one\n"
    assert list(new()) == []


def test_logs_of_the_failed_are_not_filled_up_from_the_store_with_those_that_run(world, api, cluster, record) -> None:
    pod(api, record, 0, uid="runs")
    ledger.write_log(world.store, record.id, (0, "runs"), b"so far\n", ABSENT)
    assert list(cluster.logs(record, LogQuery(failed=True))()) == []


def test_clean_goes_on_where_the_cluster_does_not_answer(world, api, cluster, spec, record) -> None:
    work(world, record, spec, 0, 1)
    status(api, record, completedIndexes="0,1", conditions=[OVER])
    cluster.settle(record)
    api.faults.append(Fault("DELETE *", 0))
    assert cluster.clean(record.id) > 0
    assert list(run_record.run_ids(world.store)) == []


def test_a_cluster_that_starts_anew_is_waited_for_by_cancel(world, api, cluster, spec, record) -> None:
    runs.cancel(world.store, record.id)
    api.faults += [Fault("PATCH *", 0), Fault("DELETE *", 503)]
    cluster.cancel(record, spec, lambda: False)
    assert ending(world.store, record.id).state == CANCELLED


def test_clean_removes_the_job_too(world, api, cluster, spec, record) -> None:
    runs.cancel(world.store, record.id)
    with pytest.raises(SpecError):
        cluster.clean(record.id)
    assert api.objects["jobs"], "nothing is removed of a run that has not ended"
    work(world, record, spec, 0, 1)
    status(api, record, completedIndexes="0,1", conditions=[OVER])
    cluster.settle(record)
    assert cluster.clean(record.id) > 0
    assert api.objects["jobs"] == {}


def test_the_job_holds_the_whole_spec_and_no_key(world, api, cluster, spec, record) -> None:
    text = json.dumps(api.objects["jobs"][record.id])
    assert "fake-key-1" not in text
    assert "fake-token-1" not in text
    variables = {
        each["name"]: each.get("value")
        for each in api.objects["jobs"][record.id]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert json.loads(variables["RUNNER_SPEC"])["namespace"] == "market"


@pytest.mark.parametrize(
    ("annotations", "meant"),
    [
        ({"batch.kubernetes.io/cronjob-scheduled-timestamp": "2024-08-10T17:00:00+09:00"}, "2024-08-10T08:00:00+00:00"),
        (None, "2024-08-11T00:30:00+00:00"),
    ],
    ids=["by its CronJob", "by hand"],
)
def test_a_job_was_meant_for_its_schedule_else_for_when_it_was_made(api, cluster, annotations, meant) -> None:
    about = {"name": "pipeline-1", "creationTimestamp": "2024-08-11T00:30:00Z"}
    api.put("jobs", {"metadata": {**about, **({"annotations": annotations} if annotations else {})}})
    assert cluster.scheduled("pipeline-1").isoformat() == meant


def test_a_job_that_is_not_there_has_no_schedule(cluster) -> None:
    with pytest.raises(NotFoundError, match="job pipeline-2: not in namespace"):
        cluster.scheduled("pipeline-2")
