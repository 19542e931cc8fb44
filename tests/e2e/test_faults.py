"""A source that errs: what passes is survived, what stays fails one task with its cause, a bad key ends the run."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.runs import ending
from tests.e2e.world import KEY, World

BAD = "/v1/binance/trades/2024/08/09/BTCUSDT.csv.gz"
BAD_TASK = ("download/2024-08-09/BINANCE:SPOT_PAIR:BTC-USDT", "trades")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "code": 500, "count": 3},
        {"fault": "reset", "at": 0.5, "count": 3},
        {"fault": "stall", "at": 0.5, "count": 1},
        {"fault": "cut", "at": 0.5, "framing": "close", "count": 2},
        {"fault": "corrupt", "kind": "html", "count": 2},
    ],
    ids=lambda fault: fault["fault"],
)
def test_trouble_that_passes_leaves_no_trace(world: World, fault: dict[str, Any]) -> None:
    world.job["tardis"] = {"stallSeconds": 1}
    world.server.add_faults({"path": "*.csv.gz", **fault})

    record, verdict = world.run()

    assert verdict is Exit.DONE
    assert len(world.attempts(record.id)) == 2, "a shard was started twice"
    assert world.violations(shared=world.bodies if fault["fault"] in ("corrupt", "cut") else ()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"fault": "status", "code": 404}, "404"),
        ({"fault": "corrupt", "kind": "gzip_trailer"}, "gzip"),
        ({"fault": "corrupt", "kind": "html"}, "gzip"),
    ],
    ids=["404", "gzip_trailer", "html"],
)
def test_trouble_that_stays_fails_its_task_alone_and_says_why(world: World, fault: dict[str, Any], cause: str) -> None:
    world.job["tardis"] = {"attempts": 2}
    world.server.add_faults({"path": BAD, **fault})

    record, verdict = world.run()

    assert verdict is Exit.INCOMPLETE
    assert world.violations(shared=[BAD], failed=[BAD_TASK]) == []
    attempts = world.attempts(record.id)
    assert sorted(int(a.exit) for a in attempts if a.exit is not None) == [0, 65]
    (error,) = [str(e.facts["error"]) for a in attempts for e in a.entries if e.outcome == "failed"]
    assert cause in error
    assert "BTCUSDT" in error


@pytest.mark.slow
def test_a_refused_key_ends_the_run_and_is_named(make_world: Callable[..., World], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("fake-key-2\n")
    world = make_world(key_file=keys)
    world.job["tardis"] = {"refusalSeconds": 0.5}

    record, verdict = world.run()

    assert verdict is Exit.NOT_ALLOWED
    end = ending(world.store, record.id)
    assert end is not None
    assert 77 in end.exits.values()
    errors = [str(e.facts["error"]) for a in world.attempts(record.id) for e in a.entries if e.outcome == "failed"]
    assert errors
    assert all("TARDIS_API_KEY" in error for error in errors)
    assert not any(KEY in error for error in errors)
    assert world.bodies == dict.fromkeys(world.bodies, 0)


@pytest.mark.slow
def test_after_a_refused_key_the_same_submit_with_a_good_one_completes(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("fake-key-2\n")
    world = make_world(key_file=keys)
    world.job["tardis"] = {"refusalSeconds": 0.5}
    refused = world.cli("submit", "download")
    assert refused.returncode == 4, refused.stderr
    assert "then submit again" in refused.stderr
    keys.write_text(f"{KEY}\n")

    again = world.cli("submit", "download")

    assert again.returncode == 0, again.stderr
    assert len(world.run_ids()) == 2
    assert world.violations() == []


@pytest.mark.slow
def test_a_key_active_elsewhere_is_waited_for(make_world: Callable[..., World]) -> None:
    # fifteen seconds, which the workers need even on a busy machine to come and find the key locked
    world = make_world(lock_ttl_s=900.0, time_factor=60.0)
    other = http.client.HTTPConnection(f"127.0.0.1:{world.server.port}", timeout=10)
    other.request("GET", BAD, headers={"Authorization": f"Bearer {KEY}", "X-Fake-Client-IP": "10.0.0.9"})
    assert other.getresponse().read()
    other.close()

    record, verdict = world.run()

    assert verdict is Exit.DONE
    locked = world.server.stats()["total"]["statuses"].get("403", 0)
    assert locked > 0
    assert len(world.attempts(record.id)) == 2
    assert world.violations(shared=[BAD]) == []


@pytest.mark.slow
def test_a_key_active_elsewhere_for_too_long_ends_the_run(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.job["tardis"] = {"lockLimitSeconds": 1}
    other = http.client.HTTPConnection(f"127.0.0.1:{world.server.port}", timeout=10)
    other.request("GET", BAD, headers={"Authorization": f"Bearer {KEY}", "X-Fake-Client-IP": "10.0.0.9"})
    assert other.getresponse().read()
    other.close()

    record, verdict = world.run()

    assert verdict is Exit.NOT_ALLOWED
    errors = [str(e.facts["error"]) for a in world.attempts(record.id) for e in a.entries if e.outcome == "failed"]
    assert any("one address" in error for error in errors)


@pytest.mark.slow
def test_trouble_of_the_network_is_tried_again_by_the_shard_and_then_named(world: World) -> None:
    world.job.update(tardis={"attempts": 1}, retry={"limit": 2})
    world.server.add_faults({"path": BAD, "fault": "reset", "at": 0.5})

    record, verdict = world.run()

    assert verdict is Exit.INCOMPLETE
    attempts = world.attempts(record.id)
    assert sorted(int(a.exit) for a in attempts if a.exit is not None) == [0, 75, 75, 75]
    assert world.violations(failed=[BAD_TASK]) == []
