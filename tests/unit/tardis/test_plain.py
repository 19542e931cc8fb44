"""The compiled reader against plain Python and against Arrow: it agrees to the bit, or leaves the block to Arrow."""

from __future__ import annotations

import csv as plain_csv
import gzip
import os
import random
import shutil
import struct
import subprocess
import sys
import sysconfig
import threading
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner.sandbox
from runner.market.schema import DATA_TYPES
from runner.tardis import csv, plain

ROOT = Path(__file__).parents[3]
SHIPPED = Path(runner.sandbox.__file__).parent / "data/binance"
BOOK_25 = ROOT / "tests/data/tardis-csv/binance_book_snapshot_25_2024-08-08_BTCUSDT.csv.gz"
DAY = date(2024, 8, 8)
T = 1723161540086000

here = pytest.mark.skipif(not plain.available(), reason="not compiled: Arrow reads everything")


def test_it_is_compiled_where_it_can_be():
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = os.environ.get("CC", "cc").split()[0]
    can_be = compiler != "false" and shutil.which(compiler) is not None and headers.exists()
    assert plain.available() == can_be


def reader(name, *, grouped=False, day=None):
    if grouped:
        return csv._Rows(DATA_TYPES[name].grouped, b"binance,", day)
    return csv._Rows(DATA_TYPES[name], b"binance,BTCUSDT,", day)


def judged(rows, block):
    """Return what Arrow alone says of a block; None where it refuses it."""
    try:
        return rows.judged(block)
    except csv._BadRowError:
        return None


def bits(batch):
    """Return every value of a batch, floats by their bits."""
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in batch.columns]
    return [
        [None if v is None else struct.pack("<d", v) if isinstance(v, float) else v for v in column.to_pylist()]
        for column in columns
    ]


def agree(rows, block):
    """Tell whether the block was plain; if so, what was read must be valid and what Arrow reads."""
    batch = rows.fast.read(block)
    if batch is None:
        return False
    batch.validate(full=True)
    other = judged(rows, block)
    assert other is not None, "read what Arrow refuses"
    assert batch.schema == other.schema
    assert bits(batch) == bits(other)
    return True


def body_of(path):
    return gzip.decompress(path.read_bytes()).partition(b"\n")[2]


REAL = {
    **{
        name: body_of(SHIPPED / f"{name}/2024/08/08/BTCUSDT.csv.gz") for name in ("trades", "quotes", "book_snapshot_5")
    },
    "book_snapshot_25": body_of(BOOK_25),
}


@here
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_plain_throughout_and_read_as_arrow_reads_them(name):
    assert agree(reader(name, day=DAY), REAL[name])


@here
def test_a_file_of_plain_blocks_never_comes_before_arrow(monkeypatch):
    monkeypatch.setattr(csv.arrow_csv, "read_csv", None)
    raw = (SHIPPED / "trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()
    batches = csv.read(iter([raw]), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT", block_bytes=20_000)
    assert sum(batch.num_rows for batch in batches) == REAL["trades"].count(b"\n")


def pointed(drawn):
    digits, places = drawn
    text = str(digits).rjust(places + 1, "0")
    return f"{text[:-places]}.{text[-places:]}"


# Generated rows. What a column may hold is written down here, not taken from the tables under test.
WHOLE = st.integers(0, 10**15 - 1).map(str)
DECIMAL = st.tuples(st.integers(0, 10**15 - 1), st.integers(1, 14)).map(pointed)
NUMBER = st.one_of(WHOLE, DECIMAL).flatmap(lambda text: st.sampled_from([text, "-" + text]))
TIME = st.integers(T - 10**9, T + 10**9).map(str)
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), max_size=40)
TEXTS = {"symbol", "id", "underlying_index"}
SIDE = {"incremental_book_L2": ["bid", "ask"]}
POOLS = st.fixed_dictionaries(
    {
        "times": st.lists(TIME, min_size=1, max_size=3),
        "texts": st.lists(TEXT.filter(bool), min_size=1, max_size=4),
        "numbers": st.lists(NUMBER, min_size=1, max_size=8),
    }
)


WORDS = {"type": ["put", "call"], "is_snapshot": ["true", "false"]}
NEVER_EMPTY = {("trades", "price"), ("trades", "amount"), ("options_chain", "strike_price"), ("", "symbol")}


def value_of(name, column, pools, chosen):
    """Return one of the values drawn that a column may hold."""
    if column == "side":
        return chosen.choice(SIDE.get(name, ["buy", "sell", "unknown"]))
    if column in WORDS:
        return chosen.choice(WORDS[column])
    if column in {"timestamp", "local_timestamp", "expiration"}:
        return chosen.choice(pools["times"])
    if column == "funding_timestamp":
        return chosen.choice([*pools["times"], ""])
    pool = pools["texts" if column in TEXTS else "numbers"]
    return chosen.choice(pool if {(name, column), ("", column)} & NEVER_EMPTY else [*pool, ""])


def understood(column, text):
    if "timestamp" in column or column == "expiration":
        return int(text) if text else None
    if column in {*TEXTS, "side", "type"}:
        return text
    if column == "is_snapshot":
        return text == "true"
    return struct.pack("<d", float(text)) if text else None


SHAPES = [(name, grouped) for name in DATA_TYPES for grouped in (False, True) if grouped or name != "options_chain"]


@here
@pytest.mark.parametrize(("name", "grouped"), SHAPES)
@settings(max_examples=40, deadline=None)
@given(pools=POOLS, chosen=st.integers(0, 2**32).map(random.Random), count=st.integers(1, 20))
def test_plain_rows_are_read_as_plain_python_reads_them(name, grouped, pools, chosen, count):
    header = DATA_TYPES[name].csv_columns
    held = header[1:] if grouped else header[2:]
    drawn = [[value_of(name, column, pools, chosen) for column in held] for _ in range(count)]
    prefix = "binance," if grouped else "binance,BTCUSDT,"
    block = "".join(f"{prefix}{','.join(values)}\n" for values in drawn).encode()
    rows = reader(name, grouped=grouped, day=DAY)
    assert agree(rows, block)
    lines = plain_csv.reader(block.decode().splitlines(), quoting=plain_csv.QUOTE_NONE)
    expected = [dict(zip(header, line, strict=True)) for line in lines]
    batch = rows.parse(block)
    for stored, values in zip(rows.data_type.columns, bits(batch), strict=True):
        assert values == [understood(stored.csv, line[stored.csv]) for line in expected], stored.csv


@here
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(NUMBER, min_size=50, max_size=80))
def test_a_plain_number_is_the_double_that_python_reads(texts):
    block = "".join(f"binance,BTCUSDT,{T},{T},{text},{text},,{text}\n" for text in texts).encode()
    found = bits(reader("quotes").fast.read(block))
    assert found[2] == found[3] == found[5] == [struct.pack("<d", float(text)) for text in texts]


@here
def test_numbers_of_every_shape_are_the_doubles_that_python_reads():
    shapes = [(whole, places) for whole in range(1, 16) for places in range(16 - whole)]
    texts = []
    for whole, places in shapes:
        for digit in "019":
            texts += [sign + digit * whole + ("." + digit * (places - 1) + "7" if places else "") for sign in ("", "-")]
    block = "".join(f"binance,BTCUSDT,{T},{T},{text},1,2,{text}\n" for text in texts).encode()
    found = bits(reader("quotes").fast.read(block))
    assert found[2] == found[5] == [struct.pack("<d", float(text)) for text in texts]


@here
@pytest.mark.parametrize(
    "text",
    [
        "+1", "1e5", "1E5", ".5", "5.", "-", ".", "-.5", "1.2.3", "1..2", "--1", "1-", "nan", "inf", "0x1", "1_0", " 1",
        "1 ", '"1"', "1234567890123456", "0.1234567890123456", "123456789.1234567", "1\r", "1\0", "\0", "½",
        "12345678.", "1:", "1/", "12345678-", "1.12345678-", "12345678.1.2", "-12345678.", "0000000000000001",
    ],
)  # fmt: skip
def test_what_is_no_plain_number_is_left_to_arrow(text):
    for row in (f"{T},{T},{text},1,2,3\n", f"{T},{T},1,1,2,{text}\n"):
        assert reader("quotes").fast.read(f"binance,BTCUSDT,{row}".encode()) is None


@here
@pytest.mark.parametrize(
    "row",
    [
        "", ",", f"{T}", f"{T},{T},7,buy,1", f"{T},{T},7,buy,1,2,", f"{T},{T},7,buy,1,2,3", f",{T},7,buy,1,2",
        f"{T},,7,buy,1,2", f"{T},{T},7,,1,2", f"{T},{T},7,bid,1,2", f"{T},{T},7,BUY,1,2", f"{T},{T},7,buy ,1,2",
        f"{T},{T},7,buyer,1,2", f"{T},{T},7,bu,1,2", f"{T},{T},7,buy,,2", f"{T},{T},7,buy,1,", f"{T},{T},a b,buy,1,2",
        f"{T},{T},a\rb,buy,1,2", f"{T},{T},a\0b,buy,1,2", f"{T},{T},ä,buy,1,2", f"{T},{T},7,buy,1,2\r",
        f"{T}0,{T},7,buy,1,2", f"{T // 10},{T},7,buy,1,2", f"+{T // 10},{T},7,buy,1,2", f"-{T // 10},{T},7,buy,1,2",
        f"{hex(T)},{T},7,buy,1,2", f"{T}.,{T},7,buy,1,2", f" {T // 10},{T},7,buy,1,2", f"1{'0' * 15},{T},7,buy,1,2",
        f"9999999999999999,{T},7,buy,1,2", f"{T},{T + 2 * 86_400_000_000},7,buy,1,2", f"{T}:{T},7,buy,1,2",
        f"{T},{T},7,\nbuy,1,2", f"{T},{T},{'x' * 15}\n,buy,1,2",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 1, 100])
def test_a_row_that_is_not_plain_gives_its_block_up(row, before):
    good = f"binance,BTCUSDT,{T},{T},7,buy,1,2\n".encode()
    rows = reader("trades", day=DAY)
    assert rows.fast.read(good * (before + 3)) is not None
    assert rows.fast.read(good * before + f"binance,BTCUSDT,{row}\n".encode() + good * 3) is None


@here
@pytest.mark.parametrize("byte", [*range(0x21), *range(0x80, 0x100)])
def test_text_that_is_no_printable_ascii_is_left_to_arrow(byte):
    for text in (bytes([byte]), b"12345678" + bytes([byte]), bytes([byte]) + b"7"):
        assert reader("trades").fast.read(b"binance,BTCUSDT,%d,%d,%b,buy,1,2\n" % (T, T, text)) is None


@here
def test_a_row_of_a_group_without_its_symbol_is_left_to_arrow():
    row = f"{T},{T},7,buy,1,2\n"
    assert reader("trades", grouped=True).fast.read(f"binance,X,{row}".encode())["symbol"].to_pylist() == ["X"]
    assert reader("trades", grouped=True).fast.read(f"binance,,{row}".encode()) is None


@here
@pytest.mark.parametrize("prefix", ["", "bybit,BTCUSDT,", "binance,BTCUSDT", "binance,ETHUSDT,", "Binance,BTCUSDT,"])
def test_rows_of_others_are_left_to_arrow(prefix):
    good = f"{T},{T},7,buy,1,2\n"
    for block in (f"{prefix}{good}", f"binance,BTCUSDT,{good}{prefix}{good}", f"{prefix}\n", "\n", "\n" * 1000):
        assert reader("trades").fast.read(block.encode()) is None


@here
@pytest.mark.parametrize("name", REAL)
def test_a_block_that_is_cut_is_read_to_its_last_line_and_no_byte_further(name):
    whole = REAL[name][: REAL[name].index(b"\n", 1500) + 1]
    count = whole.count(b"\n")
    fast = reader(name).fast
    places, size = fast._places(count, len(whole))
    columns = tuple((*fixed, *place) for fixed, place in zip(fast._fixed, places, strict=True))
    for end in range(len(whole) + 1):
        # what follows the cut lies there in memory: whoever reads on finds it sound
        cut = memoryview(whole)[:end]
        batch = fast.read(cut)
        assert (batch is not None) == whole[:end].endswith(b"\n"), end
        assert batch is None or batch.num_rows == whole[:end].count(b"\n")
        if end < count:
            continue
        found = plain.scan.fill(cut, b"binance,BTCUSDT,", bytearray(size), count, columns)
        assert (found is not None) == (end == len(whole)), end


@here
@pytest.mark.parametrize("name", REAL)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_rows_are_read_as_arrow_reads_them_or_left_to_it(name, data):
    lines = REAL[name].splitlines(keepends=True)
    start = data.draw(st.integers(0, len(lines) - 1))
    block = bytearray(b"".join(lines[start : start + data.draw(st.integers(1, 4))]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(block)))
        gone = data.draw(st.integers(0, 3))
        characters = st.sampled_from(
            [b"", b",", b"\n", b"0", b"9", b".", b"-", b",,", b"buy", b"sell", b"x", b"e", b"\r", b" "]
        )
        block[at : at + gone] = data.draw(characters | st.binary(max_size=3))
    whole = bytes(block).rstrip(b"\n") + b"\n"
    agree(reader(name, day=DAY), whole)


# kind, may be empty, low, high, words, then where in the room: bitmap, values, text, and the text's size
COLUMN = ("n", False, 0, 0, b"", 0, 64, 0, 0)
BITMAPS = [("n", True, 0, 0, b"", at, 64, 0, 0) for at in (-1, 128, 2**62)]
VALUES = [("n", False, 0, 0, b"", 0, at, 0, 0) for at in (128, 124, -8, 2**62, 4)]
TEXT_ROOMS = [
    ("s", False, 0, 0, b"", 0, 64, at, size) for at, size in ((0, 129), (120, 2**62), (0, -1), (-1, 8), (129, 0))
]
WORD_LISTS = [("w", False, 0, 0, words, 0, 0, 0, 0) for words in (b"12345678", b"a b c d e")]


@here
@pytest.mark.parametrize(
    "column",
    [("x", *COLUMN[1:]), *BITMAPS, *VALUES, *TEXT_ROOMS, *WORD_LISTS, ("n",), COLUMN[:-1], (*COLUMN, 0), None],
)
def test_columns_beyond_the_room_are_refused(column):
    room = bytearray(128)
    with pytest.raises((ValueError, TypeError, SystemError)):
        plain.scan.fill(b"p,1\n", b"p,", room, 1, (column,))
    assert room == bytearray(128)


@here
@pytest.mark.parametrize("rows", [-1, 5, 2**62])
def test_more_rows_than_bytes_are_refused(rows):
    with pytest.raises(ValueError, match="out of bounds"):
        plain.scan.fill(b"p,1\n", b"p,", bytearray(128), rows, (COLUMN,))


@here
def test_text_for_which_there_is_no_room_is_given_up():
    for size in range(40):
        column = ("s", True, 0, 0, b"", 0, 0, 64, size)
        room = bytearray(64 + size)
        found = plain.scan.fill(b"p,123456789\n", b"p,", room, 1, (column,))
        assert (found is None) == (size < 16)


@here
def test_other_threads_run_meanwhile():
    block = REAL["quotes"] * 200
    rows, running = reader("quotes"), threading.Event()
    results = []

    def read():
        running.set()
        results.extend(rows.fast.read(block).num_rows for _ in range(3))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [block.count(b"\n")] * 12


@here
@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"\n" * 8, b"\n\n\n\n\n\n\na", bytes(range(256)) * 50, b"\x0b\x0a" * 5000, b"\n" * 9999]
)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_lines_are_counted(data, start):
    assert plain.scan.lines(memoryview(data)[start:]) == data[start:].count(b"\n")


WITHOUT = """
import sys
sys.modules["runner.tardis.scan"] = None
from runner.market.schema import DATA_TYPES
from runner.tardis import csv, plain
assert not plain.available()
raw = open(sys.argv[1], "rb").read()
batches = csv.read(iter([raw]), DATA_TYPES["trades"], exchange="binance", symbol="BTCUSDT")
print(sum(batch.num_rows for batch in batches))
"""


def test_without_it_arrow_reads_everything():
    path = SHIPPED / "trades/2024/08/08/BTCUSDT.csv.gz"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == (str(REAL["trades"].count(b"\n")), "")
