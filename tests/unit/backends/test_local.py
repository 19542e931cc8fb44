"""The local backend with real worker processes: retries by the table, drains, and one supervisor per run."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from runner import layout, ledger, plan, run_record
from runner.backends.local import Look, Supervisor, supervising
from runner.errors import ConfigError, Exit, RunnerError, WorkerExit
from runner.run_record import RunRecord
from runner.runs import Local, cancel, ending, verdict

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}
ENV = CLEAN | {"TARDIS_API_KEY": "fake-key-1"}
FAST = {"limit": 2, "backoff_s": 0.05, "backoff_max_s": 0.1}


def spec_of(world, **more):
    tardis = {"url": world.server.url, "api_url": world.server.api_url, "attempts": 1}
    return world.spec(retry=FAST, tardis=tardis, **more)


def supervise(world, spec, record: RunRecord, *, env=None, stop=lambda: False) -> tuple[dict[int, int], list[Look]]:
    looks: list[Look] = []
    exits = Supervisor(record, spec, world.store, env or ENV).run(range(record.shards), stop, looks.append)
    return dict(exits), looks


def exits_of(world, run: str) -> list[int | None]:
    return [attempt.exit for attempt in ledger.read_attempts(world.store, run)]


def test_shards_run_to_their_end(world) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    exits, looks = supervise(world, spec, record)
    assert exits == {0: 0, 1: 0}
    assert verdict(world.store, record) is Exit.DONE
    assert any(look.running for look in looks)
    assert looks[-1] == Look(running={}, waiting={}, ended={0: 0, 1: 0})


def test_the_scratch_of_a_killed_supervisor_is_removed_at_the_end_of_its_run(world, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = spec_of(world)
    record = world.submit(spec).record
    names = (f"{record.id}-abcd_123", f"{record.id}-at_work1", f"{record.id}-r1-abcd_123")
    for name in names:
        (tmp_path / name / "shard").mkdir(parents=True)
        (tmp_path / name / ".held").touch()
    with (tmp_path / names[1] / ".held").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        supervise(world, spec, record)
    assert {path.name for path in tmp_path.iterdir() if path.name in names} == set(names[1:])


def test_a_temporary_directory_that_takes_nothing_is_told(world, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    spec = spec_of(world)
    with pytest.raises(RunnerError, match=r"nowhere.*set TMPDIR"):
        supervise(world, spec, world.submit(spec).record)


def test_at_most_so_many_workers_run_at_once(world) -> None:
    spec = spec_of(world, parallelism=1, end_date="2024-08-02", shards=3)
    record = world.submit(spec).record
    exits, looks = supervise(world, spec, record)
    assert exits == dict.fromkeys(range(3), 0)
    assert max(len(look.running) for look in looks) == 1


def test_what_is_transient_is_tried_again_with_back_off_and_then_given_up(world, caplog) -> None:
    world.server.add_faults({"path": "*/2024/08/01/ETHUSDT*", "fault": "status", "code": 503, "body": "no"})
    spec = spec_of(world)
    record = world.submit(spec).record
    with caplog.at_level(logging.WARNING, "runner.backends.local"):
        exits, looks = supervise(world, spec, record)
    assert sorted(exits.values()) == [0, 75]
    assert sorted(exits_of(world, record.id)) == [0, 75, 75, 75]
    assert any(look.waiting for look in looks)
    texts = [r.getMessage() for r in caplog.records]
    assert sum("ended with exit 75, again in 0.1 s" in text for text in texts) == 2
    assert "given up after 3 failures, last exit 75" in texts[-1]


def test_what_was_transient_and_passed_is_done(world) -> None:
    world.server.add_faults({"path": "*/2024/08/01/ETHUSDT*", "fault": "status", "code": 503, "body": "no", "count": 1})
    spec = spec_of(world)
    record = world.submit(spec).record
    assert supervise(world, spec, record)[0] == {0: 0, 1: 0}
    assert sorted(exits_of(world, record.id)) == [0, 0, 75]


def test_what_failed_for_good_fails_its_shard_alone_and_is_not_tried_again(world) -> None:
    world.server.add_faults({"path": "*/2024/08/01/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"})
    spec = spec_of(world)
    record = world.submit(spec).record
    assert sorted(supervise(world, spec, record)[0].values()) == [0, 65]
    assert sorted(exits_of(world, record.id)) == [0, 65]


def test_a_configuration_that_contradicts_itself_ends_the_run(world, caplog) -> None:
    spec = spec_of(world, parallelism=1)
    record = world.submit(spec).record
    world.store.delete(layout.run_record(record.id))
    run_record.write_run(world.store, replace(record, plan=ledger.pin(b"another plan")))
    exits, _ = supervise(world, spec, record)
    assert exits == {0: 78}
    assert [r.getMessage() for r in caplog.records] == ["shard 0 ended with exit 78: the whole run stops"]


def test_a_worker_that_dies_before_it_can_speak_leaves_its_output_as_log(world) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    broken = {**ENV, "PYTHONHOME": "/nowhere"}
    exits, _ = supervise(world, spec, record, env=broken)
    assert set(exits) == {0, 1}
    assert not {0, *WorkerExit} & set(exits.values())
    logs = [world.store.get(i.key).decode() for i in world.store.list(f"_runs/{record.id}/logs/")]
    assert len(logs) == 6
    assert all("Python" in text for text in logs)


def test_a_drained_run_leaves_no_worker_and_can_go_on(world) -> None:
    world.server.add_faults({"path": "*/2024/08/01/*", "fault": "hold"})
    spec = spec_of(world)
    record = world.submit(spec).record
    seen: dict[int, int] = {}

    def held() -> bool:
        paths = world.server.stats()["paths"]
        return sum(f["in_flight"] for p, f in paths.items() if p.endswith(".csv.gz")) == 2

    exits = Supervisor(record, spec, world.store, ENV).run([0, 1], held, lambda look: seen.update(look.running))
    assert exits == {}
    assert len(seen) == 2
    for pid in seen.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert exits_of(world, record.id) == [143, 143]
    folded = ledger.fold(ledger.read_attempts(world.store, record.id))
    assert not folded.deaths
    assert not folded.preemptions  # the user's word, no machine's
    world.server.clear_faults()
    assert supervise(world, spec, record)[0] == {0: 0, 1: 0}


def test_a_killed_worker_is_started_again(world) -> None:
    world.server.add_faults({"path": "*/2024/08/01/ETHUSDT*", "fault": "hold", "count": 1})
    spec = spec_of(world)
    record = world.submit(spec).record
    killed: list[int] = []

    def look(seen: Look) -> None:
        paths = world.server.stats()["paths"]
        held = [p for p, f in paths.items() if p.endswith("ETHUSDT.csv.gz") and f["in_flight"]]
        if held and not killed and len(seen.running) == 1:
            killed.extend(seen.running.values())
            os.kill(killed[0], signal.SIGKILL)

    exits = Supervisor(record, spec, world.store, ENV).run([0, 1], lambda: False, look)
    assert exits == {0: 0, 1: 0}
    assert len(killed) == 1
    attempts = ledger.read_attempts(world.store, record.id)
    assert sorted(a.exit is None for a in attempts) == [False, False, True]
    assert sum(ledger.fold(attempts).deaths.values()) == 1


# One supervisor per run.

HOLDER = """
import sys
from pathlib import Path
from runner.backends.local import supervising
with supervising(Path(sys.argv[1]), sys.argv[2], sys.argv[3]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def hold(directory: Path, url: str, run: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), url, run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_right_to_supervise_is_one_process_s_until_it_dies(tmp_path: Path) -> None:
    with hold(tmp_path, "file:///s", "r1") as holder:
        assert holder.stdout.readline() == "True\n"
        with supervising(tmp_path, "file:///s", "r1") as mine:
            assert not mine
        with supervising(tmp_path, "file:///s", "r2") as mine, supervising(tmp_path, "file:///t", "r1") as other:
            assert (mine, other) == (True, True)
        holder.kill()
        holder.wait()
        with supervising(tmp_path, "file:///s", "r1") as mine:
            assert mine
        with supervising(tmp_path, "file:///s", "r1") as again:
            assert again


def test_a_place_where_no_lock_can_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"file/locks: no lock can be kept there .*XDG_STATE_HOME"),
        supervising(tmp_path / "file" / "locks", "file:///s", "r"),
    ):
        pass


# Carrying out: runner.runs over this backend.


def test_a_run_is_carried_out_once_by_whoever_comes_first(world, tmp_path: Path) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    local = Local(world.store, tmp_path / "locks", ENV)
    ends: list[Exit] = []

    def go() -> None:
        ends.append(local.carry_out(record, spec, lambda: False, lambda _: None))

    pair = [threading.Thread(target=go) for _ in range(2)]
    for each in pair:
        each.start()
    for each in pair:
        each.join()
    assert ends == [Exit.DONE, Exit.DONE]
    assert exits_of(world, record.id) == [0, 0]
    assert ending(world.store, record.id).state == "finished"
    assert not local.alive(record.id)


def test_only_shards_that_have_not_ended_are_run_on_resuming(world, tmp_path: Path) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    world.shard(record, spec, 0).run()
    Local(world.store, tmp_path / "locks", ENV).carry_out(record, spec, lambda: False, lambda _: None)
    assert sorted(a.shard for a in ledger.read_attempts(world.store, record.id)) == [0, 1]
    assert ending(world.store, record.id).exits == {0: 0, 1: 0}


def test_a_cancelled_run_that_nobody_supervises_is_ended_by_the_next_who_comes(world, tmp_path: Path) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    cancel(world.store, record.id)
    local = Local(world.store, tmp_path / "locks", ENV)
    assert local.carry_out(record, spec, lambda: False, lambda _: None) is Exit.INTERRUPTED
    assert ending(world.store, record.id).state == "cancelled"
    assert exits_of(world, record.id) == []


def test_an_interrupted_run_stays_unfinished(world, tmp_path: Path) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    local = Local(world.store, tmp_path / "locks", ENV)
    assert local.carry_out(record, spec, lambda: True, lambda _: None) is Exit.INTERRUPTED
    assert ending(world.store, record.id) is None
    assert local.carry_out(record, spec, lambda: False, lambda _: None) is Exit.DONE


def test_the_plan_of_a_run_is_read_by_every_worker(world) -> None:
    spec = spec_of(world)
    record = world.submit(spec).record
    supervise(world, spec, record)
    done = {e.task_id for a in ledger.read_attempts(world.store, record.id) for e in a.entries}
    assert done == {t.id for t in plan.decode_bytes(plan.read_plan(world.store, record)).tasks}
