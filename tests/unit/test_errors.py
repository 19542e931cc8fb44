"""The exit-code table: complete, in the order the design gives, and the same for every error."""

import itertools

import pytest

from runner import errors
from runner.errors import WORKER_EXITS, Action, Exit, RunnerError, WorkerExit, action_for, gravest


def all_errors(base: type[RunnerError] = RunnerError) -> list[type[RunnerError]]:
    return [base, *(found for kind in base.__subclasses__() for found in all_errors(kind))]


def test_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in WorkerExit} == {
        "SETTLED": 0,
        "BAD_SPEC": 64,
        "TASKS_FAILED": 65,
        "BUG": 70,
        "TRANSIENT": 75,
        "NOT_ALLOWED": 77,
        "CONFIG": 78,
        "DRAINED": 143,
    }
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 130]


def test_every_worker_code_stands_once_in_the_table() -> None:
    assert sorted(rule.code for rule in WORKER_EXITS) == sorted(WorkerExit)
    assert all(rule.meaning for rule in WORKER_EXITS)


@pytest.mark.parametrize("codes", [set(c) for n in range(9) for c in itertools.combinations(WorkerExit, n)])
def test_the_gravest_code_that_still_helps_wins(codes: set[WorkerExit]) -> None:
    """Design: 77/78/64, then 143, 70, 75, 65, 0."""
    expected = next((c for c in (77, 78, 64, 143, 70, 75, 65) if c in codes), 0)
    assert gravest(codes) == expected


@pytest.mark.parametrize(
    ("action", "codes"),
    [
        (Action.COMPLETE, [0]),
        (Action.FAIL_SHARD, [65]),
        (Action.FAIL_RUN, [64, 77, 78]),
        (Action.RETRY, [70, 75, 143, 1, 2, 137, 139, 255, -1, -9, -15]),
    ],
)
def test_what_follows_a_code(action: Action, codes: list[int]) -> None:
    assert [action_for(code) for code in codes] == [action] * len(codes)


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_ends_a_worker_in_a_code_of_the_table(kind: type[RunnerError]) -> None:
    assert kind.worker_exit in WorkerExit
    assert kind.worker_exit is not WorkerExit.SETTLED
    assert kind.exit_code in Exit
    assert kind.exit_code is not Exit.DONE


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {
        words[0]: (int(words[-1]), words[words.index("CLI") + 1] if "CLI" in words else None)
        for line in (errors.__doc__ or "").splitlines()
        if "──" in line and (words := line.split("── ")[1].split())
    }
    kinds = {kind.__name__: kind for kind in all_errors()[1:] if kind.__module__ == errors.__name__}
    assert set(drawn) == set(kinds)
    for name, (worker, cli) in drawn.items():
        assert kinds[name].worker_exit == worker, name
        assert cli is None or kinds[name].exit_code == int(cli), name
