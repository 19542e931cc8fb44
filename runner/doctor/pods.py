"""What the pods of a run meet in their namespace: account, Secret with the key, image, way out, and the Job itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from runner.backends.kubernetes.client import Client, Object
from runner.backends.kubernetes.render import job
from runner.backends.kubernetes.values import Layer, load_values, values_for
from runner.doctor import registry
from runner.doctor.check import Check, Verdict, fail, ok, tried, unknown, warn
from runner.errors import NotAllowedError, NotFoundError, RunnerError, TransientError
from runner.spec import RunSpec

NAMES = ("account", "secret", "image", "egress", "job")
_TRY = "runner submit --dry-run=server --backend kubernetes"


def examine(client: Client, spec: RunSpec, layers: Sequence[Layer]) -> Iterator[Check]:
    """Yield the checks of the pods of a request, in the order of NAMES. Raises SpecError for layers that are wrong."""
    pod = load_values(layers)["pod"]
    is_bucket, image = spec.store.startswith("gs://"), str(spec.image or pod.get("image") or "")
    see = f"{client.kubectl} auth can-i --list"
    yield tried("account", lambda: _account(client, pod, is_bucket=is_bucket), mend=see, otherwise=Verdict.UNKNOWN)
    yield tried("secret", lambda: _secret(client, pod.get("tardisKey")), mend=see, otherwise=Verdict.UNKNOWN)
    try:
        nodes: tuple[Object, ...] | None = tuple(_items(client, "/api/v1/nodes", "list nodes"))
    except RunnerError:
        nodes = None
    yield _image(image, nodes)
    yield _egress(client, nodes, has_key=bool(pod.get("tardisKey")))
    yield _job(client, spec, layers)


def _items(client: Client, path: str, what: str) -> Iterable[Object]:
    said, _ = client.ask(path, what=what)
    return said.get("items") or ()


def _account(client: Client, pod: Mapping[str, Any], *, is_bucket: bool) -> Check:
    name = pod.get("serviceAccountName")
    if not name:
        if not is_bucket:
            return ok("account", "the namespace's default one")
        mend = "write pod.serviceAccountName: runner-worker into a --values file, and let that account use the bucket"
        return warn("account", "pods run as the namespace's default account, which rarely may use a bucket", mend)
    path = f"/api/v1/namespaces/{quote(client.namespace)}/serviceaccounts/{quote(str(name))}"
    try:
        client.ask(path, what="get serviceaccounts")
    except NotFoundError:
        return fail("account", f"there is no service account {name}", f"{client.kubectl} create serviceaccount {name}")
    except NotAllowedError:
        see = f"{client.kubectl} get serviceaccount {name}"
        return unknown("account", f"we may not see whether there is a service account {name}", see)
    return ok("account", f"service account {name} is there")


def _secret(client: Client, source: Mapping[str, Any] | None) -> Check:
    if not source:
        mend = "name a Secret in pod.tardisKey of a --values file"
        return warn("secret", "pods get no key, so only the first days of months can be had", mend)
    name = str(source.get("secretName"))
    keys = [str(item.get("key")) for item in source.get("items") or ()]
    make = f"{client.kubectl} create secret generic {name} " + " ".join(f"--from-file={key}=FILE" for key in keys)
    path = f"/api/v1/namespaces/{quote(client.namespace)}/secrets/{quote(name)}"
    try:
        found, _ = client.ask(path, what="get secrets")
    except NotFoundError:
        return fail("secret", f"there is no Secret {name}, and pods wait for it for ever", make)
    except NotAllowedError:
        see = f"{client.kubectl} describe secret {name}"
        return unknown("secret", f"we may not see whether there is a Secret {name}, which is well", see)
    # Names and whether something is there: what it is concerns nobody here.
    lacking = [key for key in keys if not (found.get("data") or {}).get(key)]
    if lacking:
        again = f"{make} --dry-run=client -o yaml | {client.kubectl} apply -f -"
        return fail("secret", f"Secret {name} has nothing under {', '.join(lacking)}", again)
    return ok("secret", f"Secret {name} is there, with {', '.join(keys) or 'all its entries'}")


def _image(image: str, nodes: tuple[Object, ...] | None) -> Check:
    if not image:
        return fail("image", "none is configured", "give --image IMAGE; to make one: scripts/images build")
    holding = [node for node in nodes or () if image in _images(node)]
    where = f"{len(holding)} of {len(nodes or ())} nodes have it already"
    if not _is_fixed(image):
        found = f"{image} names no version, so nodes may run different ones"
        return warn("image", f"{found}; {where}" if holding else found, "give --image with a tag or a digest")
    if holding:
        return ok("image", f"{image}: {where}")
    there = registry.has(image)
    if there is False:
        return fail(
            "image", f"its registry has no {image}", f"scripts/images build {image} && scripts/images push {image}"
        )
    if there:
        return ok("image", f"{image}: its registry has it for everybody")
    pull = f"docker manifest inspect {image}"
    return unknown("image", f"{image}: whether nodes can pull it only they know; its registry does not tell us", pull)


def _images(node: Object) -> set[str]:
    """Return the names of the images that a node has, as people write them."""
    names = {str(name) for image in node.get("status", {}).get("images") or () for name in image.get("names") or ()}
    return names | {name.removeprefix("docker.io/").removeprefix("library/") for name in names}


def _is_fixed(image: str) -> bool:
    """Tell whether an image's name has a digest, or a tag that is not the moving one.

    >>> [_is_fixed(name) for name in ("a/b:0.1.0", "host:5000/b", "b:latest", "b@sha256:00")]
    [True, False, False, True]
    """
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return "@" in image or (bool(tag) and tag != "latest")


def _egress(client: Client, nodes: tuple[Object, ...] | None, *, has_key: bool) -> Check:
    see = f"{client.kubectl} get nodes -o wide"
    if not nodes:
        finding = "there is no node yet" if nodes is not None else "we may not see the nodes"
        return unknown("egress", f"{finding}, so not by how many addresses pods leave", see)
    addresses = {
        str(address.get("address"))
        for node in nodes
        for address in node.get("status", {}).get("addresses") or ()
        if address.get("type") == "ExternalIP"
    }
    if not addresses:
        finding = "nodes have no addresses of their own: pods leave by a gateway, which must have one address only"
        return unknown("egress", finding, "gcloud compute routers nats list --router ROUTER --region REGION")
    if not has_key:
        return ok("egress", "without a key it does not matter by how many addresses pods leave")
    one = "a key works from one address at a time; use private nodes behind a NAT of one address: scripts/gke up"
    if len(addresses) > 1:
        return fail("egress", f"pods leave by {len(addresses)} addresses, one for each node", one)
    return warn("egress", "pods leave by the address of the one node there is; a second node brings another", one)


def _job(client: Client, spec: RunSpec, layers: Sequence[Layer]) -> Check:
    """Return whether the cluster would take a Job like those of runs: its fields, its quotas, its policies."""
    name, space = f"{spec.stage}-00000000", client.namespace
    try:
        filled = values_for(spec, run_id=name, shards=1, image=spec.image, namespace=space, files=layers)
        client.create("jobs", job(filled), dry_run=True)
    except NotAllowedError:
        return unknown("job", "we may not create Jobs, not even to see whether they are taken", _TRY)
    except TransientError as e:
        return unknown("job", str(e), _TRY)
    except RunnerError as e:
        return fail("job", str(e), "mend what is named, then runner doctor again")
    return ok("job", "the cluster would take our Job with these values (dry run)")
