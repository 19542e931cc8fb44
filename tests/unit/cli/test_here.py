import pytest

from runner import layout
from runner.cli.here import find_run
from runner.errors import NotFoundError, SpecError
from runner.ledger import Pin
from runner.run_record import RunRecord, Size, write_run
from runner.store import Store, open_store


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    store = open_store(f"memory://{request.node.name}")
    for run in ("download-3f9a1c20", "download-3f9a1c20-r1", "validate-77aa00bb"):
        write_run(store, RunRecord(run, {}, {}, Pin("", 0, 0), (Size(1, 1, 1),)))
    return store


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("download-3f9a1c20", "download-3f9a1c20"),
        ("download-3f9a1c20-r1", "download-3f9a1c20-r1"),
        ("val", "validate-77aa00bb"),
    ],
)
def test_a_run_is_found_by_its_id_or_the_only_beginning_of_one(store: Store, name: str, found: str) -> None:
    assert find_run(store, name).id == found


def test_without_a_name_it_is_the_newest_run(store: Store) -> None:
    newest = store.head(layout.run_record("validate-77aa00bb"))
    assert newest is not None
    assert find_run(store, None).created == newest.updated


def test_a_beginning_of_several_runs_is_refused_naming_some(store: Store) -> None:
    with pytest.raises(SpecError, match=r"2 runs begin so \(download-3f9a1c20, download-3f9a1c20-r1\)"):
        find_run(store, "download")


def test_an_unknown_run_is_not_found_and_the_nearest_is_told(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"did you mean validate-77aa00bb\?"):
        find_run(store, "validate-77aa00bc")


def test_a_store_without_runs_says_how_to_start_one() -> None:
    with pytest.raises(NotFoundError, match="runner submit"):
        find_run(open_store("memory://no-runs"), None)


def test_the_newest_run_is_found_beside_one_that_cannot_be_read(store: Store) -> None:
    store.put(layout.run_record("download-0dd"), b"{}")
    write_run(store, RunRecord("download-new", {}, {}, Pin("", 0, 0), (Size(1, 1, 1),)))
    assert find_run(store, None).id == "download-new"
