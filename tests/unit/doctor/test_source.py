"""What doctor says of source and key: the sandbox, asked as the real one is."""

from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from runner.errors import SpecError
from tests.unit.doctor.world import LAST, World


def local(world: World) -> dict[str, str]:
    return {name: check.verdict for name, check in world.checks("local").items()}


def test_without_a_cluster_only_what_makes_sense_is_checked(world: World) -> None:
    assert local(world) == {"store": "ok", "source": "ok", "key": "ok", "egress": "ok", "clock": "ok"}
    assert not world.api.requests


def test_the_source_says_until_when_it_is_exported(world: World) -> None:
    assert str(LAST) in world.checks("local")["source"].finding


def test_a_key_that_is_refused_is_a_failure(world: World) -> None:
    world.key = "fake-key-9"
    found = world.checks("local")
    assert (found["key"].verdict, found["egress"].verdict) == ("fail", "unknown")
    assert "TARDIS_API_KEY_FILE" in found["key"].mend


def test_no_key_gives_the_first_days_of_months_only(world: World) -> None:
    world.key = None
    assert local(world) | {"key": "warn", "egress": "ok"} == local(world)
    assert world.checks()["key"].verdict == "unknown", "pods have that of the Secret"


def test_a_key_that_cannot_be_read_is_a_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> None:
        raise SpecError("env TARDIS_API_KEY_FILE nowhere: cannot be read: no such file or directory")

    monkeypatch.setattr(world, "read_key", unreadable)
    found = world.checks("local")
    assert (found["key"].verdict, found["egress"].verdict) == ("fail", "unknown")
    assert "no such file" in found["key"].finding


@pytest.mark.parametrize(
    ("plan", "verdict", "words"),
    [("fake-key-1 2024-01-01 2024-08-03", "warn", "no new days"), ("fake-key-1 - - 2024-01-01", "fail", "expired")],
)
def test_a_key_is_judged_by_what_it_covers(world: World, keys: Path, plan: str, verdict: str, words: str) -> None:
    keys.write_text(f"{plan}\n")
    check = world.checks("local")["key"]
    assert check.verdict == verdict
    assert words in check.finding


def test_venues_that_a_key_does_not_cover_are_named(world: World) -> None:
    check = world.checks("local", venues="binance,deribit")["key"]
    assert check.verdict == "warn"
    assert "DERIBIT" in check.finding


def test_a_key_that_another_address_holds_is_a_failure_here(world: World) -> None:
    headers = {"Authorization": "Bearer fake-key-1", "X-Fake-Client-IP": "10.0.0.9"}
    file = f"{world.source.url}/binance/trades/2024/08/02/BTCUSDT.csv.gz"
    urlopen(Request(file, headers=headers), timeout=30).close()
    check = world.checks("local")["egress"]
    assert check.verdict == "fail"
    assert "another address holds the key" in check.finding


def test_a_cluster_is_asked_about_without_taking_its_key(world: World) -> None:
    world.checks()
    assert not [path for path in world.source.stats()["paths"] if path.endswith(".csv.gz")]


def test_a_source_that_does_not_answer_is_a_failure(world: World) -> None:
    world.source.add_faults({"path": "*", "fault": "status", "code": 503})
    found = world.checks("local")
    assert found["source"].verdict == "fail"
    assert found["key"].verdict == "unknown"
    assert found["store"].verdict == "ok"
