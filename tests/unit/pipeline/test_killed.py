"""A controller killed between any two of its writes: the next one goes on, and nothing is done twice."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from runner import run_record
from runner.pipeline import Verdict
from runner.store import ObjectInfo, Store
from tests.unit.pipeline.conftest import Mornings

MOST_WRITES = 40
STAGES = {"instruments": 2, "availability": 4, "download": 2, "candles": 3, "validate": 5, "pipeline": 2}
"""How many runs of each stage two days make, the first of which the second seals."""


class Killed(BaseException):
    """What nobody catches: the process is gone."""


class Mortal:
    """A store whose user dies at its n-th write, which is done and never answered."""

    def __init__(self, store: Store, at: int) -> None:
        self._store, self._at, self.writes = store, at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, body: bytes, **options: Any) -> ObjectInfo:
        self.writes += 1
        done = self._store.put(key, body, **options)
        if self.writes == self._at:
            raise Killed
        return done


@pytest.fixture
def first_day(mornings: Mornings) -> Mornings:
    """Return mornings whose first day is done and not sealed."""
    mornings.clock("2024-08-02T08:00:00+00:00")
    assert [end.verdict for end in mornings.run("2024-08-01")] == [Verdict.COMPLETE]
    mornings.clock("2024-08-03T08:00:00+00:00")
    return mornings


def content(mornings: Mornings) -> dict[str, str]:
    """Return the digests of all data, by key."""
    found = (info for info in mornings.world.store.list("") if not info.key.startswith("_runs/"))
    return {info.key: info.metadata.get("digest", "") for info in found}


@pytest.fixture(scope="session")
def writes() -> list[int]:
    """Return what the first to count finds: how many writes a pass has."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, MOST_WRITES))
def test_killed_at_a_write_it_is_taken_up_and_nothing_is_done_twice(
    request: pytest.FixtureRequest, number: int, writes: list[int]
) -> None:
    if writes and number > writes[0]:
        return
    first_day: Mornings = request.getfixturevalue("first_day")
    mortal = Mortal(first_day.world.store, number)
    first_day.store = mortal  # type: ignore[assignment] # all of a store but its type
    try:
        first_day.run("2024-08-02")
    except Killed:
        pass
    else:
        writes.append(mortal.writes)
        assert mortal.writes < MOST_WRITES
    first_day.store = None

    ends = first_day.run("2024-08-02")

    assert {end.verdict for end in ends} <= {Verdict.COMPLETE, Verdict.NOTHING}
    assert first_day.unfinished() == [], "no orphans"
    assert set(first_day.done.values()) == {1}, "no doubles"
    assert {stage: len(first_day.runs(stage)) for stage in STAGES} == STAGES
    assert [first_day.sealed(date(2024, 8, n)) for n in (1, 2)] == [{"true"}, {"false"}]
    assert not any(run.endswith("-r1") for run in run_record.run_ids(first_day.world.store))
    before = content(first_day)
    assert [end.verdict for end in first_day.run("2024-08-02")] == [Verdict.NOTHING]
    assert content(first_day) == before
