"""Blocks of plain rows to Arrow by compiled code (scan.c): the same rows as by Arrow's reader, to the bit, and sooner.

Plain is nearly all that real files hold. Of what is not, and where nothing could be compiled, this says nothing:
csv.py, which knows what is sound and what to say of what is not, reads such a block itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.market.schema import TIME

try:
    from runner.tardis import scan
except ImportError:  # installed where there is no C compiler
    scan = None  # type: ignore[assignment]

_TIME_BYTES = 16
_VALUE_BYTES = 8
# Text is copied so many bytes at a time; a word is shorter.
_COPIED_BYTES = 8
_ALIGNED_BYTES = 64

# The letters by which scan.c knows what a column holds; "w" is a word of a list.
_KINDS = {TIME: "t", pa.float64(): "n", pa.string(): "s", pa.bool_(): "f"}

# Where in the room a column's bitmap, values and text begin, and how much text there may be.
_Place = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Field:
    """What a column may hold: one of `words`, if there are any; times in [low_us, high_us)."""

    name: str
    type: pa.DataType
    may_be_empty: bool
    words: tuple[str, ...] = ()
    low_us: int = 0
    high_us: int = 0

    @property
    def kind(self) -> str:
        """Return the letter by which scan.c knows it."""
        return "w" if self.words else _KINDS[self.type]


class Plain:
    """The reader of rows that begin with `prefix` and then hold `fields`, in the order of the file."""

    def __init__(self, prefix: bytes, fields: Sequence[Field], schema: pa.Schema) -> None:
        self._prefix, self._schema, self._fields = prefix, schema, fields
        self._kinds = [field.kind for field in fields]
        self._fixed = [_fixed(field) for field in fields]
        self._order = [[field.name for field in fields].index(name) for name in schema.names]
        times = sum(field.kind == "t" and not field.may_be_empty for field in fields)
        self._shortest = len(prefix) + len(fields) + _TIME_BYTES * times

    def read(self, block: bytes | memoryview) -> pa.RecordBatch | None:
        """Return the rows of a block of whole lines; None when it is not certain what they are."""
        rows = scan.lines(block)
        spare = len(block) - rows * self._shortest
        if not rows or spare < 0:
            return None
        places, size = self._places(rows, spare)
        # Not of Arrow's pool, which gives memory back at once: every page would be a fault in each block again.
        room = np.empty(size, np.uint8)
        columns = tuple((*fixed, *place) for fixed, place in zip(self._fixed, places, strict=True))
        empty = scan.fill(block, self._prefix, room.data, rows, columns)
        if empty is None:
            return None
        filled = pa.py_buffer(room)
        arrays = [
            pa.Array.from_buffers(field.type, rows, _buffers(filled, place, nulls), nulls)
            for field, place, nulls in zip(self._fields, places, empty, strict=True)
        ]
        return pa.RecordBatch.from_arrays([arrays[n] for n in self._order], schema=self._schema)

    def _places(self, rows: int, spare: int) -> tuple[list[_Place], int]:
        """Return where in the room each column lies, and the size of the room; text has at most `spare` bytes."""
        bitmap, values = _aligned(rows // 8 + 1), _aligned((rows + 1) * _VALUE_BYTES)
        text = {"s": _aligned(spare + _COPIED_BYTES), "w": _aligned((rows + 1) * _COPIED_BYTES)}
        places, at = [], 0
        for kind in self._kinds:
            text_bytes = text.get(kind, 0)
            places.append((at, at + bitmap, at + bitmap + values, text_bytes))
            at += bitmap + values + text_bytes
        return places, at


def available() -> bool:
    """Tell whether the compiled part is here."""
    return scan is not None


def _fixed(field: Field) -> tuple[str, bool, int, int, bytes]:
    words = ("false", "true") if field.kind == "f" else field.words
    return field.kind, field.may_be_empty, field.low_us, field.high_us, " ".join(words).encode()


def _buffers(room: pa.Buffer, place: _Place, nulls: int) -> list[pa.Buffer | None]:
    bitmap, values, text, text_bytes = place
    present = room.slice(bitmap, values - bitmap) if nulls else None
    return [present, room.slice(values, text - values), *([room.slice(text, text_bytes)] if text_bytes else [])]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES
