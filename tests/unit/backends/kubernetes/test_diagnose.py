"""Each cause of the closed list from objects as a real API server gives them, and what is no cause."""

from datetime import UTC, datetime

import pytest

from runner.backends.kubernetes.diagnose import Kind, diagnose
from runner.backends.kubernetes.pods import lean
from runner.backends.kubernetes.watch import Snapshot

RUN, NAMESPACE, NODE = "download-3f9a1c20", "market", "runner-worker2"
NOW = datetime(2024, 8, 8, 12, 0, 0, tzinfo=UTC)
IMAGE = "registry.example/runner:gone"


def job(*, spec=None, **status):
    return {
        "metadata": {"name": RUN, "namespace": NAMESPACE, "uid": "job-uid", "labels": {"runner/run": RUN}},
        "spec": {"completions": 10, "parallelism": 3, "backoffLimitPerIndex": 6, "suspend": False, **(spec or {})},
        "status": {"active": 3, "ready": 0, "startTime": "2024-08-08T11:59:00Z", **status},
    }


def ended(reason, message="", kind="Failed"):
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def pod(index, phase="Pending", *, state=None, conditions=(), created="2024-08-08T11:59:00Z", **metadata):
    statuses = [{"name": "worker", "image": IMAGE, "restartCount": 0, "ready": False, "state": state}] if state else []
    return {
        "metadata": {
            "name": f"{RUN}-{index}-x{len(created) + len(phase)}",
            "uid": f"uid-{index}-{created}-{phase}",
            "creationTimestamp": created,
            "labels": {
                "batch.kubernetes.io/job-name": RUN,
                "batch.kubernetes.io/job-completion-index": str(index),
            },
            **metadata,
        },
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "worker", "image": IMAGE, "resources": {"limits": {"memory": "2Gi"}}}],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {
                    "name": "tardis-key",
                    "secret": {"secretName": "tardis-api-key", "items": [{"key": "key", "path": "tardis-api-key"}]},
                },
            ],
        },
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": statuses},
    }


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code, reason="Error", at="2024-08-08T11:59:55Z", message=""):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at, "message": message}}


def event(name, reason, message, at="2024-08-08T11:59:30Z", kind="Pod"):
    return {
        "metadata": {"name": f"{name}.17e", "uid": f"event-{name}-{reason}"},
        "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": at,
    }


def causes(one_job=None, pods=(), events=(), *, peaks=None):
    """Return the causes seen in pods as a snapshot holds them, with no more than is read of one."""
    snapshot = Snapshot(one_job or job(), tuple(map(lean, pods)), tuple(events))
    return diagnose(snapshot, NOW, kubectl=f"kubectl -n {NAMESPACE}", peaks=peaks)


def only(found, kind):
    assert [cause.kind for cause in found] == [kind]
    assert found[0].message
    assert found[0].next
    return found[0]


def test_a_run_that_moves_has_no_cause() -> None:
    running = pod(0, "Running", state={"running": {"startedAt": "2024-08-08T11:59:01Z"}})
    creating = pod(1, state=waiting("ContainerCreating"))
    done = pod(2, "Succeeded", state=terminated(0, "Completed"))
    assert causes(job(completedIndexes="2"), (running, creating, done)) == ()


def test_a_run_without_a_job_has_no_cause() -> None:
    assert diagnose(Snapshot(None), NOW) == ()


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_had_is_one_cause_of_all_its_shards(reason) -> None:
    text = f'Back-off pulling image "{IMAGE}": ErrImagePull: not found'
    cause = only(causes(pods=[pod(n, state=waiting(reason, text)) for n in (4, 1)]), Kind.IMAGE)
    assert cause.shards == (1, 4)
    assert IMAGE in cause.message
    assert "not found" in cause.message
    assert cause.next == f"runner cancel {RUN} && runner retry {RUN} --image IMAGE"


def test_an_image_that_does_not_start_is_named() -> None:
    text = 'exec: "runner": executable file not found in $PATH'
    cause = only(causes(pods=[pod(0, state=waiting("RunContainerError", text))]), Kind.IMAGE)
    assert "does not start" in cause.message
    assert "completion-index=0" in cause.next


def test_a_secret_that_is_missing_is_named_with_the_command_that_makes_it() -> None:
    waits = pod(0, state=waiting("ContainerCreating"))
    text = 'MountVolume.SetUp failed for volume "tardis-key" : secret "tardis-api-key" not found'
    found = causes(pods=[waits], events=[event(waits["metadata"]["name"], "FailedMount", text)])
    cause = only(found, Kind.SECRET)
    assert cause.message == 'secret "tardis-api-key" not found'
    assert cause.next == f"kubectl -n {NAMESPACE} create secret generic tardis-api-key --from-file=key=FILE"


def test_a_key_that_is_missing_in_its_secret_is_named() -> None:
    waits = pod(0, state=waiting("ContainerCreating"))
    text = 'MountVolume.SetUp failed for volume "tardis-key" : references non-existent secret key: key'
    found = causes(pods=[waits], events=[event(waits["metadata"]["name"], "FailedMount", text)])
    cause = only(found, Kind.SECRET)
    assert "secret key: key" in cause.message
    # What is there stays: the key comes beside it.
    assert cause.next == (
        f"kubectl -n {NAMESPACE} create secret generic tardis-api-key --from-file=key=FILE --dry-run=client -o yaml "
        f"| kubectl -n {NAMESPACE} apply -f -"
    )


def test_a_secret_that_a_variable_needs_is_named() -> None:
    waits = pod(0, state=waiting("CreateContainerConfigError", 'secret "bucket-key" not found'))
    assert "create secret generic bucket-key" in only(causes(pods=[waits]), Kind.SECRET).next
    waits = pod(0, state=waiting("CreateContainerConfigError", "couldn't find key hmac in Secret market/bucket-key"))
    assert "create secret generic bucket-key --from-file=hmac=FILE" in only(causes(pods=[waits]), Kind.SECRET).next


def test_a_mount_that_was_late_once_is_no_cause_of_a_pod_that_runs() -> None:
    runs = pod(0, "Running", state={"running": {}})
    late = event(runs["metadata"]["name"], "FailedMount", 'secret "tardis-api-key" not found')
    assert causes(pods=[runs], events=[late]) == ()


def test_a_pod_that_fits_nowhere_is_explained_by_the_scheduler() -> None:
    text = "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available."
    no = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    cause = only(causes(pods=[pod(n, conditions=[no]) for n in (0, 1, 2)]), Kind.UNSCHEDULABLE)
    assert cause.message == text
    assert cause.shards == (0, 1, 2)


def test_a_quota_that_is_used_up_is_told_from_other_refusals() -> None:
    text = (
        'Error creating: pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
    )
    cause = only(causes(job(active=2), events=[event(RUN, "FailedCreate", text, kind="Job")]), Kind.QUOTA)
    assert "exceeded quota: small" in cause.message
    assert cause.next == f"kubectl -n {NAMESPACE} describe resourcequota"


def test_pods_that_the_cluster_refuses_are_explained_in_its_words() -> None:
    text = 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation'
    cause = only(causes(job(active=0), events=[event(RUN, "FailedCreate", text, kind="Job")]), Kind.ADMISSION)
    assert "violates PodSecurity" in cause.message


def test_a_refusal_that_is_over_is_no_cause() -> None:
    text = 'Error creating: pods "x" is forbidden: exceeded quota: small'
    refused = event(RUN, "FailedCreate", text, kind="Job")
    assert causes(job(active=3), events=[refused]) == ()
    # The last two shards: as many pods as there is work for.
    assert causes(job(active=2, succeeded=8), events=[refused]) == ()
    old = event(RUN, "FailedCreate", text, at="2024-08-08T11:00:00Z", kind="Job")
    assert causes(job(active=2), events=[old]) == ()


def test_a_pod_that_should_be_gone_says_which_node_must_be_given_up() -> None:
    stuck = pod(7, "Running", state={"running": {}}, deletionTimestamp="2024-08-08T11:59:30Z")
    drains = pod(8, "Running", state={"running": {}}, deletionTimestamp="2024-08-08T12:00:10Z")
    cause = only(causes(pods=[stuck, drains]), Kind.NODE)
    assert cause.shards == (7,)
    assert NODE in cause.message
    assert f"kubectl delete node {NODE}" in cause.next


def test_a_node_that_went_silent_is_named_before_its_pods_are_deleted() -> None:
    silent = pod(7, "Running", state={"running": {}}, conditions=[{"type": "Ready", "status": "False"}])
    word = event(silent["metadata"]["name"], "NodeNotReady", "Node is not ready")
    assert only(causes(pods=[silent], events=[word]), Kind.NODE).shards == (7,)


@pytest.mark.parametrize(
    ("failures", "at", "until"),
    [
        (0, "2024-08-08T11:59:55Z", "12:00:05"),
        (2, "2024-08-08T11:59:55Z", "12:00:35"),
        (9, "2024-08-08T11:59:55Z", "12:09:55"),
    ],
)
def test_a_shard_that_waits_for_its_next_try_says_until_when(failures, at, until) -> None:
    annotations = {"batch.kubernetes.io/job-index-failure-count": str(failures)}
    cause = only(causes(pods=[pod(3, "Failed", state=terminated(75, at=at), annotations=annotations)]), Kind.BACKOFF)
    assert cause.message == f"ended with exit 75 and starts again at {until} UTC"
    assert cause.next == (
        f"kubectl -n {NAMESPACE} logs --tail=-1 "
        f"-l batch.kubernetes.io/job-name={RUN},batch.kubernetes.io/job-completion-index=3"
    )
    assert cause.shards == (3,)


def test_shards_that_wait_for_the_same_reason_are_one_cause() -> None:
    ends = [terminated(75, at=f"2024-08-08T11:59:5{second}Z") for second in (5, 8)]
    cause = only(causes(pods=[pod(n, "Failed", state=end) for n, end in zip((3, 8), ends, strict=True)]), Kind.BACKOFF)
    assert cause.message == "ended with exit 75 and starts again from 12:00:05 to 12:00:08 UTC"
    assert cause.shards == (3, 8)


def test_a_shard_whose_next_try_has_begun_or_that_is_given_up_does_not_wait() -> None:
    failed = pod(3, "Failed", state=terminated(75))
    again = pod(3, "Running", state={"running": {}}, created="2024-08-08T11:59:59Z")
    assert causes(pods=[failed, again]) == ()
    assert causes(job(failedIndexes="3"), [failed]) == ()
    assert causes(job(completedIndexes="1-3"), [failed]) == ()
    assert causes(pods=[pod(3, "Failed", state=terminated(75, at="2024-08-08T11:59:40Z"))]) == ()


def test_a_shard_killed_for_memory_is_told_with_its_limit_while_it_goes_on() -> None:
    killed = pod(3, "Failed", state=terminated(137, "OOMKilled", at="2024-08-08T11:58:00Z"))
    again = pod(3, "Running", state={"running": {}}, created="2024-08-08T11:59:59Z")
    cause = only(causes(pods=[killed, again]), Kind.MEMORY)
    assert cause.message == "killed for memory at its limit of 2Gi"
    assert cause.shards == (3,)
    assert cause.next == f"runner wait {RUN}; runner retry {RUN} --memory 4Gi"
    assert causes(job(completedIndexes="3"), [killed]) == ()


def test_a_shard_killed_for_memory_is_told_with_what_its_worker_last_used() -> None:
    killed = pod(3, "Failed", state=terminated(137, "OOMKilled", at="2024-08-08T11:58:00Z"))
    cause = only(causes(pods=[killed], peaks={killed["metadata"]["uid"]: 1_900 << 20}), Kind.MEMORY)
    assert cause.message == "killed for memory at its limit of 2Gi, having told of 1900 MiB"


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("0/3 nodes are available: 3 Insufficient memory.", "--memory SIZE"),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "--placement any"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "--values FILE"),
    ],
)
def test_what_fits_nowhere_is_told_with_what_to_ask_for_instead(message, change) -> None:
    no = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    cause = only(causes(pods=[pod(0, conditions=[no])]), Kind.UNSCHEDULABLE)
    assert cause.next.endswith(f"; to ask for less: runner cancel {RUN} && runner retry {RUN} {change}")


def test_a_killed_child_does_not_hide_behind_exit_zero() -> None:
    killed = pod(3, "Failed", state=terminated(0, "OOMKilled", at="2024-08-08T11:58:00Z"))
    assert only(causes(pods=[killed]), Kind.MEMORY).shards == (3,)


def test_a_run_that_took_too_long_is_told_with_its_deadline() -> None:
    late = job(spec={"activeDeadlineSeconds": 600}, active=0, conditions=[ended("DeadlineExceeded")])
    assert "(600)" in only(causes(late), Kind.DEADLINE).message
    still_ending = job(
        spec={"activeDeadlineSeconds": 600}, conditions=[ended("DeadlineExceeded", kind="FailureTarget")]
    )
    assert only(causes(still_ending), Kind.DEADLINE)


def test_a_suspended_job_says_how_it_goes_on() -> None:
    cause = only(causes(job(spec={"suspend": True}, active=0)), Kind.SUSPENDED)
    assert cause.next == (
        f"""kubectl -n {NAMESPACE} patch job {RUN} --type merge -p '{{"spec":{{"suspend":false}}}}'"""
    )


def test_a_worker_that_ended_the_run_is_quoted() -> None:
    over = job(active=0, conditions=[ended("PodFailurePolicy", "Container worker failed with exit code 77")])
    said = '{"exit": 77, "message": "key refused for 60 s"}'
    cause = only(causes(over, [pod(0, "Failed", state=terminated(77, message=said))]), Kind.REFUSED)
    assert "key refused for 60 s" in cause.message


def test_shards_that_failed_for_good_are_the_stores_to_tell() -> None:
    assert causes(job(active=0, failedIndexes="3", conditions=[ended("FailedIndexes")])) == ()


def test_messages_are_one_line_and_not_endless() -> None:
    no = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "a\nb " * 500}
    message = only(causes(pods=[pod(0, conditions=[no])]), Kind.UNSCHEDULABLE).message
    assert "\n" not in message
    assert len(message) <= 300
