"""Following runs of thousands of shards: what it costs this machine, and the API server.

    scripts/bench scale [--shards 1000,5000] [--parallelism 1000] [--json]

API server, Job controller and scheduler are those of `scripts/kind up`. Nodes are played by kwok: pods run for 15 to 60
seconds, one of fifty fails for good, another one once. No worker runs: as pods start and before they end, a stand-in
here writes to a bucket of the sandbox what workers would have, by the runner's own functions. The commands are real,
each with an account of its own, by which the API server's audit log counts its requests. Ends with 1 when a limit is
missed or a verdict is wrong.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakes
import planning
import yaml

from runner import run_record
from runner.backends.kubernetes.client import Client
from runner.errors import Exit
from runner.store import open_store
from tests.e2e_k8s.cluster import api_requests, kubectl, rights, turn

LIMITS = {"cores": 1.0, "peak_mb": 200.0, "requests_per_s": 1.0}
"""Of each watcher over all of its following: processor by wall seconds, peak resident memory, requests by seconds."""
BUCKET = "gs://sandbox"
_LOOK_S = 0.1
_SCREEN = (50, 160)
_NOTE = "nodes by kwok, ledgers by a stand-in; API server, Job controller, scheduler and commands are real"


@dataclass
class Command:
    """A command at work, and what it costs. On a terminal of its own where `on_screen`."""

    words: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    on_screen: bool = False
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    peak_mb: float = 0.0
    processor_s: float = 0.0

    def start(self) -> Command:
        """Start it."""
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self._said = self._out if self.on_screen else tempfile.TemporaryFile()  # noqa: SIM115 - the same
        terminal, screen = pty.openpty() if self.on_screen else (-1, -1)
        if self.on_screen:
            fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", *_SCREEN, 0, 0))
            threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runner", *self.words],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=screen if self.on_screen else self._said,
        )
        if self.on_screen:
            os.close(screen)
        threading.Thread(target=self._look, daemon=True).start()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()
        return self

    def _look(self) -> None:
        """Keep the kernel's high-water mark of its memory; what a child inherits of its parent is not in that."""
        with suppress(OSError, StopIteration):
            while True:
                lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
                self.peak_mb = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
                time.sleep(_LOOK_S)

    def _wait(self) -> None:
        _, status, usage = os.wait4(self._process.pid, 0)
        self.ended = time.time()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_s = usage.ru_utime + usage.ru_stime

    def wait(self) -> dict[str, Any]:
        """Return what it cost, once it has ended."""
        self._waiter.join()
        wall, cpu = self.ended - self.began, self.processor_s
        return {
            "exit": self._process.returncode,
            "wall_s": round(wall, 1),
            "processor_s": round(cpu, 1),
            "cores": round(cpu / wall, 2),
            "peak_mb": round(self.peak_mb),
        }

    @property
    def out(self) -> str:
        """Return what it printed."""
        self._out.seek(0)
        return self._out.read().decode()

    @property
    def said(self) -> str:
        """Return what it told the user, where that is no screen."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def _drain(terminal: int) -> None:
    with suppress(OSError):
        while os.read(terminal, 65_536):
            pass


class Site:
    """A namespace with an account for each command, and a folder they are given."""

    def __init__(self, folder: Path, gcs: str) -> None:
        self.folder, self.namespace = folder, f"bench-scale-{uuid.uuid4().hex[:6]}"
        self._gcs = gcs
        folder.mkdir()
        (folder / "placement.json").write_text(json.dumps(fakes.PLACEMENT))

    def open(self, *accounts: str) -> None:
        """Make the namespace; each account gets the rights that are shipped for who submits."""
        kubectl("apply", "-f", "-", given=rights(self.namespace))
        admin = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        for name in accounts:
            kubectl("create", "serviceaccount", name, "-n", self.namespace)
            subject = ("--role=runner-submitter", f"--serviceaccount={self.namespace}:{name}")
            kubectl("create", "rolebinding", name, *subject, "-n", self.namespace)
            token = kubectl("create", "token", name, "-n", self.namespace, "--duration=3h").strip()
            config = {
                "current-context": "bench",
                "clusters": [{"name": "kind", "cluster": admin["clusters"][0]["cluster"]}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [
                    {"name": "bench", "context": {"cluster": "kind", "user": name, "namespace": self.namespace}}
                ],
            }
            (self.folder / f"{name}.kubeconfig").write_text(json.dumps(config))

    def close(self, run: str) -> None:
        """Have everything removed, without waiting for it."""
        kubectl("delete", "job", run, "-n", self.namespace, "--ignore-not-found", "--wait=false", check=False)
        kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def command(self, account: str, *words: str, on_screen: bool = False) -> Command:
        """Start a command as this account."""
        foreign = ("RUNNER_", "TARDIS_", "GCS_", "PYTHONDONTWRITEBYTECODE")
        env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        env |= {"KUBECONFIG": str(self.folder / f"{account}.kubeconfig"), "STORAGE_EMULATOR_HOST": self._gcs}
        env |= {"XDG_STATE_HOME": str(self.folder / "state"), "TERM": "xterm-256color", "PYTHONUTF8": "1"}
        return Command(words, env, self.folder, on_screen).start()

    def requests(self, account: str, command: Command) -> list[str]:
        """Return what the API server says this account asked for while the command ran."""
        return api_requests(f"system:serviceaccount:{self.namespace}:{account}", command.began, command.ended)


def measure(shards: int, parallelism: int, folder: Path, gcs: str) -> dict[str, Any]:
    """Return what a run of so many shards costs who submits, follows and sums it up."""
    site = Site(folder, gcs)
    os.environ["STORAGE_EMULATOR_HOST"] = gcs
    store_url, run = f"{BUCKET}/{site.namespace}", ""
    where = ("--store", store_url)
    try:
        site.open("submits", "screen", "lines", "looks")
        with planning.listing(folder, {"binance-futures": shards}, 1) as url:
            submit = site.command(
                *("submits", "submit", "download", "--values", "placement.json", "-o", "name", *where),
                *("--start-date", str(planning.START), "--venues", "BINANCE-FUTURES", "--data-types", "trades"),
                *("--shards", str(shards), "--parallelism", str(parallelism), "--backend", "kubernetes"),
                *("--tardis-url", f"{url}/v1", "--tardis-api-url", f"{url}/v1"),
            )
            cost = submit.wait()
        run = submit.out.strip()
        if cost["exit"] or not run:
            raise SystemExit(f"bench scale: submit ended with {cost['exit']}:\n{submit.said}")
        store = open_store(store_url)
        record = run_record.get_run(store, run)
        client = Client(kubeconfig=os.environ["KUBECONFIG"], namespace=site.namespace)
        with fakes.StandIn(client, store, record) as stand_in:
            say(f"{shards} shards: submitted in {cost['wall_s']} s, following …")
            watchers = {
                "status -w": ("screen", site.command("screen", "status", run, "-w", *where, on_screen=True)),
                "wait": ("lines", site.command("lines", "wait", run, *where)),
            }
            followed = {name: command.wait() for name, (_, command) in watchers.items()}
        look = site.command("looks", "status", run, "-o", "json", *where)
        looked = look.wait()
        for name, (account, command) in watchers.items():
            followed[name] |= _asked(site.requests(account, command), followed[name]["wall_s"])
        looked |= _asked(site.requests("looks", look), looked["wall_s"])
        verdict = _verdict(json.loads(look.out), record.shards, followed) | {"late_ledgers": stand_in.late}
    finally:
        site.close(run)
    return {"shards": shards, "submit": cost, "following": followed, "status": looked, "verdict": verdict}


def _asked(requests: list[str], wall_s: float) -> dict[str, Any]:
    verbs = [line.split()[0] for line in requests]
    by_verb = {verb: verbs.count(verb) for verb in sorted(set(verbs))}
    return {"requests": len(requests), "requests_per_s": round(len(requests) / wall_s, 3), "by_verb": by_verb}


def _verdict(status: Mapping[str, Any], shards: int, followed: Mapping[str, Any]) -> dict[str, Any]:
    """Compare what was said at the end with what was to come of the shards."""
    bad = [shard for shard in range(shards) if fakes.fails(shard)]
    said = {
        "state": status["state"],
        "done": status["tasks"]["done"],
        "failed": status["tasks"]["failed"],
        "failed_shards": sorted(each["shard"] for each in status["failures"]),
        "exits": sorted({each["exit"] for each in followed.values()}),
    }
    right = {"state": "failed", "done": shards - len(bad), "failed": len(bad), "failed_shards": bad}
    is_right = said == {**right, "exits": [int(Exit.INCOMPLETE)]}
    return {**said, "failed_shards": len(said["failed_shards"]), "right": is_right}


def missed(found: Mapping[str, Any]) -> list[str]:
    """Return every limit that a size missed, in words."""
    over = [
        f"{found['shards']} shards: {name}: {fact} {cost[fact]}, limit {limit:g}"
        for name, cost in found["following"].items()
        for fact, limit in LIMITS.items()
        if cost[fact] > limit
    ]
    silent = [
        f"{found['shards']} shards: no request of {n} is known"
        for n, c in found["following"].items()
        if not c["requests"]
    ]
    wrong = [] if found["verdict"]["right"] else [f"{found['shards']} shards: wrong verdict: {found['verdict']}"]
    return over + silent + wrong


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as a table."""
    limits = f"limits of a watcher: {LIMITS['cores']:g} core, {LIMITS['peak_mb']:g} MB, 1 request/s"
    lines = [f"scale   {_NOTE}", f"        {limits}", ""]
    lines.append("  shards  command     wall s  processor s  cores  peak MB  requests     /s")
    for found in results:
        rows = {"submit": found["submit"], **found["following"], "status": found["status"]}
        for name, cost in rows.items():
            asked = f"{cost['requests']:>10}{cost['requests_per_s']:>7.2f}" if "requests" in cost else ""
            lines.append(
                f"{found['shards']:>8}  {name:<10}{cost['wall_s']:>8.1f}{cost['processor_s']:>13.1f}"
                f"{cost['cores']:>7.2f}{cost['peak_mb']:>9}{asked}"
            )
        v = found["verdict"]
        judged = "right" if v["right"] else "WRONG"
        lines.append(f"{'':>10}verdict {judged}: {v['done']} tasks done, {v['failed']} failed, exit {v['exits']}")
    return "\n".join(lines)


def say(line: str) -> None:
    """Tell on stderr what is being done."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Measure each size and print what it took."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kwok", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--shards", default="1000,5000", help="sizes of runs, by comma (default 1000,5000)")
    parser.add_argument("--parallelism", type=int, default=1000, help="pods at once (default 1000)")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as scratch, turn(alone=True):
        folder = Path(scratch)
        with (
            planning.serving("gcs", "--bucket", "sandbox") as gcs,
            fakes.nodes(given.kwok, os.environ["KUBECONFIG"], folder),
        ):
            results = [
                measure(shards, min(given.parallelism, shards), folder / str(shards), gcs)
                for shards in map(int, given.shards.split(","))
            ]
    lacks = [line for found in results for line in missed(found)]
    print(
        json.dumps({"note": _NOTE, "limits": LIMITS, "missed": lacks, "sizes": results}, indent=2)
        if given.json
        else text(results)
    )
    if lacks:
        sys.exit("\n".join(f"bench scale: missed: {line}" for line in lacks))


if __name__ == "__main__":
    main(sys.argv[1:])
