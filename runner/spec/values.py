"""Raw values (text of a flag or a variable, scalars of a YAML file) to checked ones.

Each function returns the canonical value or raises ValueError with why it is refused and what to give instead; the
caller adds what and where. Any order of a list gives the same value, so that equal requests are equal.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from urllib.parse import urlsplit

from runner.logs import escape
from runner.market.names import DATA_TYPE_NAMES
from runner.market.symbols import INSTRUMENT_TYPES, VENUES, resolve_type, resolve_venue

# Nothing Tardis sells is older; a year outside these bounds is a typing error.
FIRST_YEAR, LAST_YEAR = 2010, 2100
SHOWN_CHARS = 60

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_SELECTOR_MARKS = frozenset(":_-.*?[]!@+&$/=()")
_SELECTOR_CHARS = 200
_NAME_CHARS = 300
_EMPTY = "is an empty list; name at least one or leave it out"
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def shown(value: object) -> str:
    """Return a value as a message may show it: one line, no control characters, not long.

    >>> shown("a b"), shown(True), shown("x" * 99)[-4:]
    ('a b', 'true', 'xxx…')
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = escape(value if isinstance(value, str) else _listed(value)) or "(empty)"
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the valid name nearest to `name`, or nothing when none is near.

    >>> nearest("binnance", ["BINANCE", "OKX"]), nearest("zzz", ["BINANCE"])
    (' (did you mean BINANCE?)', '')
    """
    by_fold = {_fold(candidate): candidate for candidate in valid}
    match = difflib.get_close_matches(_fold(name), by_fold, n=1, cutoff=0.6)
    return f" (did you mean {by_fold[match[0]]}?)" if match else ""


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a reader of whole numbers from `low` to `high`, both inclusive."""

    def read(value: object) -> int:
        text = shown(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return read


def positive(unit: str) -> Callable[[object], float]:
    """Return a reader of numbers above 0, in `unit`."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"must be a number of {unit} above 0")  # noqa: TRY004 pydantic wants ValueError
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"must be a number of {unit} above 0")
        return number

    return read


def day(value: object) -> date:
    """Return the UTC day that a text YYYY-MM-DD names.

    >>> day("2024-02-29")
    datetime.date(2024, 2, 29)
    """
    if type(value) is date:
        value = value.isoformat()
    if not isinstance(value, str) or not _DATE.fullmatch(value.strip()):
        raise ValueError("must be a date as YYYY-MM-DD (a UTC day)")
    year, month, number = map(int, value.strip().split("-"))
    try:
        found = date(year, month, number)
    except ValueError as e:
        raise ValueError(f"is not a day of the calendar ({e}); give one as YYYY-MM-DD") from e
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"must be a day of the years {FIRST_YEAR} to {LAST_YEAR}")
    return found


def flag(value: object) -> bool:
    """Return a truth value.

    >>> flag("yes"), flag(False)
    (True, False)
    """
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return text in _TRUE


def word(value: object) -> str:
    """Return a name of one word, such as a run's.

    >>> word(" download-3f9a1c20 ")
    'download-3f9a1c20'
    """
    text = value.strip() if isinstance(value, str) else ""
    if not re.fullmatch(r"[\w.@-]{1,100}", text, re.ASCII):
        raise ValueError("must be one word of letters, digits, - and _")
    return text


def visible(value: object) -> str:
    """Return a name of visible characters, such as an image's or that of a kubeconfig's context.

    >>> visible("registry.example/team/runner:0.1.0")
    'registry.example/team/runner:0.1.0'
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > _NAME_CHARS or text.startswith("-") or not all("!" <= c <= "~" for c in text):
        raise ValueError("must be one name of visible characters, without spaces")
    return text


def namespace(value: object) -> str:
    """Return the name of a namespace: a DNS label.

    >>> namespace("market-data")
    'market-data'
    """
    text = value.strip() if isinstance(value, str) else ""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise ValueError("must be small letters, digits and -, as Kubernetes names namespaces")
    return text


def words(value: object) -> tuple[str, ...]:
    """Return the words of a comma or space list, or of a YAML list of such.

    >>> words("a, b c"), words(["a", "b,c"])
    (('a', 'b', 'c'), ('a', 'b', 'c'))
    """
    if isinstance(value, str):
        found = tuple(word for word in re.split(r"[,\s]+", value) if word)
    elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        found = tuple(word for item in value for word in words(item))
    else:
        raise ValueError("must be a list of names, separated by comma or space")
    if not found and value not in ([], ()):
        raise ValueError(_EMPTY)
    return found


def some(read: Callable[[object], tuple[str, ...]]) -> Callable[[object], tuple[str, ...]]:
    """Return the reader that refuses an empty list too."""

    def checked(value: object) -> tuple[str, ...]:
        found = read(value)
        if not found:
            raise ValueError(_EMPTY)
        return found

    return checked


def names(kind: str, order: Sequence[str], find: Callable[[str], str | None]) -> Callable[[object], tuple[str, ...]]:
    """Return a reader of lists of names that `find` knows: in the given order, once each."""

    def read(value: object) -> tuple[str, ...]:
        found = {word: find(word) for word in words(value)}
        for word, name in found.items():
            if name is None:
                raise ValueError(_unknown(kind, word, order))
        return tuple(name for name in order if name in found.values())

    return read


def selectors(value: object) -> tuple[str, ...]:
    """Return instrument selectors in upper case, sorted, once each.

    >>> selectors("binance:*:btc-*, BTCUSDT")
    ('BINANCE:*:BTC-*', 'BTCUSDT')
    """
    found = words(value)
    for word in found:
        if len(word) > _SELECTOR_CHARS or word.startswith("-") or not all(map(_of_selector, word)):
            raise ValueError(
                f"{shown(word)} is not an instrument: give keys as VENUE:TYPE:SYMBOL, globs on them, or Tardis ids"
            )
    return tuple(sorted({word.upper() for word in found}))


def choice(kind: str, valid: Sequence[str]) -> Callable[[object], str]:
    """Return a reader of one of a few words, in any case."""

    def read(value: object) -> str:
        for name in valid:
            if isinstance(value, str) and _fold(value) == _fold(name):
                return name
        raise ValueError(_unknown(kind, shown(value), valid))

    return read


def http_url(value: object) -> str:
    """Return an http(s) URL without trailing slashes; credentials, query and fragment are refused."""
    text = value.strip().rstrip("/") if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 raises when the port is no port
    except ValueError as e:
        raise ValueError(f"is not a URL ({e}); give one as https://host/path") from e
    if parts.scheme not in {"http", "https"} or not parts.hostname or not text.isprintable():
        raise ValueError("must be a URL as https://host/path")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a plain URL: no user, password, query or fragment")
    return text


def store_url(value: object) -> str:
    """Return a store's URL without trailing slashes: gs://bucket/prefix, file:///dir, memory://name, or a path."""
    text = value.strip() if isinstance(value, str) else ""
    scheme, mark, rest = text.partition("://")
    if not text or not text.isprintable():
        raise ValueError("must be a URL: file:///dir, gs://bucket/prefix or memory://name")
    if not mark:
        if text[0] not in "/.~":
            raise ValueError(f"has no scheme; for a directory give file://./{shown(text)}, for a bucket gs://…")
        return text.rstrip("/") or "/"
    if scheme not in {"file", "gs", "memory"}:
        raise ValueError(
            f"has an unknown scheme{nearest(scheme, ('file', 'gs', 'memory'))}; give file://, gs:// or memory://"
        )
    if scheme == "gs" and not _BUCKET.fullmatch(rest.split("/", 1)[0]):
        raise ValueError("has no valid bucket name (lower case, 3 characters or more); give gs://bucket/prefix")
    if not rest.strip("/") and scheme == "file":
        raise ValueError("names no directory; give file:///dir")
    return f"{scheme}://{rest.rstrip('/')}"


def _unknown(kind: str, name: str, valid: Sequence[str]) -> str:
    return f"no {kind} is called {shown(name)}{nearest(name, valid)}; valid: {', '.join(valid)}"


def _of_selector(char: str) -> bool:
    return char.isalnum() or char in _SELECTOR_MARKS


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _listed(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    # Python refuses to print a whole number of thousands of digits, and nobody would read it.
    return "(a huge number)" if isinstance(value, int) and abs(value) > 10**SHOWN_CHARS else str(value)


def _data_type(text: str) -> str | None:
    return next((name for name in DATA_TYPE_NAMES if _fold(name) == _fold(text)), None)


venues = names("venue", tuple(venue.venue for venue in VENUES), resolve_venue)
instrument_types = names("instrument type", INSTRUMENT_TYPES, resolve_type)
data_types = names("data type", DATA_TYPE_NAMES, _data_type)
