"""One measured job in a process of its own: `one.py METHOD KIND FILE OUT [direct]`; prints what it cost as JSON.

Processor time and peak memory are those of the whole process, its imports included.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

_CHUNK_BYTES = 256 * 1024
_DAY = date(2024, 8, 8)


class _NoPandas:
    """Keeps pyarrow from loading pandas when it finds it: it is no dependency of ours, only the bench installs it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError(name)


def ours(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Convert as the stage download does, from compressed chunks to objects of the columns that everyone makes.

    Without medians unless `direct`.
    """
    sys.meta_path.insert(0, _NoPandas())
    import numpy as np
    from agreed import BOOK_COLUMNS, OURS, TRADE_COLUMNS

    from runner.market import candles
    from runner.market.bars import BUCKETS
    from runner.market.names import TIMEFRAMES
    from runner.stages.convert import Conversion
    from runner.stages.derived import candle_object
    from runner.stages.subject import Subject
    from runner.task import Source, Stage, Task

    if not direct:
        steps = {name: seconds // 15 for name, seconds in TIMEFRAMES.items()}
        candles.medians = lambda *_: {name: np.full(BUCKETS // step, np.nan) for name, step in steps.items()}
    place = Source("binance-futures", "BTCUSDT")
    task = Task(Stage.DOWNLOAD, _DAY, "BINANCE-FUTURES:PERPETUAL:BTC-USDT", (kind,), place)
    subject = Subject(task, kind, place)
    with Conversion(subject, out / "ticks.parquet") as conversion:
        conversion.consume(_chunks(source))
        ticks = conversion.finish("0" * 32, source.stat().st_size)
    columns = [OURS.get(each, each) for each in (TRADE_COLUMNS if kind == "trades" else BOOK_COLUMNS)]
    columns += ["delay_median"] if direct and kind == "trades" else []
    for key in ticks.candles:
        ticks.candles[key] = ticks.candles[key].select(columns)
        body, _ = candle_object(ticks, key=key)
        timeframe = key.split("/timeframe-")[1].split("/")[0]
        (out / f"{timeframe}.parquet").write_bytes(body)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def fetch_ours(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Fetch every file of a sandbox to disk with our client and its checks of length, framing and MD5."""
    del direct
    from concurrent.futures import ThreadPoolExecutor

    from runner.runs import tardis_of
    from runner.spec import RunSpec
    from runner.tardis.client import DayFile

    url, symbols = source.read_text().split("\n", 1)
    where = {"url": url, "api_url": url, "connections": _CONNECTIONS}
    spec = RunSpec(store=f"file://{out}", parallelism=1, tardis=where)
    client = tardis_of(spec, None)  # the first of a month needs no key

    def one(symbol: str) -> None:
        def keep(chunks: Iterator[bytes]) -> None:
            with (out / f"{symbol}.csv.gz").open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)

        client.fetch(DayFile("binance-futures", kind, date(2024, 8, 1), symbol), keep)

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(one, symbols.split()))


def fetch_vendor(kind: str, source: Path, out: Path, *, direct: bool = False) -> None:
    """Fetch the same files with the vendor's client."""
    del direct
    from tardis_dev import download_datasets

    url, symbols = source.read_text().split("\n", 1)
    download_datasets(
        "binance-futures", [kind], symbols.split(), "2024-08-01", "2024-08-02",
        endpoint=url, download_dir=str(out), concurrency=_CONNECTIONS,
    )  # fmt: skip


_CONNECTIONS = 8


def main() -> None:
    """Run the method that the arguments name."""
    method, kind, source, out = sys.argv[1:5]
    Path(out).mkdir(parents=True, exist_ok=True)
    direct = {"direct": True} if sys.argv[5:] == ["direct"] else {}
    if method in ("ours", "fetch_ours", "fetch_vendor"):
        job = globals()[method]
    else:
        import peers

        job = getattr(peers, method)
    began = time.perf_counter()
    job(kind, Path(source), Path(out), **direct)
    wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: a process inherits that from the one that started it.
    status = Path("/proc/self/status").read_text()
    peak_kb = int(status.partition("VmHWM:")[2].split()[0])
    size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    cost = {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall, "rss_mb": peak_kb / 1024, "bytes": size}
    print(json.dumps({name: round(value, 3) for name, value in cost.items()}))


if __name__ == "__main__":
    main()
