"""Many pages of a bucket's list at once, handed out in the order of one list.

The first page is asked for alone, and mostly it is all. Else what lies behind it is cut where folders begin, into
parts of about a page, and the next few parts are fetched while the first is read; a part that proves bigger is cut in
the same way one folder deeper. Parts are ranges of names without gaps, so that nothing is missed or listed twice,
whatever others write meanwhile. Held are at most `AHEAD` pages per level of folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from google.cloud.storage import Blob

AHEAD = 8
"""How many pages are asked for at the same time."""

_FIELDS = "items(name,size,generation,crc32c,updated,metadata),nextPageToken"
_FOLDERS = "prefixes,nextPageToken"

T = TypeVar("T")
Ask = Callable[..., Any]
"""Begins a list: takes the options of `Client.list_blobs` and returns its iterator."""


@dataclass(frozen=True, slots=True)
class Part:
    """Names that start with `prefix`, are after `after` and before `end`; `token` goes on behind an earlier page.

    All names up to `level` are alike, as far as is known: it is where to look for folders to cut at.
    """

    prefix: str
    level: str
    after: str = ""
    end: str = ""
    start: str = ""
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What one request found, and what remains of its part."""

    found: Sequence[T]
    rest: tuple[Part, ...]


def listed(prefix: str, fetch: Callable[[Part], Page[T]]) -> Iterator[T]:
    """Yield what lies under a prefix, ascending by UTF-8 bytes; `fetch` gets one page of a part."""
    page = fetch(Part(prefix, prefix))
    yield from page.found
    if page.rest:
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="list")
        try:
            yield from _in_order(page.rest, lambda part: pool.submit(fetch, part))
        finally:  # also when the reader has had enough
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(parts: Sequence[Part], submit: Callable[[Part], Future[Page[T]]]) -> Iterator[T]:
    def begun(each: Part | Future[Page[T]]) -> Future[Page[T]]:
        return submit(each) if isinstance(each, Part) else each

    line: list[Part | Future[Page[T]]] = [*parts]
    while line:
        line[:AHEAD] = map(begun, line[:AHEAD])
        page = begun(line.pop(0)).result()
        line[:0] = page.rest
        yield from page.found


def fetch_page(ask: Ask, part: Part) -> Page[Blob]:
    """Ask for one page of a part and, when there is more, for where to cut what remains."""
    bounds = {"start_offset": part.after or part.start or None, "end_offset": part.end or None}
    found = ask(prefix=part.prefix, fields=_FIELDS, page_token=part.token, **bounds)
    blobs = list(next(found.pages, ()))
    rest = _rest(ask, part, [str(blob.name) for blob in blobs], found.next_page_token)
    return Page([blob for blob in blobs if blob.name != part.after], rest)


def _rest(ask: Ask, part: Part, names: Sequence[str], token: str | None) -> tuple[Part, ...]:
    """Return what remains of a part behind a page of it, in order."""
    if not token:
        return ()
    level = part.level
    while names and (folder := _folder(names[-1], level)):
        last = names[-1]
        cuts = _cuts(ask, part, level, last)
        if cuts:
            here = replace(part, after="", start="", token=None)
            # So many folders make about a page.
            step = max(1, len({_folder(name, level) for name in names}) - 1)
            edges = [*cuts[::step], part.end]
            behind = (
                replace(here, level=start if step == 1 else level, start=start, end=end)
                for start, end in pairwise(edges)
            )
            return (replace(here, level=folder, after=last, end=cuts[0]), *behind)
        level = folder
    return (replace(part, level=level, token=token),)


def _cuts(ask: Ask, part: Part, level: str, last: str) -> list[str]:
    """Return the folders right under a level that begin after a name, as many as one request tells."""
    found = ask(prefix=level, delimiter="/", fields=_FOLDERS, start_offset=last, end_offset=part.end or None)
    page = next(found.pages, None)
    return sorted(folder for folder in (page.prefixes if page is not None else ()) if folder > last)


def _folder(name: str, level: str) -> str:
    """Return the folder right under a level that a name lies in, "" when it lies in none.

    >>> _folder("a/b/c", "a/"), _folder("a/b", "a/"), _folder("b/c", "a/")
    ('a/b/', '', '')
    """
    below, mark, _ = name.removeprefix(level).partition("/")
    return f"{level}{below}/" if mark and name.startswith(level) else ""
