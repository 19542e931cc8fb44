"""`runner doctor`: everything a run needs, checked before it starts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, replace

from runner import logs
from runner.backends.kubernetes.client import Client
from runner.backends.kubernetes.values import load_values
from runner.cli import given as given_
from runner.cli.given import CLUSTER, SOURCE, WHERE, Given, takes
from runner.cli.output import Output, say_next, show
from runner.cli.place import Placement, Values, layers
from runner.doctor import Check, Patient, Verdict, examine
from runner.errors import Exit, SpecError
from runner.report.tables import table
from runner.spec import RunSpec


@takes("venues", "backend", *CLUSTER, "image", *WHERE, *SOURCE)
def doctor(*, placement: Placement = None, values: Values = None, output: Output = "table", given: Given) -> int:
    """Check what a run needs: store, key, source, clock and, with --backend kubernetes, the cluster and its pods.

    Each check is ok, warn, fail or, where it cannot be known from here, unknown, with the command that mends it. Writes
    one small object and deletes it. Exit 3 if any check fails.
    """
    spec = given.over(values).resolve(need_store=False).spec
    secrets = _secrets()
    logs.setup(spec.log_format, spec.log_level, sys.stderr, secrets=secrets)
    over = layers(placement, values, None)
    load_values(over)  # what is wrong with them is wrong usage
    patient = Patient(spec, over, lambda: _client(spec, given), given_.key)
    checks = [_clean(check, secrets) for check in examine(patient)]
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    document = {"kind": "Examination", "checks": [asdict(check) for check in checks]}
    show(output, document, table=table(("CHECK", "VERDICT", "FINDING"), _rows(checks)), names=_names(checks))
    if failed:
        say_next(failed[0].mend)
    return Exit.INCOMPLETE if failed else Exit.DONE


def _client(spec: RunSpec, given: Given) -> Client:
    return Client(kubeconfig=given.kubeconfig, context=spec.context, namespace=spec.namespace)


def _secrets() -> list[str]:
    try:
        key = given_.key()
    except SpecError:  # a check says so
        return []
    return [key] if key else []


def _clean(check: Check, secrets: list[str]) -> Check:
    return replace(check, finding=logs.redact(check.finding, secrets), mend=logs.redact(check.mend, secrets))


def _rows(checks: Iterable[Check]) -> Iterable[tuple[str, str, str]]:
    for check in checks:
        yield check.name, check.verdict, check.finding
        if check.mend:
            yield "", "", f"→ {check.mend}"


def _names(checks: Iterable[Check]) -> Iterable[str]:
    return (check.name for check in checks if check.verdict is not Verdict.OK)
