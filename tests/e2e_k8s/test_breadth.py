"""Five data types of four venues, from spot to an options chain, and candles of them: complete, and as done here."""

import json
from pathlib import Path

import pytest

from runner.errors import Exit
from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import World as LocalWorld
from tests.e2e_k8s.world import PAIRS, SWAPS, WIDE, WIDE_JOB, Held

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]
OFFERED = {
    *(("BINANCE", name) for name in PAIRS),
    *((venue, name) for venue in ("BINANCE-FUTURES", "DERIBIT", "OKX-SWAP") for name in SWAPS),
    ("DERIBIT", "options_chain"),
}


def test_every_data_type_of_four_venues_and_their_candles_are_as_a_local_run_leaves_them(make_world, tmp_path) -> None:
    world = make_world(**WIDE_JOB)
    run = world.submit()
    with serve(Options(generate=WIDE, cache=tmp_path / "generated")) as server:
        here = LocalWorld(tmp_path / "here", server, {}, {**WIDE_JOB, "shards": 2, "parallelism": 2})
        Path(here.folder).mkdir()
        assert here.run()[1] is Exit.DONE
        world.clean = invariants.contents(here.store)
        done = world.cli("wait", run)
        assert done.returncode == 0, done.stderr
        assert world.violations() == []
        here.job["stage"] = "candles"
        assert here.run()[1] is Exit.DONE
        ours = here.cli("validate", "-o", "json")
    sealing = world.cli("submit", "candles", "--wait")
    assert sealing.returncode == 0, sealing.stderr
    sealed = invariants.contents(here.store)
    assert invariants.contents(Held(world.store)) == sealed
    assert sealed != world.clean, "the day before was sealed"
    assert any(key.startswith("option_features/") for key in sealed)
    theirs = world.cli("validate", "-o", "json")
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
    verdicts = json.loads(theirs.stdout)["verdicts"]
    assert verdicts == json.loads(ours.stdout)["verdicts"]
    complete = {(each["venue"], each["dataType"]) for each in verdicts if each["verdict"] == "complete"}
    others = {each["verdict"] for each in verdicts if (each["venue"], each["dataType"]) not in OFFERED}
    assert (complete, others) == (OFFERED, {"nothing_expected"})
