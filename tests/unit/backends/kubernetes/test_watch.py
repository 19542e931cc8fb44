"""Snapshots stay true through changes, broken connections, versions that are too old and servers that start anew."""

import time
from collections.abc import Callable, Iterator

import pytest

from runner.backends.kubernetes.watch import Snapshot, Watcher, fold, look
from runner.errors import NotAllowedError
from tests.unit.backends.kubernetes.api import Fault

RUN = "download-3f9a1c20"


def job(**status):
    return {"metadata": {"name": RUN, "namespace": "market"}, "spec": {}, "status": status}


def pod(index, phase="Pending"):
    labels = {"batch.kubernetes.io/job-name": RUN, "batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"name": f"{RUN}-{index}", "labels": labels}, "status": {"phase": phase}}


def event(name, at, kind="Warning"):
    return {
        "metadata": {"name": f"{name}.{at[-3:-1]}"},
        "involvedObject": {"name": name},
        "lastTimestamp": at,
        "type": kind,
    }


def phases(snapshot: Snapshot) -> dict[str, str]:
    return {each["metadata"]["name"][-1]: each["status"]["phase"] for each in snapshot.pods}


def until(watcher: Watcher, fact: Callable[[Snapshot], bool]) -> Snapshot:
    deadline = time.monotonic() + 20
    while not fact(snapshot := watcher.snapshot()):
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.02)
    return snapshot


@pytest.fixture
def watcher(client, api) -> Iterator[Watcher]:
    api.put("jobs", job(active=1))
    api.put("pods", pod(0))
    with Watcher(client, RUN) as found:
        yield found


def test_a_look_has_the_runs_own_objects_only(client, api) -> None:
    api.put("jobs", job(active=1))
    api.put("jobs", {"metadata": {"name": "other"}, "spec": {}})
    api.put("pods", pod(0))
    api.put("pods", {"metadata": {"name": "stranger", "labels": {}}, "status": {"phase": "Running"}})
    for name, at in (
        (f"{RUN}-0", "2024-08-08T12:00:02Z"),
        (RUN, "2024-08-08T12:00:01Z"),
        ("stranger", "2024-08-08T12:00:03Z"),
    ):
        api.put("events", event(name, at))
    api.put("events", event(RUN, "2024-08-08T12:00:09Z", kind="Normal"))
    found = look(client, RUN)
    assert found.job["metadata"]["name"] == RUN
    assert phases(found) == {"0": "Pending"}
    assert [each["involvedObject"]["name"] for each in found.events] == [RUN, f"{RUN}-0"]


def test_a_run_without_a_job_is_seen_as_that(client) -> None:
    assert look(client, RUN) == Snapshot(None)


def test_changes_make_the_next_snapshot(watcher, api) -> None:
    assert phases(watcher.snapshot()) == {"0": "Pending"}
    api.put("pods", pod(0, "Running"))
    api.put("pods", pod(1))
    until(watcher, lambda s: phases(s) == {"0": "Running", "1": "Pending"})
    api.remove("pods", f"{RUN}-0")
    until(watcher, lambda s: phases(s) == {"1": "Pending"})
    api.remove("jobs", RUN)
    until(watcher, lambda s: s.job is None)


def test_no_snapshot_holds_what_is_not_read_of_a_pod(client, api) -> None:
    given = {"containers": [{"env": [{"name": "RUNNER_SPEC", "value": "long"}], "resources": {"limits": {}}}]}
    big = {**pod(0), "spec": given}
    big["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    api.put("jobs", job(active=1))
    api.put("pods", big)
    with Watcher(client, RUN) as watcher:
        api.put("pods", {**big, "status": {"phase": "Running"}})
        snapshots = until(watcher, lambda seen: phases(seen) == {"0": "Running"}), look(client, RUN)
    for (seen,) in (snapshot.pods for snapshot in snapshots):
        assert seen["spec"] == {"containers": [{"resources": {"limits": {}}}]}
        assert "managedFields" not in seen["metadata"]


def test_following_costs_a_request_a_kind_whatever_happens(watcher, api) -> None:
    for index in range(40):
        api.put("pods", pod(index, "Running"))
    until(watcher, lambda s: len(s.pods) == 40)
    assert api.seen("WATCH *") == 3
    assert api.seen("GET *") == 3


def test_a_cut_connection_is_taken_up_where_it_was(watcher, api) -> None:
    until(watcher, lambda _: api.seen("WATCH *") == 3)
    api.hang_up()
    api.put("pods", pod(1, "Running"))
    until(watcher, lambda s: phases(s) == {"0": "Pending", "1": "Running"})
    assert api.seen("GET */pods") == 1


def test_a_version_that_is_too_old_is_listed_anew(watcher, api) -> None:
    until(watcher, lambda _: api.seen("WATCH *") == 3)
    with api.changed:  # at once: cut off, and what happened meanwhile forgotten
        api.faults += [Fault("WATCH */pods", 410)]
        api.hang_up()
        api.objects["pods"].clear()
        api.put("pods", pod(5, "Succeeded"))
        api.history.clear()
    until(watcher, lambda s: phases(s) == {"5": "Succeeded"})


def test_a_server_that_starts_anew_is_waited_for(watcher, api) -> None:
    """Refused connections, then refused requests while its rules are not loaded, then as before."""
    until(watcher, lambda _: api.seen("WATCH *") == 3)
    api.faults += [Fault("WATCH */pods", 0, count=2), Fault("WATCH */pods", 403, count=1)]
    api.hang_up()
    until(watcher, lambda s: bool(s.lost))
    api.put("pods", pod(0, "Failed"))
    until(watcher, lambda s: phases(s) == {"0": "Failed"} and not s.lost)


def test_a_refusal_from_the_start_is_said_at_once(client, api) -> None:
    api.faults.append(Fault("GET */events", 403))
    with pytest.raises(NotAllowedError, match=r'resources: \["events"\], verbs: \["list"\]'), Watcher(client, RUN):
        pass


def test_a_refusal_to_watch_ends_the_following(client, api) -> None:
    api.faults.append(Fault("WATCH */pods", 403, count=9))
    with pytest.raises(NotAllowedError, match=r'verbs: \["watch"\]'), Watcher(client, RUN) as watcher:
        until(watcher, lambda _: False)


def test_a_server_that_does_not_answer_at_first_is_waited_for(client, api) -> None:
    api.put("pods", pod(0))
    api.faults += [Fault("GET */pods", 0), Fault("GET */jobs", 503)]
    with Watcher(client, RUN) as watcher:
        assert watcher.snapshot().lost
        until(watcher, lambda s: phases(s) == {"0": "Pending"} and not s.lost)


def test_leaving_does_not_wait_for_the_server(client, api) -> None:
    with Watcher(client, RUN) as watcher:
        until(watcher, lambda _: api.seen("WATCH *") == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 30


def test_a_bookmark_moves_nothing_but_the_version() -> None:
    objects = {"u": {"metadata": {"uid": "u"}}}
    assert fold(objects, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}) == objects
