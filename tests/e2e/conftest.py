"""Fixtures of the tests that run the whole: a world per test, and what a run without trouble leaves, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import GENERATED, World


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(scope="session")
def clean(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the content of every data object after a run that nothing happened to."""
    with serve(Options(generate=GENERATED, cache=generated)) as server:
        world = World(tmp_path_factory.mktemp("clean"), server, {})
        _, verdict = world.run()
        assert verdict is Exit.DONE
        assert set(world.bodies.values()) == {1}
        return invariants.contents(world.store)


@pytest.fixture
def make_world(generated: Path, clean: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Return a function that makes a world; `options` go to its sandbox."""
    with ExitStack() as stack:

        def make(folder: Path = tmp_path, **options: Any) -> World:
            folder.mkdir(exist_ok=True, parents=True)
            given = {"generate": GENERATED, "cache": generated, **options}
            server = stack.enter_context(serve(Options(**given)))
            return World(folder, server, clean)

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
