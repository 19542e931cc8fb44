"""What planning costs at the size of a backfill: seconds and peak memory of fresh processes, requests they make.

    .venv/bin/python scripts/benchmarks/planning.py [--symbols 5000] [--days 518] [--objects 300000] [--json]

The catalogue is generated: every symbol is listed on every day and offers five data types, which no real one does.
Planned three times: over an empty store (instrument tables are written), over tables alone, and over a store that holds
`--objects` outputs; then the plan is committed as `runner submit` does before the first worker starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from runner import layout
from runner.market.grammar import PERPETUAL
from runner.runs import tardis_of
from runner.runs.submit import submit
from runner.spec import RunSpec
from runner.store import open_store

START = date(2023, 5, 23)
TYPES = ("trades", "book_snapshot_5", "derivative_ticker", "liquidations", "quotes")
VENUES = ("BINANCE", "BINANCE-FUTURES", "OKX-SWAP", "DERIBIT")
EXCHANGES = ("binance", "binance-futures", "okex-swap", "deribit")
SHARDS = 100
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def main(arguments: list[str]) -> None:
    """Run the rounds and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5_000)
    parser.add_argument("--days", type=int, default=518)
    parser.add_argument("--objects", type=int, default=300_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = measure(given.symbols, given.days, given.objects)
    print(json.dumps(found, indent=2) if given.json else text(found))


def measure(symbols: int, days: int, objects: int) -> dict[str, Any]:
    """Return {"size": …, "rounds": {name: {seconds, rss_mb, requests}}} of planning so many symbols and days."""
    shares = [symbols * part // 10 for part in (4, 2, 1)]
    counts = dict(zip(EXCHANGES, [*shares, symbols - sum(shares)], strict=True))
    with tempfile.TemporaryDirectory(prefix="planning-") as folder, listing(Path(folder), counts, days) as url:
        store = Path(folder) / "store"
        end = START + timedelta(days=days - 1)
        command = [
            *("--start-date", str(START), "--end-date", str(end), "--venues", ",".join(VENUES)),
            *("--data-types", ",".join(TYPES), "--store", f"file://{store}", "--shards", str(SHARDS)),
            *("--tardis-url", f"{url}/v1", "--tardis-api-url", f"{url}/v1"),
        ]
        plan = ["-m", "runner", "plan", "download", *command]
        rounds = {"empty store": _run(plan, url), "tables there": _run(plan, url)}
        rounds["commit"] = _run([__file__, "--commit", *command], url)
        shutil.rmtree(store / "_runs", ignore_errors=True)
        fill(store, symbols, days, objects)
        rounds["outputs there"] = _run(plan, url)
        return {"size": {"symbols": symbols, "days": days, "types": len(TYPES), "objects": objects}, "rounds": rounds}


def text(found: dict[str, Any]) -> str:
    """Return the result as lines."""
    size = found["size"]
    head = f"planning   {size['symbols']} symbols, {size['days']} days, {size['types']} types (limits 180 s, 2048 MB)"
    rows = [
        f"  {name:14} {took['seconds']:6.1f} s  {took['processor_seconds']:6.1f} s of processor  "
        f"{took['rss_mb']:5} MB  {took['requests']} requests of the source  {took['said']}"
        for name, took in found["rounds"].items()
    ]
    return "\n".join([head, *rows])


def catalogue(exchange: str, count: int, days: int) -> dict[str, Any]:
    """Return an exchange's document with so many symbols, each listed from before START to after the last day."""
    until = f"{START + timedelta(days=days + 2)}T00:00:00.000Z"
    symbols = [
        {
            "id": symbol,
            "type": kind,
            "dataTypes": [*TYPES, "incremental_book_L2"],
            "availableSince": f"{START - timedelta(days=1 + n % 900)}T00:00:00.000Z",
            "availableTo": until,
        }
        for n, (symbol, kind) in enumerate(_symbols(exchange, count))
    ]
    return {"id": exchange, "datasets": {"exportedUntil": until, "symbols": symbols}}


def fill(store: Path, symbols: int, days: int, objects: int) -> None:
    """Put outputs of the first symbols of every day there, as plain files: those are objects of the store too."""
    keys = [f"BINANCE-FUTURES:{PERPETUAL}:{s[:-4]}-USDT" for s, _ in _symbols("binance-futures", symbols // 5)]
    wanted = ((START + timedelta(days=n), key) for key in keys for n in range(days))
    names = (name for day, key in wanted for each in TYPES for name in layout.outputs(day, each, key))
    for name in islice(names, objects):
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _symbols(exchange: str, count: int) -> Iterator[tuple[str, str]]:
    for n in range(count):
        base = "".join(_LETTERS[n // 26**power % 26] for power in (3, 2, 1, 0)) + "X"
        if exchange == "deribit":
            yield f"BTC-{n % 28 + 1}DEC{26 + n // 28 % 3}-{1000 * (1 + n // 84)}-{'CP'[n % 2]}", "option"
        elif exchange == "okex-swap":
            yield f"{base}-USDT-SWAP", "perpetual"
        else:
            yield f"{base}USDT", "spot" if exchange == "binance" else "perpetual"


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """Run a sandbox; yield its address."""
    command = [sys.executable, "-m", "runner", "sandbox", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            first = server.stdout.readline() if server.stdout else ""
            yield first.strip().partition("=")[2].removesuffix("/v1")
        finally:
            server.terminate()


@contextmanager
def listing(folder: Path, counts: Mapping[str, int], days: int) -> Iterator[str]:
    """Run a source whose exchanges list so many symbols each; yield its address."""
    (folder / "data" / "exchanges").mkdir(parents=True)
    for exchange, count in counts.items():
        (folder / "data" / "exchanges" / f"{exchange}.json").write_text(json.dumps(catalogue(exchange, count, days)))
    with serving("tardis", "--data", str(folder / "data")) as url:
        yield url


def _run(arguments: list[str], url: str) -> dict[str, Any]:
    """Return what a fresh process took."""
    _ask(url, "reset", b"")
    began = time.perf_counter()
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said = next(iter(process.stdout.read().splitlines()), "") if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"planning: {arguments} ended with {process.returncode}")
    requests = sum(path["requests"] for path in _ask(url, "stats")["paths"].values())
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "rss_mb": round(usage.ru_maxrss / 1024),
        "requests": requests,
        "said": said,
    }


def _ask(url: str, what: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/__sandbox/{what}", data=body)) as answer:  # noqa: S310 - loopback
        return json.loads(answer.read() or b"null")


def commit(arguments: list[str]) -> None:
    """Plan and commit a run as `runner submit` does, without starting a worker."""
    flags = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(*[iter(arguments)] * 2, strict=True)
    }
    tardis = {"url": flags.pop("tardis_url"), "api_url": flags.pop("tardis_api_url")}
    spec = RunSpec(**flags, tardis=tardis)
    found = submit(spec, open_store(spec.store), tardis_of(spec, None))
    print(f"{found.state}: {found.record and found.record.tasks} tasks")


if __name__ == "__main__":
    commit(sys.argv[2:]) if sys.argv[1:2] == ["--commit"] else main(sys.argv[1:])
