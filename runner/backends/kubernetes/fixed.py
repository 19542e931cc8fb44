"""What every Job of ours says alike, whoever renders it: `scripts/manifests` writes it down for Helm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runner.errors import WORKER_EXITS, Action, Exit

# The labels of everything that belongs to a run: which run, and what it does.
RUN_LABEL = "runner/run"
STAGE_LABEL = "runner/stage"
CONTAINER = "worker"
CONTROLLER = "pipeline"
SCRATCH = "/scratch"
KEY_VARIABLE = "TARDIS_API_KEY"
KEY_FILE = "/var/run/secrets/runner/tardis-api-key"

_TMP = "/tmp"  # noqa: S108 the container's own
_SETTINGS = "/etc/runner"
_DISRUPTED: Mapping[str, Any] = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}
# Another try would end the same, and one of a pass that was cancelled would begin the next pass.
_FINAL = (Exit.USAGE, Exit.INCOMPLETE, Exit.NOT_ALLOWED, Exit.NOT_FOUND, Exit.INTERRUPTED)
_ACTIONS: Mapping[Action, str] = {Action.FAIL_SHARD: "FailIndex", Action.FAIL_RUN: "FailJob"}


def pod_failure_policy() -> dict[str, Any]:
    """Return what the cluster does with a pod that failed, by the table of exit codes.

    A disruption is nobody's fault and costs no try. Codes outside the table, those of killed processes too, and those
    that are worth another try match no rule: they count against the shard's tries.
    """
    rules = [_DISRUPTED]
    for action, name in _ACTIONS.items():
        rules.append(_rule(name, CONTAINER, [rule.code for rule in WORKER_EXITS if rule.action is action]))
    return {"rules": rules}


def _rule(action: str, container: str, codes: Iterable[int]) -> Mapping[str, Any]:
    among = {"containerName": container, "operator": "In", "values": sorted(map(int, codes))}
    return {"action": action, "onExitCodes": among}


FIXED: Mapping[str, Any] = {
    "runLabel": RUN_LABEL,
    "stageLabel": STAGE_LABEL,
    "labels": {
        "app.kubernetes.io/name": "runner",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "runner",
    },
    "podFailurePolicy": pod_failure_policy(),
    "env": [
        {"name": "RUNNER_ATTEMPT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        # What the pod asked for, rounded up: the machine's other processors are other pods'.
        {
            "name": "RUNNER_THREADS",
            "valueFrom": {"resourceFieldRef": {"containerName": CONTAINER, "resource": "requests.cpu", "divisor": "1"}},
        },
        {"name": "RUNNER_SCRATCH", "value": SCRATCH},
        {"name": "HOME", "value": _TMP},
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "mounts": [{"name": "scratch", "mountPath": SCRATCH}, {"name": "tmp", "mountPath": _TMP}],
    "key": {
        "variable": KEY_VARIABLE,
        "env": [{"name": f"{KEY_VARIABLE}_FILE", "value": KEY_FILE}],
        "mount": {"name": "tardis-key", "mountPath": str(Path(KEY_FILE).parent), "readOnly": True},
    },
    "pipeline": {
        "container": CONTROLLER,
        "settings": _SETTINGS,
        "args": [
            *("pipeline", "--day", "auto", "--backend", "kubernetes"),
            *("--file", f"{_SETTINGS}/run.yaml", "--values", f"{_SETTINGS}/values.yaml"),
        ],
        "env": [
            {
                "name": "RUNNER_JOB",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}},
            },
            {"name": "HOME", "value": _TMP},
        ],
        "mounts": [{"name": "tmp", "mountPath": _TMP}],
        "podFailurePolicy": {"rules": [_DISRUPTED, _rule("FailJob", CONTROLLER, _FINAL)]},
    },
}
"""Labels, variables, volumes and what exit codes lead to."""
