"""Whether a registry has an image, asked as anybody may ask: its manifest, with the token that is given to everybody.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and of the token
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import ipaddress
import json
import re
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlencode

import urllib3

_TIMEOUT = urllib3.Timeout(connect=3.0, read=5.0)
_KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def has(image: str) -> bool | None:
    """Tell whether an image's registry has it; None where it has none, or that does not tell, or not everybody."""
    host, name, reference = parts(image)
    if not host:
        return None
    url = f"{_scheme(host)}://{host}/v2/{name}/manifests/{reference}"
    with urllib3.PoolManager(timeout=_TIMEOUT, retries=False) as pool:
        try:
            answer = pool.request("HEAD", url, headers={"Accept": ", ".join(_KINDS)})
            if answer.status == HTTPStatus.UNAUTHORIZED:
                token = _token(pool, answer.headers.get("WWW-Authenticate", ""))
                headers = {"Accept": ", ".join(_KINDS), "Authorization": f"Bearer {token}"}
                answer = pool.request("HEAD", url, headers=headers) if token else answer
        except (urllib3.exceptions.HTTPError, OSError):
            return None
    known: dict[int, bool] = {HTTPStatus.OK: True, HTTPStatus.NOT_FOUND: False}
    return known.get(answer.status)


def parts(image: str) -> tuple[str, str, str]:
    """Return (registry, repository, tag or digest) of an image's name, as container engines read it.

    >>> parts("europe-docker.pkg.dev/project/runner/runner:0.1.0")
    ('europe-docker.pkg.dev', 'project/runner/runner', '0.1.0')
    >>> parts("runner"), parts("localhost:5000/a@sha256:00")
    (('', 'runner', 'latest'), ('localhost:5000', 'a', 'sha256:00'))
    """
    first, slash, rest = image.partition("/")
    is_host = bool(slash) and (first == "localhost" or any(mark in first for mark in ".:"))
    name, at, digest = (rest if is_host else image).partition("@")
    name, _, tag = name.partition(":")
    return first if is_host else "", name, digest if at else tag or "latest"


def _scheme(host: str) -> str:
    """Return http for this machine's own registries alone, as container engines do."""
    name = host.rpartition(":")[0] or host
    with suppress(ValueError):
        return "http" if ipaddress.ip_address(name).is_loopback else "https"
    return "http" if name == "localhost" else "https"


def _token(pool: urllib3.PoolManager, challenge: str) -> str:
    """Return a token for everybody, "" where there is none."""
    given = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = given.pop("realm", "")
    if not challenge.startswith("Bearer ") or not realm.startswith(("https://", "http://")):
        return ""
    answer = pool.request("GET", f"{realm}?{urlencode(given)}")
    try:
        document = json.loads(answer.data)
    except ValueError:
        return ""
    found = document.get("token") or document.get("access_token") if isinstance(document, dict) else ""
    return str(found or "")
