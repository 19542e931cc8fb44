"""Exactly once: what a commit makes of whatever is there already."""

import os
import threading
from pathlib import Path

import pytest

from runner.errors import ConflictError, PreconditionError, TransientError
from runner.stages.commit import Mode, commit, same
from runner.store import ABSENT, open_store
from runner.store.memory import MemoryStore

KEY = "raw_tick_data/by_date/day-2024-08-08/data_type-trades/BINANCE:SPOT_PAIR:BTC-USDT.parquet"
OURS = {"outcome": "done", "inputs": "i1", "schema": "1", "rows": "2", "digest": "d1", "source_md5": "m1"}
OTHER = OURS | {"digest": "d2", "rows": "3", "source_md5": "m2"}


class LostAnswers(MemoryStore):
    """Every put is done and then reported as refused, as when the answer is lost and the client tries again."""

    def put(self, key, body, *, if_generation=ABSENT, metadata=None):
        super().put(key, body, if_generation=if_generation, metadata=metadata)
        raise PreconditionError(f"{key} is at another generation")


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    return MemoryStore("memory://commits") if request.param == "memory" else open_store(f"file://{tmp_path}/store")


@pytest.mark.parametrize("mode", Mode)
def test_what_is_absent_is_created(store, mode: Mode) -> None:
    done = commit(store, KEY, b"body", OURS, mode=mode)
    assert done.written
    assert store.get(KEY) == b"body"
    assert store.head(KEY) == done.info
    assert dict(done.info.metadata) == OURS


def test_a_file_is_committed_like_bytes(store, tmp_path: Path) -> None:
    path = tmp_path / "ticks.parquet"
    path.write_bytes(b"body")
    assert commit(store, KEY, path, OURS, mode=Mode.KEEP).written
    assert store.get(KEY) == b"body"
    assert path.exists()


@pytest.mark.parametrize("mode", Mode)
def test_an_equal_twin_is_success_and_the_first_object_stays(store, mode: Mode) -> None:
    first = commit(store, KEY, b"compressed one way", OURS, mode=mode)
    second = commit(store, KEY, b"compressed another way", OURS | {"source_md5": "m2"}, mode=mode)
    assert not second.written
    assert second.info == first.info
    assert store.get(KEY) == b"compressed one way"


@pytest.mark.parametrize("mode", Mode)
def test_a_lost_answer_is_success(mode: Mode) -> None:
    store = LostAnswers("memory://lost")
    done = commit(store, KEY, b"body", OURS, mode=mode)
    assert not done.written  # nobody can tell: it is not counted twice
    assert store.get(KEY) == b"body"


def test_another_content_is_kept_and_the_conflict_tells_both(store) -> None:
    first = commit(store, KEY, b"theirs", OTHER, mode=Mode.KEEP).info
    with pytest.raises(ConflictError) as conflict:
        commit(store, KEY, b"ours", OURS, mode=Mode.KEEP)
    assert store.head(KEY) == first
    assert store.get(KEY) == b"theirs"
    for word in (KEY, "digest d2 there, d1 now", "rows 3 there, 2 now", "--select all"):
        assert word in str(conflict.value)
    assert "schema" not in str(conflict.value)


@pytest.mark.parametrize("field", ["outcome", "inputs", "schema", "rows", "digest"])
def test_each_fact_of_the_content_makes_a_conflict(store, field: str) -> None:
    commit(store, KEY, b"theirs", OURS | {field: "x"}, mode=Mode.KEEP)
    with pytest.raises(ConflictError, match=f"{field} x there"):
        commit(store, KEY, b"ours", OURS, mode=Mode.KEEP)


def test_an_object_of_somebody_else_is_a_conflict(store) -> None:
    store.put(KEY, b"copied here by hand")
    with pytest.raises(ConflictError, match="digest None there"):
        commit(store, KEY, b"ours", OURS, mode=Mode.KEEP)
    assert store.get(KEY) == b"copied here by hand"


def test_replacing_swaps_only_what_differs(store) -> None:
    old = commit(store, KEY, b"old", OTHER, mode=Mode.KEEP).info
    new = commit(store, KEY, b"new", OURS, mode=Mode.REPLACE)
    assert new.written
    assert new.info.generation != old.generation
    assert store.get(KEY) == b"new"
    again = commit(store, KEY, b"new, packed otherwise", OURS, mode=Mode.REPLACE)
    assert not again.written
    assert store.head(KEY) == new.info


def test_bytes_that_rotted_are_replaced_though_their_facts_are_ours(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    commit(store, KEY, b"body", OURS, mode=Mode.KEEP)
    path = tmp_path / "store" / KEY
    status = path.stat()
    path.write_bytes(b"bodY")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert dict(store.head(KEY).metadata) == OURS
    assert commit(store, KEY, b"body", OURS, mode=Mode.REPLACE).written
    assert store.get(KEY) == b"body"


def test_what_is_not_sealed_never_replaces_what_is(store) -> None:
    sealed = OTHER | {"sealed": "true"}
    first = commit(store, KEY, b"sealed", sealed, mode=Mode.KEEP).info
    for mode in Mode:
        done = commit(store, KEY, b"unsealed", OURS | {"sealed": "false"}, mode=mode)
        assert (done.written, done.info) == (False, first)
    assert store.get(KEY) == b"sealed"


@pytest.mark.parametrize("mode", Mode)
def test_an_older_schema_never_replaces_a_newer_one(store, mode) -> None:
    newer = commit(store, KEY, b"newer", OTHER | {"schema": "10"}, mode=Mode.KEEP).info
    done = commit(store, KEY, b"older", OURS | {"schema": "9"}, mode=mode)
    assert (done.written, done.info.generation) == (False, newer.generation)


def test_a_sealed_object_replaces_an_unsealed_one(store) -> None:
    commit(store, KEY, b"unsealed", OTHER | {"sealed": "false"}, mode=Mode.KEEP)
    assert commit(store, KEY, b"sealed", OURS | {"sealed": "true"}, mode=Mode.REPLACE).written
    assert store.get(KEY) == b"sealed"


def test_an_object_deleted_between_refusal_and_look_is_created_anew() -> None:
    class Vanishing(MemoryStore):
        def head(self, key):
            self.delete(key)

    store = Vanishing("memory://vanishing")
    MemoryStore.put(store, KEY, b"there a moment ago", metadata=OTHER)
    assert commit(store, KEY, b"ours", OURS, mode=Mode.KEEP).written
    assert store.get(KEY) == b"ours"


def test_an_object_that_never_stands_still_is_given_up() -> None:
    class Restless(MemoryStore):
        def head(self, key):
            live = super().head(key)
            super().put(key, b"again", if_generation=live.generation, metadata=OTHER)
            return live

    store = Restless("memory://restless")
    MemoryStore.put(store, KEY, b"first", metadata=OTHER)
    with pytest.raises(TransientError, match="changed 5 times"):
        commit(store, KEY, b"ours", OURS, mode=Mode.REPLACE)


def test_an_error_of_the_store_is_no_conflict() -> None:
    class Broken(MemoryStore):
        def put(self, *_, **__):
            raise TransientError("the disk is gone")

    with pytest.raises(TransientError, match="the disk is gone"):
        commit(Broken("memory://broken"), KEY, b"ours", OURS, mode=Mode.KEEP)


@pytest.mark.parametrize("mode", Mode)
def test_of_many_equal_writers_one_writes_and_all_succeed(store, mode: Mode) -> None:
    ready = threading.Barrier(6)
    done = []

    def write(number: int) -> None:
        ready.wait()
        done.append(commit(store, KEY, b"body %d" % number, OURS, mode=mode))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sum(each.written for each in done) == 1
    assert len({each.info.generation for each in done}) == 1


def test_facts_beside_the_content_do_not_tell_objects_apart() -> None:
    assert same(OURS, OURS | {"source_md5": "x", "min_ts": "1", "sealed": "true"})
    assert not same(OURS, {})
