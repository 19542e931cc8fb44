"""Whole columns of numbers to CSV bytes, vectorised: a field is a matrix of digits padded with NUL on either side.

Numbers are plain decimals in their shortest form, as the source writes them; a missing one is an empty field.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_GROUP_DIGITS = 4
_GROUP = 10**_GROUP_DIGITS
# The table of a fraction has ten to this many rows.
DECIMALS_MAX = 5


@cache
def _groups() -> NDArray[np.uint32]:
    """Return the four digits of 0 to 9999, packed."""
    digits = np.arange(_GROUP)[:, None] // 10 ** np.arange(_GROUP_DIGITS - 1, -1, -1) % 10 + ord("0")
    return np.ascontiguousarray(digits.astype(np.uint8)).view(np.uint32).ravel()


@cache
def _fractions(decimals: int) -> Bytes:
    """Return `.ddd` without trailing zeros for every fraction of so many decimals."""
    values = np.arange(10**decimals)
    table = np.full((len(values), decimals + 1), ord("."), np.uint8)
    for place in range(decimals):
        unit = 10 ** (decimals - 1 - place)
        table[:, place + 1] = values // unit % 10 + ord("0")
        table[values % (unit * 10) == 0, place + 1] = 0
    table[0] = 0
    return table


def integers(values: Ints, missing: NDArray[np.bool_] | None = None) -> Bytes:
    """Return one row of digits for every value, all ≥ 0."""
    highest = int(values.max(initial=0))
    groups = 1
    while highest >= _GROUP**groups:
        groups += 1
    packed = np.empty((len(values), groups), np.uint32)
    rest = values
    for column in range(groups - 1, -1, -1):
        rest, low = (rest // _GROUP, rest % _GROUP) if column else (rest, rest)
        packed[:, column] = _groups()[low]
    digits = packed.view(np.uint8).reshape(len(values), groups * _GROUP_DIGITS)
    lowest = int(values.min(initial=highest))
    for place in range(groups * _GROUP_DIGITS - 1):
        bound = 10 ** (groups * _GROUP_DIGITS - 1 - place)
        if lowest >= bound:
            break
        digits[values < bound, place] = 0
    if missing is not None:
        digits[missing] = 0
    return digits


def decimals(units: Ints, places: int, missing: NDArray[np.bool_] | None = None) -> Bytes:
    """Return values given in units of 10^-places, all ≥ 0, in their shortest form."""
    if not places:
        return integers(units, missing)
    whole, fraction = np.divmod(units, 10**places)
    found = np.concatenate([integers(whole), _fractions(places)[fraction]], axis=1)
    if missing is not None:
        found[missing] = 0
    return found


def words(indexes: Ints, choices: tuple[str, ...]) -> Bytes:
    """Return one of a few words for every index."""
    width = max(map(len, choices))
    table = np.array([list(word.encode().ljust(width, b"\0")) for word in choices], np.uint8).reshape(-1, width)
    found: Bytes = table[indexes]
    return found


def empty(count: int) -> Bytes:
    """Return a column of empty fields."""
    return np.empty((count, 0), np.uint8)


def lines(prefix: str, columns: list[Bytes]) -> bytes:
    """Return CSV lines, each `prefix` and then the columns, comma-separated."""
    start = np.frombuffer(prefix.encode(), np.uint8)
    count = len(columns[0])
    width = len(start) + sum(1 + column.shape[1] for column in columns) + 1
    matrix = np.empty((count, width), np.uint8)
    matrix[:, : len(start)] = start
    at = len(start)
    for column in columns:
        matrix[:, at] = ord(",")
        matrix[:, at + 1 : at + 1 + column.shape[1]] = column
        at += 1 + column.shape[1]
    matrix[:, at] = ord("\n")
    return matrix.tobytes().translate(None, b"\0")
