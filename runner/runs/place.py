"""On which cluster a run is: written once, by whoever makes its Job or first sees it, and never guessed.

A run whose Job is not to be seen has ended only for somebody who looks where it was. Two who may look at the namespace
know it by its uid, whichever address they reach it by: from a pod it is another one than from outside. What everybody
has, whatever their rights, is an address, and the certificates that vouch for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from runner import layout, ledger, run_record
from runner.errors import PreconditionError
from runner.store import Store


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of a cluster, the context that led there, and the values that the run's Job was made with.

    `context` is None from a pod of the cluster, `uid` empty for who may not look at the namespace.
    """

    server: str
    authorities: tuple[str, ...]
    namespace: str
    context: str | None
    values: tuple[Mapping[str, Any], ...] = ()
    uid: str = ""

    def __str__(self) -> str:
        """Return the place as a user is told it."""
        by = f"context {self.context}" if self.context else "from a pod of it"
        return f"namespace {self.namespace} of {self.server} ({by})"

    def same(self, other: Place) -> bool:
        """Tell whether both are one namespace of one cluster, by any name of the context.

        A tunnel's address may lead to several clusters, and one authority may vouch for several: both must agree.

        >>> here = Place("https://a", ("x",), "n", "c")
        >>> here.same(Place("https://a", ("x", "y"), "n", "d")), here.same(Place("https://a", ("z",), "n", "c"))
        (True, False)
        >>> inside = Place("https://10.96.0.1", ("x",), "n", None, uid="u")
        >>> inside.same(here), inside.same(Place("https://a", (), "n", "c", uid="u"))
        (False, True)
        """
        if self.uid and self.uid == other.uid:
            return True
        vouched = set(self.authorities) & set(other.authorities) or not (self.authorities and other.authorities)
        return (self.server, self.namespace) == (other.server, other.namespace) and bool(vouched)


def read(store: Store, run: str) -> Place | None:
    """Return where a run is, or None while nobody has made or seen its Job."""
    if store.head(layout.cluster(run)) is None:
        return None
    try:
        document = json.loads(store.get(layout.cluster(run)))
        return Place(
            server=document["server"],
            authorities=tuple(document["authorities"]),
            namespace=document["namespace"],
            context=document["context"],
            values=tuple(document["values"]),
            uid=document.get("uid", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise run_record.unreadable(store, layout.cluster(run), run, e) from e


def write(store: Store, run: str, place: Place) -> bool:
    """Write where a run is if nobody has; tell whether it was ours."""
    body = ledger.canonical({"apiVersion": ledger.API_VERSION, **asdict(place)})
    with suppress(PreconditionError):
        store.put(layout.cluster(run), body)
        return True
    return False


def forget(store: Store, run: str) -> None:
    """Take back what was written of a Job that could not be made."""
    store.delete(layout.cluster(run))
