"""What every Job of ours says alike, whoever renders it: `scripts/manifests` writes it down for Helm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import WORKER_EXITS, Action

# The labels of everything that belongs to a run: which run, and what it does.
RUN_LABEL = "runner/run"
STAGE_LABEL = "runner/stage"
CONTAINER = "worker"
SCRATCH = "/scratch"
KEY_VARIABLE = "TARDIS_API_KEY"
KEY_FILE = "/var/run/secrets/runner/tardis-api-key"

_TMP = "/tmp"  # noqa: S108 the container's own
_ACTIONS: Mapping[Action, str] = {Action.FAIL_SHARD: "FailIndex", Action.FAIL_RUN: "FailJob"}


def pod_failure_policy() -> dict[str, Any]:
    """Return what the cluster does with a pod that failed, by the table of exit codes.

    A disruption is nobody's fault and costs no try. Codes outside the table, those of killed processes too, and those
    that are worth another try match no rule: they count against the shard's tries.
    """
    rules: list[dict[str, Any]] = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    for action, name in _ACTIONS.items():
        codes = sorted(int(rule.code) for rule in WORKER_EXITS if rule.action is action)
        rules.append({"action": name, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": codes}})
    return {"rules": rules}


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
}
"""Labels, variables, volumes and what exit codes lead to."""
