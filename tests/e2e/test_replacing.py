"""What is in the store already: kept when it is the same, kept and named when it is not, replaced only when told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runner.errors import Exit
from runner.spec import Selection
from runner.store import Store
from tests.e2e import invariants
from tests.e2e.world import GENERATED, World


def generations(store: Store) -> dict[str, str]:
    return {info.key: info.generation for info in store.list("") if info.key.startswith(invariants.DATA)}


@pytest.fixture
def revised(make_world: Callable[..., World], world: World) -> World:
    """Return a world over the same store whose source has other rows since."""
    return make_world(world.folder, generate={**GENERATED, "seed": 8})


@pytest.mark.slow
def test_force_fetches_again_and_rewrites_nothing_that_is_equal(world: World) -> None:
    world.run()
    before = generations(world.store)

    record = world.submit(select=Selection.ALL).record
    assert record is not None
    world.job["select"] = "all"
    assert world.carry_out(record) is Exit.DONE

    assert set(world.bodies.values()) == {2}
    assert generations(world.store) == before
    assert world.violations(shared=world.bodies) == []


@pytest.mark.slow
def test_force_replaces_what_the_source_has_revised(world: World, revised: World) -> None:
    world.run()
    before = generations(world.store)
    revised.job["select"] = "all"

    _, verdict = revised.run()

    assert verdict is Exit.DONE
    after = generations(world.store)
    assert after.keys() == before.keys()
    assert all(after[key] != before[key] for key in after)
    contents = invariants.contents(world.store)
    assert all(contents[key] != world.clean[key] for key in contents)


@pytest.mark.slow
def test_a_revised_source_is_a_conflict_that_leaves_the_store_as_it_was(world: World, revised: World) -> None:
    world.run()
    lost = next(info.key for info in world.store.list("processed_candles/") if "timeframe-15s" in info.key)
    world.store.delete(lost)
    before = generations(world.store)

    _, verdict = revised.run()

    assert verdict is Exit.INCOMPLETE
    assert generations(world.store) == before
    (record,) = set(world.run_ids()) - {min(world.run_ids())}
    (entry,) = [e for a in world.attempts(record) for e in a.entries if e.outcome == "failed"]
    assert "another content" in str(entry.facts["error"])
    assert "--select all" in str(entry.facts["error"])


@pytest.mark.slow
def test_what_is_lost_from_the_store_comes_back_and_nothing_else_is_touched(world: World) -> None:
    world.run()
    before = generations(world.store)
    lost = next(key for key in before if "timeframe-1h" in key)
    world.store.delete(lost)

    record, verdict = world.run()

    assert verdict is Exit.DONE
    assert record.id.endswith("-r1")
    assert sum(count == 2 for count in world.bodies.values()) == 1
    after = generations(world.store)
    assert after.pop(lost) != before.pop(lost)
    assert after == before
    assert invariants.contents(world.store) == world.clean


@pytest.mark.slow
def test_validate_is_a_run_like_any_other_and_finds_what_is_lost(world: World) -> None:
    world.run()
    world.job.update(stage="validate", deep=True)
    _, verdict = world.run()
    assert verdict is Exit.DONE
    world.store.delete(next(iter(generations(world.store))))

    record, verdict = world.run()

    assert verdict is Exit.INCOMPLETE
    failed = [e for a in world.attempts(record.id) for e in a.entries if e.outcome == "failed"]
    assert failed
    assert all("runner" in str(e.facts["error"]) for e in failed)
