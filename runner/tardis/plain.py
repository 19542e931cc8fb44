"""Blocks of plain rows to Arrow by compiled code (scan.c): the same rows as by Arrow's reader, to the bit, and sooner.

Plain is nearly all that real files hold. Of what is not, and where nothing could be compiled, this says nothing:
csv.py, which knows what is sound and what to say of what is not, reads such a block itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from runner.market.schema import TIME

try:
    from runner.tardis import scan
except ImportError:  # installed where there is no C compiler
    scan = None  # type: ignore[assignment]

_TIME_BYTES = 16
_VALUE_BYTES = 8
_WORD_BYTES = 8
# Text is copied so many bytes at a time.
_COPIED_BYTES = 8
_ALIGNED_BYTES = 64

_KINDS = {TIME: "t", pa.float64(): "n", pa.string(): "s", pa.bool_(): "f"}

# Offsets of a column's bitmap, values and text, and how much text there may be.
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
        self._order = [[field.name for field in fields].index(name) for name in schema.names]
        self._fixed = [_fixed(field) for field in fields]
        times = sum(field.kind == "t" and not field.may_be_empty for field in fields)
        self._shortest = len(prefix) + len(fields) + _TIME_BYTES * times

    def read(self, block: bytes) -> pa.RecordBatch | None:
        """Return the rows of a block of whole lines; None when it is not certain what they are."""
        rows = scan.lines(block)
        spare = len(block) - rows * self._shortest
        if not rows or spare < 0:
            return None
        places, size = self._places(rows, spare)
        room = pa.allocate_buffer(size)
        columns = tuple((*fixed, *place) for fixed, place in zip(self._fixed, places, strict=True))
        empty = scan.fill(block, self._prefix, room, rows, columns)
        if empty is None:
            return None
        arrays = [
            pa.Array.from_buffers(field.type, rows, _buffers(room, place, nulls), nulls)
            for field, place, nulls in zip(self._fields, places, empty, strict=True)
        ]
        return pa.RecordBatch.from_arrays([arrays[n] for n in self._order], schema=self._schema)

    def _places(self, rows: int, spare: int) -> tuple[list[_Place], int]:
        """Return where in the room each column lies, and the size of the room; text has at most `spare` bytes."""
        bits, values = _aligned(rows // 8 + 1), _aligned((rows + 1) * _VALUE_BYTES)
        text = {"s": spare + _COPIED_BYTES, "w": (rows + 1) * _WORD_BYTES}
        places, at = [], 0
        for field in self._fields:
            spelt = _aligned(text.get(field.kind, 0))
            places.append((at, at + bits, at + bits + values, spelt))
            at += bits + values + spelt
        return places, at


def available() -> bool:
    """Tell whether the compiled part is here."""
    return scan is not None


def _fixed(field: Field) -> tuple[str, bool, int, int, bytes]:
    words = ("false", "true") if field.kind == "f" else field.words
    return field.kind, field.may_be_empty, field.low_us, field.high_us, " ".join(words).encode()


def _buffers(room: pa.Buffer, place: _Place, nulls: int) -> list[pa.Buffer | None]:
    bits, values, text, text_bytes = place
    present = room.slice(bits, values - bits) if nulls else None
    return [present, room.slice(values, text - values), *([room.slice(text, text_bytes)] if text_bytes else [])]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES
