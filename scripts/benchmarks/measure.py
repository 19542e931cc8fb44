"""Ours beside its peers on this machine: the same files, a fresh process each time, interleaved, medians as ratios.

Sections: startup trades book medians memory download, all by default.
Above 1.0 a ratio says how many times ours a peer needs. Processor time is the measure; the clock on the wall depends
on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import compare
import days
import planning

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ("polars", "duckdb", "pandas", "pandas_tuned")
PANDAS_2 = ("pandas==2.3.3", "pytz==2025.2")
"""The last pandas before 3, whose strings are Python objects: the aims were set beside it."""
ROWS = {"trades": 5_000_000, "book_snapshot_5": 2_000_000}
FILES = 8

# What is aimed at: (section, peer, fact) → (ratio, at least or at most).
AIMS = {
    ("trades", "polars", "cpu_s"): (1.0, "at least"), ("book", "polars", "cpu_s"): (1 / 1.1, "at least"),
    ("trades", "duckdb", "cpu_s"): (1.3, "at least"), ("book", "duckdb", "cpu_s"): (1.2, "at least"),
    ("trades", "pandas", "cpu_s"): (8.0, "at least"), ("book", "pandas", "cpu_s"): (2.5, "at least"),
    ("trades", "pandas_2", "cpu_s"): (8.0, "at least"), ("book", "pandas_2", "cpu_s"): (2.5, "at least"),
    ("trades", "polars", "bytes"): (1 / 0.65, "at least"), ("book", "polars", "bytes"): (1 / 0.8, "at least"),
}  # fmt: skip


def job(method: str, kind: str, source: Path, out: Path, *more: str) -> dict[str, float]:
    """Run one job in a fresh process and return what it cost."""
    shutil.rmtree(out, ignore_errors=True)
    env = _environment() | ({"PYTHONPATH": str(_pandas_2())} if method == "pandas_2" else {})
    command = [sys.executable, str(HERE / "one.py"), method.removesuffix("_2"), kind, str(source), str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"bench: {method} {kind} ended with {done.returncode}:\n{done.stderr}")
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def _environment() -> dict[str, str]:
    """Return the environment of every job: compiled modules are kept, so that no round pays for compiling."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}, "PYTHONHASHSEED": "0"}


def _pandas_2() -> Path:
    """Return a folder with pandas 2, which no environment holds beside pandas 3, installing it if need be."""
    folder = _cache() / "-".join((*(each.replace("==", "-") for each in PANDAS_2), sys.implementation.cache_tag))
    if not folder.exists():
        say(f"installing {' '.join(PANDAS_2)} …")
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part), *PANDAS_2]
        subprocess.run(install, check=True, stdout=sys.stderr)
        part.rename(folder)
    return folder


def section(kind: str, methods: Mapping[str, str], folder: Path, rounds: int, **check: bool) -> dict[str, Any]:
    """Measure ours and its peers on one day, interleaved; the first, unmeasured round proves that all agree."""
    source = days.day_file(kind, ROWS[kind], _cache())
    every = {"ours": next(iter(methods.values()), ""), **methods}
    words = {name: [word] if word else [] for name, word in every.items()}
    for name in every:
        say(f"{kind}: {name} …")
        job(name, kind, source, folder / name, *words[name])
        if name != "ours":
            compare.refuse_other_candles(kind, folder / "ours", folder / name, **check)
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in every}
    for number in range(rounds):
        say(f"{kind}: round {number + 1} of {rounds} …")
        for name in every:
            costs[name].append(job(name, kind, source, folder / name, *words[name]))
    return {name: _summary(costs["ours"], costs[name]) for name in every}


def _summary(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians of what it cost, and of the ratios to ours in the same round."""
    median = {fact: statistics.median(cost[fact] for cost in theirs) for fact in theirs[0]}
    ratios = {
        fact: round(statistics.median(b[fact] / a[fact] for a, b in zip(ours, theirs, strict=True)), 3)
        for fact in median
    }
    return {"median": {fact: round(value, 3) for fact, value in median.items()}, "ratio": ratios}


def memory(folder: Path) -> dict[str, Any]:
    """Return our peak memory at a fifth of the section's rows, at as many, and at five times as many."""
    peaks = {}
    for rows in (ROWS["trades"] // 5, ROWS["trades"], ROWS["trades"] * 5):
        say(f"memory: {rows:,} rows …")
        source = days.day_file("trades", rows, _cache())
        peaks[str(rows)] = job("ours", "trades", source, folder / "memory", "direct")["rss_mb"]
    least, *_, most = peaks.values()
    return {"peak_mb": peaks, "growth": round(most / least, 3)}


def download(folder: Path, rounds: int) -> dict[str, Any]:
    """Measure the download alone, ours and the vendor's client: eight files of one day from a sandbox here."""
    source = days.day_file("trades", ROWS["trades"], _cache())
    symbols = [f"{base}USDT" for base in ("BTC", "ETH", "SOL", "XRP", "ADA", "DOT", "LTC", "BCH")][:FILES]
    place = folder / "served/binance-futures/trades/2024/08/01"
    place.mkdir(parents=True)
    for symbol in symbols:
        (place / f"{symbol}.csv.gz").symlink_to(source)
    where = folder / "where"
    costs: dict[str, list[dict[str, float]]] = {"fetch_ours": [], "fetch_vendor": []}
    with planning.serving("tardis", "--data", str(folder / "served")) as url:
        where.write_text("\n".join((f"{url}/v1", *symbols)))
        for number in range(rounds + 1):
            say(f"download: round {number} of {rounds} …")
            for name, known in costs.items():
                cost = job(name, "trades", where, folder / name)
                known.extend([cost] if number else [])
    ours = costs["fetch_ours"]
    return {"ours": _summary(ours, ours), "tardis-dev": _summary(ours, costs["fetch_vendor"])}


def startup() -> dict[str, Any]:
    """Return what `runner --help` costs beyond a bare interpreter, in ms."""
    commands = {"bare": ["-c", "pass"], "help": ["-m", "runner", "--help"]}
    taken = [{name: _started(words) for name, words in commands.items()} for _ in range(21)]
    wall, cpu = (statistics.median(each["help"][n] - each["bare"][n] for each in taken) for n in (0, 1))
    return {"beyond_wall_ms": round(wall), "beyond_processor_ms": round(cpu), "limit_ms": 200}


def _started(words: list[str]) -> tuple[float, float]:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: {words} ended with {process.returncode}")
    return 1000 * (time.perf_counter() - began), 1000 * (usage.ru_utime + usage.ru_stime)


def say(line: str) -> None:
    """Tell on stderr what is being done."""
    print(line, file=sys.stderr, flush=True)


def table(results: Mapping[str, Any]) -> str:
    """Return the results as a table of ratios, with what is aimed at."""
    lines = []
    for name, found in results.items():
        if name in ("trades", "book", "medians", "download"):
            lines += [
                f"\n{name:<14}{'processor':>12}{'ratio':>8}{'wall s':>9}{'peak MB':>9}{'MB written':>12}{'ratio':>8}"
            ]
            lines += [_row(name, who, each) for who, each in found.items()]
        else:
            lines.append(f"\n{name:<12}" + "  ".join(f"{fact} {value}" for fact, value in found.items()))
    return "\n".join(lines).lstrip("\n")


def _row(section_name: str, who: str, found: Mapping[str, Any]) -> str:
    m, r = found["median"], found["ratio"]
    aims = [(fact, *AIMS[section_name, who, fact]) for fact in ("cpu_s", "bytes") if (section_name, who, fact) in AIMS]
    missed = [f"{fact} {r[fact]:.2f}, aim {aim:.2f}" for fact, aim, _ in aims if r[fact] < aim]
    note = f"  missed: {'; '.join(missed)}" if missed else "  as aimed" if aims else ""
    cells = f"{m['cpu_s']:>10.2f} s{r['cpu_s']:>8.2f}{m['wall_s']:>9.2f}{m['rss_mb']:>9.0f}"
    return f"  {who:<12}{cells}{m['bytes'] / 1e6:>12.1f}{r['bytes']:>8.2f}{note}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "market-data-runner" / "bench"


def main() -> None:
    """Measure the sections asked for, all by default."""
    known = ("startup", "trades", "book", "medians", "memory", "download")
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="default: all")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="so many times the rows, for a trial")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measured rounds (default 3)")
    asked = parser.parse_args()
    ROWS.update({kind: int(rows * asked.scale) for kind, rows in ROWS.items()})
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as scratch:
        for name in asked.sections or known:
            folder = Path(scratch) / name
            folder.mkdir()
            results[name] = _measured(name, folder, asked.rounds)
            shutil.rmtree(folder)
            if not asked.json:
                print(table({name: results[name]}), end="\n\n", flush=True)
    if asked.json:
        print(json.dumps(results, indent=2))


def _measured(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    peers = dict.fromkeys((*PEERS, "pandas_2"), "")
    return {
        "startup": startup,
        "trades": lambda: section("trades", peers, folder, rounds),
        "book": lambda: section("book_snapshot_5", peers, folder, rounds),
        "medians": lambda: section("trades", dict.fromkeys(PEERS, "direct"), folder, rounds, medians=True),
        "memory": lambda: memory(folder),
        "download": lambda: download(folder, rounds),
    }[name]()


if __name__ == "__main__":
    main()
