"""Real day files with bytes changed anywhere, before and after compression, through the whole of a download.

Whatever comes: a refusal in one line that leaves nothing, or exactly the rows that another reader finds in a file that
is sound by plain rules; never another error.
"""

from __future__ import annotations

import gzip
import math
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runner.sandbox
from runner import layout
from runner.errors import IntegrityError
from runner.sandbox.tardis import Options, serve
from runner.stages import download
from runner.stages.tools import Tools
from runner.store import Store, open_object, open_store
from runner.tardis.client import Limits, Tardis
from runner.task import Outcome, Source, Stage, Task

DAY, KEY = date(2024, 8, 8), "BINANCE:SPOT_PAIR:BTC-USDT"
SHIPPED = Path(runner.sandbox.__file__).parent / "data/binance"
DEEP_BOOK = Path(__file__).parents[2] / "data/tardis-csv/binance_book_snapshot_25_2024-08-08_BTCUSDT.csv.gz"
REAL = {
    **{name: SHIPPED / f"{name}/2024/08/08/BTCUSDT.csv.gz" for name in ("trades", "quotes", "book_snapshot_5")},
    "book_snapshot_25": DEEP_BOOK,
}
# The header and enough rows for a few messages.
TEXTS = {
    name: b"".join(gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:30]) for name, path in REAL.items()
}
SPECIALS = [b",", b"\n", b"\r", b"\0", b'"', b"0", b".", b"-", b"e", b"nan", b" ", b"9" * 20, b"\xef\xbb\xbf"]


@st.composite
def mutated(draw: Callable, data: bytes) -> bytes:
    """Return bytes of which some are flipped, cut off, inserted, left out or doubled, or whose lines change places."""
    found = data
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "double", "lines"]))
        at = draw(st.integers(0, max(0, len(found) - 1)))
        end = min(len(found), at + draw(st.integers(1, 40)))
        if kind == "flip":
            found = found[:at] + bytes(b ^ (1 << draw(st.integers(0, 7))) for b in found[at : at + 1]) + found[at + 1 :]
        elif kind == "cut":
            found = found[:at]
        elif kind == "insert":
            found = found[:at] + draw(st.sampled_from(SPECIALS) | st.binary(max_size=6)) + found[at:]
        elif kind == "remove":
            found = found[:at] + found[end:]
        elif kind == "double":
            found = found[:end] + found[at:]
        else:
            lines = found.splitlines(keepends=True)
            if len(lines) > 1:
                one, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
                lines[one], lines[other] = lines[other], lines[one]
            found = b"".join(lines)
    return found


def rows_of(text: bytes, name: str) -> list[tuple[object, ...]] | None:
    """Return the rows of a text that is sound by plain rules, as exact numbers and texts; None for any other."""
    header = TEXTS[name].split(b"\n")[0]
    if text == b"":
        return []
    lines = text.split(b"\n")
    if lines.pop() != b"" or lines[0] != header:
        return None
    names = header.decode().split(",")
    try:
        rows = [line.decode().split(",") for line in lines[1:]]
        if any(len(row) != len(names) or row[:2] != ["binance", "BTCUSDT"] for row in rows):
            return None
        return [tuple(value(n, each) for n, each in zip(names[2:], row[2:], strict=True)) for row in rows]
    except ValueError:
        return None


def value(name: str, text: str) -> object:
    if name in ("id", "side"):
        return text
    if "timestamp" in name:
        return int(text)
    number = float(text) if text else None
    if number is not None and not math.isfinite(number):
        raise ValueError(text)
    return number


def downloaded(tardis: Tardis, name: str, folder: Path) -> list[tuple[object, ...]] | None:
    """Return the rows that a download commits; None when it refuses, in one line and leaving nothing."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    task = Task(Stage.DOWNLOAD, DAY, KEY, (name,), Source("binance", "BTCUSDT"))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            entry = download.run(task, name, Tools(store, tardis, Path(scratch)))
        except IntegrityError as refusal:
            line = str(refusal)
        else:
            line = ""
    if line:
        assert line.startswith(f"binance {name} 2024-08-08 BTCUSDT: ")
        assert "\n" not in line
        assert list(store.list("")) == []
        return None
    assert entry.outcome in (Outcome.DONE, Outcome.EMPTY)
    return stored(store, layout.ticks(DAY, name, KEY))


def stored(store: Store, key: str) -> list[tuple[object, ...]]:
    info = store.head(key)
    assert info is not None
    with open_object(store, info) as file:
        frame = pl.read_parquet(file.read())
    times = [name for name in frame.columns if name.endswith("timestamp")]
    return frame.with_columns(pl.col(*times).dt.epoch("us")).rows()


Offer = Callable[[str, bytes], list[tuple[object, ...]] | None]


@pytest.fixture(scope="module")
def offer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offer]:
    """Return a function that downloads bytes served as the day file of a type; checksum and length fit them."""
    folder = tmp_path_factory.mktemp("mutations")
    for name in TEXTS:
        (folder / "data/binance" / name / "2024/08/08").mkdir(parents=True)
    with serve(Options(data=folder / "data")) as server:
        limits = Limits(1, 0.01, 0.01, stall_s=60.0, min_bytes_per_s=0, min_speed_window_s=10.0)
        tardis = Tardis(server.url, server.api_url, "fake-key-1", limits, threading.Event(), 1)

        def downloads(name: str, body: bytes) -> list[tuple[object, ...]] | None:
            (folder / "data/binance" / name / "2024/08/08/BTCUSDT.csv.gz").write_bytes(body)
            return downloaded(tardis, name, folder)

        yield downloads
        tardis.close()


def judge(offer: Offer, name: str, body: bytes) -> None:
    found = offer(name, body)
    if found is not None:
        assert found == rows_of(gzip.decompress(body), name)


@pytest.mark.parametrize("name", TEXTS)
def test_the_real_rows_are_stored_as_they_are(offer: Offer, name: str) -> None:
    rows = rows_of(TEXTS[name], name)
    assert rows is not None
    assert len(rows) == 29
    assert offer(name, gzip.compress(TEXTS[name])) == rows


names = st.sampled_from(sorted(TEXTS))
texts = names.flatmap(lambda name: st.tuples(st.just(name), mutated(TEXTS[name])))
# Without a byte at all the sandbox's directory means a day without rows.
bodies = names.flatmap(lambda name: st.tuples(st.just(name), mutated(gzip.compress(TEXTS[name], mtime=0)))).filter(all)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(mutation=texts)
def test_mutated_lines_are_refused_or_stored_as_they_stand(offer: Offer, mutation: tuple[str, bytes]) -> None:
    judge(offer, mutation[0], gzip.compress(mutation[1], 1))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(mutation=bodies)
def test_mutated_gzip_is_refused_or_stored_as_it_stands(offer: Offer, mutation: tuple[str, bytes]) -> None:
    judge(offer, *mutation)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(mutation=texts)
def test_many_mutations_of_lines(offer: Offer, mutation: tuple[str, bytes]) -> None:
    judge(offer, mutation[0], gzip.compress(mutation[1], 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(mutation=bodies)
def test_many_mutations_of_gzip(offer: Offer, mutation: tuple[str, bytes]) -> None:
    judge(offer, *mutation)
