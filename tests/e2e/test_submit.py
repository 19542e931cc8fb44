"""The states of a request, as the command line has them: at once, during, after, after a failure, after a cancel."""

from __future__ import annotations

import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.world import World, until

CATALOGUE = "/v1/exchanges/binance"
QUOTES = "*/quotes/2024/08/08/ETHUSDT*"
FAILS = ("download/2024-08-08/BINANCE:SPOT_PAIR:ETH-USDT", "quotes")


def parent_of(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


@pytest.mark.slow
def test_two_submits_at_once_are_one_run_and_both_return_its_verdict(world: World) -> None:
    world.server.add_faults({"path": CATALOGUE, "fault": "hold", "at": 0.5, "count": 2})
    with ExitStack() as stack:
        both = [stack.enter_context(world.command("submit", "download")) for _ in range(2)]
        until(lambda: world.server.stats()["paths"].get(CATALOGUE, {}).get("in_flight") == 2, "both are planning")
        world.server.clear_faults()
        ends = [(process.communicate(timeout=90), process.returncode) for process in both]

    assert [code for _, code in ends] == [0, 0], ends
    assert len(world.run_ids()) == 1
    assert set(world.bodies.values()) == {1}
    assert world.violations() == []


@pytest.mark.slow
def test_a_submit_during_a_run_attaches_and_one_after_it_has_nothing_to_do(world: World) -> None:
    world.hold(QUOTES)
    with world.command("submit", "download") as first:
        until(world.is_held, "a body is held")
        with world.command("submit", "download", "--shards", "4") as second:
            assert second.stderr is not None
            lines = iter(second.stderr.readline, "")
            assert any("attached to" in line for line in lines)
            world.server.clear_faults()
            assert second.wait(90) == 0
        assert first.wait(90) == 0
    assert world.violations() == []

    after = world.cli("submit", "download")

    assert after.returncode == 0, after.stderr
    assert len(world.run_ids()) == 1
    assert set(world.bodies.values()) == {1}


@pytest.mark.slow
def test_after_a_failure_submit_names_the_retry_which_runs_exactly_what_failed(world: World) -> None:
    world.job["tardis"] = {"attempts": 2}
    world.server.add_faults({"path": QUOTES, "fault": "status", "code": 404})
    failed = world.cli("submit", "download")
    (run,) = world.run_ids()
    assert failed.returncode == 3, failed.stderr
    assert f"runner retry {run}" in failed.stderr
    assert world.violations(failed=[FAILS]) == []
    served = world.bodies

    again = world.cli("submit", "download")

    assert again.returncode == 3, again.stderr
    assert f"runner retry {run}" in again.stderr
    assert world.run_ids() == (run,)
    assert world.bodies == served

    world.server.clear_faults()
    retried = world.cli("retry", run)

    assert retried.returncode == 0, retried.stderr
    assert len(world.run_ids()) == 2
    more = {path for path, count in world.bodies.items() if count != served.get(path)}
    assert [path.split("/v1/binance/")[1] for path in more] == ["quotes/2024/08/08/ETHUSDT.csv.gz"]
    assert world.violations() == []
    assert world.cli("submit", "download").returncode == 0
    assert len(world.run_ids()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_a_supervisor_killed_leaves_no_worker_and_the_next_submit_goes_on(world: World, *, at_once: bool) -> None:
    world.hold("*/quotes/*")
    with world.command("submit", "download") as submit:
        until(world.is_held, "a body is held")
        assert world.workers()
        submit.send_signal(signal.SIGKILL)
        submit.wait()
    (run,) = world.run_ids()
    if not at_once:
        until(lambda: not world.workers(), "workers without a supervisor end", 15)
        assert {attempt.exit for attempt in world.attempts(run)} <= {0, 143}
    world.server.clear_faults()

    again = world.cli("submit", "download")

    assert again.returncode == 0, again.stderr
    assert world.run_ids() == (run,)
    assert world.violations(redone=2 * world.threads) == []


@pytest.mark.slow
def test_whoever_follows_a_run_takes_it_over_when_its_supervisor_dies(world: World) -> None:
    world.hold("*/quotes/*")
    with world.command("submit", "download") as first, world.command("submit", "download") as second:
        until(world.is_held, "a body is held")
        local = world.local()
        (run,) = until(world.run_ids, "there is a run")
        mine = {submit.pid for submit in (first, second)}
        chief = until(lambda: mine & {parent_of(pid) for pid in world.workers()}, "one of them has workers").pop()
        dead, heir = (first, second) if chief == first.pid else (second, first)
        dead.kill()
        dead.wait()
        world.server.clear_faults()
        assert heir.wait(60) == 0
        assert not local.alive(run)

    assert world.run_ids() == (run,)
    assert world.violations(redone=2 * world.threads) == []


@pytest.mark.slow
def test_control_c_drains_and_the_next_submit_completes(world: World) -> None:
    world.hold("*/quotes/*")
    with world.command("submit", "download") as submit:
        until(world.is_held, "a body is held")
        submit.send_signal(signal.SIGINT)
        assert submit.wait(60) == 130
    assert world.workers() == []
    (run,) = world.run_ids()
    drained = [attempt for attempt in world.attempts(run) if attempt.exit == 143]
    assert drained
    assert not any(attempt.preempted for attempt in drained)
    assert all(attempt.exit is not None for attempt in world.attempts(run))
    world.server.clear_faults()

    again = world.cli("submit", "download")

    assert again.returncode == 0, again.stderr
    assert world.run_ids() == (run,)
    assert world.violations(redone=2 * world.threads) == []


@pytest.mark.slow
@pytest.mark.parametrize("is_alive", [True, False], ids=["at work", "left by its supervisor"])
def test_cancel_ends_a_run_and_the_next_submit_is_its_next_pass(world: World, *, is_alive: bool) -> None:
    world.hold("*/quotes/*")
    with world.command("submit", "download") as submit:
        until(world.is_held, "a body is held")
        (run,) = world.run_ids()
        if not is_alive:
            submit.kill()
            submit.wait()
        cancelled = world.cli("cancel", run)
        assert cancelled.returncode == 0, cancelled.stderr
        if is_alive:
            assert submit.wait(60) == 130
    until(lambda: not world.workers(), "workers of a cancelled run end", 15)
    assert '"state": "cancelled"' in world.cli("status", run, "-o", "json").stdout
    world.server.clear_faults()

    again = world.cli("submit", "download")

    assert again.returncode == 0, again.stderr
    assert world.run_ids() == (run, f"{run}-r1")
    assert world.violations(redone=2 * world.threads) == []
