"""Kinds of corruption that stand in the lines of a day file: the gzip around them is sound and its checksums fit.

Where a kind spoils one row it is the middle one. A file without rows has nothing to spoil and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_DAY_US = 86_400_000_000
_LONG_BYTES = 100_000_000
_COLUMNS = 10_000_000
_TIMES = (b"timestamp", b"local_timestamp")

# Lines without their ends: the header, then the rows.
Lines = list[bytes]
Change = Callable[[Lines], bytes]


def spoilt(text: bytes, change: Change) -> bytes:
    """Return the text of a day file as a kind of corruption leaves it."""
    lines = text.removesuffix(b"\n").split(b"\n")
    return change(lines) if len(lines) > 1 else text


def _joined(lines: Lines, end: bytes = b"\n") -> bytes:
    return b"".join(line + end for line in lines)


def _header(change: Callable[[Lines], Lines]) -> Change:
    """Return a change of the header's columns."""
    return lambda lines: _joined([b",".join(change(lines[0].split(b","))), *lines[1:]])


def _row(change: Callable[[bytes], bytes]) -> Change:
    """Return a change of the middle row."""

    def changed(lines: Lines) -> bytes:
        at = _middle(lines)
        return _joined([*lines[:at], change(lines[at]), *lines[at + 1 :]])

    return changed


def _middle(lines: Lines) -> int:
    return 1 + (len(lines) - 1) // 2


def _field(name: bytes, change: Callable[[bytes], bytes]) -> Change:
    """Return a change of the first column whose name holds `name`, in the middle row."""

    def changed(lines: Lines) -> bytes:
        column = next((n for n, each in enumerate(lines[0].split(b",")) if name in each), -1)

        def row(line: bytes) -> bytes:
            fields = line.split(b",")
            fields[column] = change(fields[column])
            return b",".join(fields)

        return _row(row)(lines)

    return changed


def _timed(line: bytes, columns: list[int], change: Callable[[int], int]) -> bytes:
    fields = line.split(b",")
    for column in columns:
        fields[column] = b"%d" % change(int(fields[column]))
    return b",".join(fields)


def _times(change: Callable[[int], int], rows: slice) -> Change:
    """Return a change of both times of some rows; slice(0, 1) is the first row."""

    def changed(lines: Lines) -> bytes:
        columns = [n for n, name in enumerate(lines[0].split(b",")) if name in _TIMES]
        found = lines[1:]
        found[rows] = [_timed(line, columns, change) for line in found[rows]]
        return _joined([lines[0], *found])

    return changed


def _last_row_early(lines: Lines) -> bytes:
    at = _middle(lines)
    return _joined([*lines[:at], lines[-1], *lines[at:-1]])


def _doubled(lines: Lines) -> bytes:
    at = _middle(lines)
    return _joined([*lines[:at], lines[at], *lines[at:]])


def _torn(lines: Lines) -> bytes:
    return _joined(lines[:-1]) + lines[-1][: len(lines[-1]) // 2]


def _of_another(lines: Lines) -> bytes:
    exchange, _, rest = lines[_middle(lines)].partition(b",")
    return _row(lambda _: b",".join((exchange, b"X" + rest)))(lines)


_ALL, _FIRST, _LAST = slice(None), slice(0, 1), slice(-1, None)

ROW_KINDS: Mapping[str, tuple[str, Change]] = {
    "no_header": ("the header line is missing", lambda lines: _joined(lines[1:])),
    "header_order": ("the last two columns of the header are exchanged", _header(lambda c: [*c[:-2], c[-1], c[-2]])),
    "header_renamed": ("the last column has another name", _header(lambda c: [*c[:-1], b"new_" + c[-1]])),
    "missing_column": ("a row has a column less", _row(lambda row: row.rpartition(b",")[0])),
    "extra_column": ("a row has a column more", _row(lambda row: row + b",1")),
    "nan": ("NaN as a price", _field(b"price", lambda _: b"NaN")),
    "infinity": ("inf as a price", _field(b"price", lambda _: b"inf")),
    "text_price": ("text as a price", _field(b"price", lambda _: b"n/a")),
    "ns_times": ("times in nanoseconds", _times(lambda us: us * 1000, _ALL)),
    "ms_times": ("times in milliseconds", _times(lambda us: us // 1000, _ALL)),
    "nul": ("a NUL byte in a row", _row(lambda row: row + b"\0")),
    "crlf": ("lines end with CR LF", lambda lines: _joined(lines, b"\r\n")),
    "bom": ("a byte order mark at the beginning", lambda lines: b"\xef\xbb\xbf" + _joined(lines)),
    "unterminated": ("the last line is not ended", lambda lines: _joined(lines)[:-1]),
    "torn_row": ("the last row stops half-way", _torn),
    "other_symbol": ("a row of another symbol", _of_another),
    "other_day": ("every row a day later: another day's file", _times(lambda us: us + _DAY_US, _ALL)),
    "far_row": ("a row a year later", _times(lambda us: us + 365 * _DAY_US, _LAST)),
    "previous_day": ("the first row a day earlier", _times(lambda us: us - _DAY_US, _FIRST)),
    "next_day": ("the last row a day later", _times(lambda us: us + _DAY_US, _LAST)),
    "unsorted": ("the last row stands in the middle", _last_row_early),
    "duplicate_ids": ("a row stands there twice", _doubled),
    "long_line": ("100 MB without a line end", lambda lines: _joined(lines) + b"1" * _LONG_BYTES),
    "blank_lines": ("100 MB of empty lines", lambda lines: _joined(lines) + b"\n" * _LONG_BYTES),
    "many_columns": ("10 million columns", lambda lines: _joined([each + b"," * _COLUMNS for each in lines[:2]])),
}
"""Kind to what it is, and how the lines change."""
