"""The cluster: whether it answers, is new enough, lets us do what a run needs, and guards its namespace and network."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from runner.backends.kubernetes.client import Client, Object
from runner.doctor.check import Check, Verdict, fail, ok, tried, unknown, warn
from runner.doctor.clock import Asked, Reading
from runner.errors import NotAllowedError, NotFoundError, RunnerError

NAMES = ("cluster", "version", "permissions", "namespace", "network")

# What who submits needs in the namespace, by (group, resource); manifests/rbac.yaml grants just this.
NEEDED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("batch", "jobs"): ("create", "get", "list", "watch", "patch", "delete"),
    ("", "pods"): ("get", "list", "watch"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list", "watch"),
    ("", "namespaces"): ("get",),
}
# Retries for each index and pods replaced once they have failed: on by default from 1.29, for good since 1.34.
_OLDEST, _STABLE = (1, 29), (1, 34)
_STANDARD = "pod-security.kubernetes.io/enforce"
# Daemon sets of network plugins that enforce NetworkPolicies, and of those that take them and do nothing.
_ENFORCING: Mapping[str, str] = {
    "anetd": "GKE Dataplane V2",
    "antrea-agent": "Antrea",
    "calico-node": "Calico",
    "canal": "Canal",
    "cilium": "Cilium",
    "kindnet": "kindnet",
    "kube-network-policies": "kube-network-policies",
    "kube-router": "kube-router",
    "ovnkube-node": "OVN-Kubernetes",
    "weave-net": "Weave Net",
}
_IGNORING: Mapping[str, str] = {"kube-flannel-ds": "Flannel", "kube-flannel": "Flannel"}


def examine(client: Client, readings: list[Reading]) -> Iterator[Check]:
    """Yield the checks of a cluster, in the order of NAMES; what its clock says is added to `readings`.

    A cluster that does not answer, or not to us, makes one failed check and leaves the others unknown.
    """
    mend = f"{client.kubectl} auth whoami"
    try:
        began, asked = time.monotonic(), Asked.now()
        version, date = client.ask("/version", what="get the version")
        if reading := asked.header("the cluster", date):
            readings.append(reading)
        took_ms = (time.monotonic() - began) * 1000
        user = _user(client)
    except RunnerError as e:
        yield fail("cluster", f"{client.where}: {e}", mend)
        for name in NAMES[1:]:
            yield unknown(name, "the cluster does not answer", mend)
        return
    who = f" as {user}" if user else ""
    yield ok("cluster", f"{client.where} answers{who} in {took_ms:.0f} ms")
    yield _version(version)
    yield tried("permissions", lambda: _permissions(client, user), mend=mend, otherwise=Verdict.UNKNOWN)
    yield tried("namespace", lambda: _namespace(client), mend=mend, otherwise=Verdict.UNKNOWN)
    yield tried(
        "network", lambda: _network(client), mend=f"{client.kubectl} get daemonsets -A", otherwise=Verdict.UNKNOWN
    )


def _user(client: Client) -> str:
    """Return who we are to the cluster; "" where it is too old to say."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        said, _ = client.ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", what="ask who we are", body=body)
    except NotFoundError:
        return ""
    return str(said.get("status", {}).get("userInfo", {}).get("username", ""))


def _version(said: Object) -> Check:
    text = str(said.get("gitVersion", ""))
    found = re.match(r"v(\d+)\.(\d+)", text)
    mend = f"update the control plane to {_STABLE[0]}.{_STABLE[1]} or newer"
    if found is None:
        return unknown("version", f"the cluster says {text or 'nothing'}", "kubectl version")
    number = (int(found[1]), int(found[2]))
    if number >= _STABLE:
        return ok("version", f"Kubernetes {text}")
    if number >= _OLDEST:
        return warn("version", f"Kubernetes {text}: what a Job's retries need is beta there, and untried", mend)
    return fail("version", f"Kubernetes {text} does not know the retries that a Job needs", mend)


def _permissions(client: Client, user: str) -> Check:
    lacking = {what: verbs for what in NEEDED if (verbs := _lacking(client, *what))}
    count = sum(map(len, NEEDED.values()))
    if not lacking:
        return ok("permissions", f"all {count} that submitting needs in namespace {client.namespace}")
    named = "; ".join(f"{', '.join(verbs)} {resource}" for (_, resource), verbs in lacking.items())
    return fail("permissions", f"may not in namespace {client.namespace}: {named}", _grant(client, user))


def _lacking(client: Client, group: str, resource: str) -> tuple[str, ...]:
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": client.namespace, "group": group, "resource": name, "subresource": subresource}

    def may(verb: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "verb": verb}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        said, _ = client.ask(path, what="ask what we may do", body=review)
        return bool(said.get("status", {}).get("allowed"))

    return tuple(verb for verb in NEEDED[group, resource] if not may(verb))


def _grant(client: Client, user: str) -> str:
    """Return the commands by which one who may do so makes the Role and gives it to us."""
    namespace, account = client.namespace, re.fullmatch(r"system:serviceaccount:([^:]+):([^:]+)", user)
    whom = f"--serviceaccount={account[1]}:{account[2]}" if account else f"--user={user or 'USER'}"
    role = f"{client.kubectl} apply -f manifests/rbac.yaml"
    if namespace != "runner":
        named = f"sed -E 's/^( *name(space)?): runner$/\\1: {namespace}/' manifests/rbac.yaml"
        role = f"{named} | {client.kubectl} apply -f -"
    name = re.sub(r"[^a-z0-9]+", "-", (account[2] if account else user).lower()).strip("-") or "user"
    bind = f"{client.kubectl} create rolebinding runner-submitter-{name} --role=runner-submitter {shlex.quote(whom)}"
    return f"{role} && {bind}"


def _namespace(client: Client) -> Check:
    name, see = client.namespace, f"{client.kubectl} get namespace {client.namespace} --show-labels"
    label = f"{client.kubectl} label --overwrite namespace {name} {_STANDARD}=restricted"
    try:
        found, _ = client.ask(f"/api/v1/namespaces/{quote(name)}", what="get namespaces")
    except NotFoundError:
        make = f"{client.kubectl} create namespace {name} && {label}"
        return fail("namespace", f"there is no namespace {name}", make)
    except NotAllowedError:
        return unknown("namespace", f"we may not look at namespace {name}", see)
    if found.get("status", {}).get("phase") == "Terminating":
        return fail("namespace", f"{name} is being deleted", "give another -n NAMESPACE")
    standard = (found["metadata"].get("labels") or {}).get(_STANDARD)
    if standard == "restricted":
        return ok("namespace", f"{name} enforces the Pod Security Standard restricted")
    finding = (
        f"{name} enforces {f'only {standard}' if standard else 'no Pod Security Standard'}; our pods keep restricted"
    )
    return warn("namespace", finding, label)


def _network(client: Client) -> Check:
    see = f"{client.kubectl} get daemonsets -A"
    try:
        said, _ = client.ask("/apis/apps/v1/daemonsets", what="list daemonsets")
    except NotAllowedError:
        return unknown("network", "we may not see which network plugin there is, nor if it enforces policies", see)
    names = {str(each["metadata"]["name"]) for each in said.get("items") or ()}
    if enforcing := sorted(names & set(_ENFORCING)):
        return ok("network", f"{_ENFORCING[enforcing[0]]} enforces NetworkPolicies")
    if ignoring := sorted(names & set(_IGNORING)):
        finding = f"{_IGNORING[ignoring[0]]} takes NetworkPolicies and does not enforce them"
        return warn(
            "network", finding, "take a plugin that does, such as Cilium or Calico (GKE: --enable-dataplane-v2)"
        )
    return unknown("network", "no network plugin that we know, so NetworkPolicies may not be enforced", see)
