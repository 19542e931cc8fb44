from typing import TypeAlias

from typing_extensions import Buffer

_Column: TypeAlias = tuple[str, bool, int, int, bytes, int, int, int, int]

def lines(block: Buffer, /) -> int: ...
def fill(
    block: Buffer, prefix: Buffer, room: Buffer, rows: int, columns: tuple[_Column, ...], /
) -> tuple[int, ...] | None: ...
