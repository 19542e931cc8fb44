"""Writers that are killed or frozen at any step: what the others see, and that they go on."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import google_crc32c
import pytest

from runner.errors import NotFoundError, PreconditionError
from runner.store import ABSENT, Store, open_store
from runner.store.file import FileStore

OLD = b"old" * 100
NEW = "new content "
TIMES = 200_000  # 2.4 MB: several writes


def consistent(store: Store) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return all objects by key after checking that list, head and get tell the same."""
    found = {}
    for info in store.list(""):
        body = store.get(info.key, if_generation=info.generation)
        assert store.head(info.key) == info
        assert (len(body), google_crc32c.value(body)) == (info.size, info.crc32c)
        found[info.key] = (body, dict(info.metadata))
    return found


def count_of(root: Path, folder: str) -> int:
    return sum(path.is_file() for path in (root / ".runner" / folder).rglob("*"))


@pytest.mark.parametrize("deed", ["create", "swap", "delete"])
def test_writer_killed_at_any_step_leaves_the_old_state_or_the_new(tmp_path: Path, writer, deed: str) -> None:
    key = "day-1/type/x.parquet"
    old, new = (OLD, {"state": "old"}), (NEW.encode() * TIMES, {"state": "new"})
    before, after = {"create": (None, new), "swap": (old, new), "delete": (old, None)}[deed]
    seen, step, status = [], 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        step += 1
        root = tmp_path / str(step)
        store = open_store(str(root))
        store.put("neighbour", b"")
        generation = store.put(key, OLD, metadata=old[1]).generation if before else ABSENT
        command = {"key": key, "body": NEW, "times": TIMES, "metadata": new[1], "if_generation": generation}
        answer = writer.do(url=str(root), do="delete" if deed == "delete" else "put", die_at=step, **command)
        status = answer["status"]
        objects = consistent(store)
        assert objects.pop("neighbour") == (b"", {})
        assert objects in ({} if state is None else {key: state} for state in (before, after))
        seen.append(objects.get(key) == after)
        if status == 0:
            assert "error" not in answer
        again = FileStore(root, stale_s=0)
        info = again.head(key)
        again.put(key, b"next", if_generation=info.generation if info else ABSENT)
        assert consistent(again)[key] == (b"next", {})
        assert (count_of(root, "tmp"), count_of(root, "meta")) == (0, 2), f"leftovers of step {step}"
    assert status == 0
    assert step > 8
    assert {True, False} == set(seen)
    assert seen == sorted(seen)  # one step is the commit: before it nothing, from it on everything


def test_of_many_processes_one_wins_each_generation(tmp_path: Path, writers) -> None:
    store = open_store(str(tmp_path))
    first = store.put("n", b"0")
    crew = [writers() for _ in range(4)]
    for writer in crew:
        writer.start(url=str(tmp_path), do="count_up", key="n", times=12)
    swaps = []
    for writer in crew:
        while "status" not in (answer := writer.answer()):
            if "value" in answer:
                swaps.append(answer)
        assert answer["status"] == 0
    assert store.get("n") == b"48"
    assert sorted(swap["value"] for swap in swaps) == list(range(1, 49))
    assert len({swap["before"] for swap in swaps}) == 48
    assert {swap["before"] for swap in swaps} == {first.generation} | {swap["after"] for swap in swaps} - {
        store.head("n").generation
    }


def test_of_many_processes_one_creates(tmp_path: Path, writers) -> None:
    store = open_store(str(tmp_path))
    crew = [writers() for _ in range(4)]
    for turn in range(5):
        for index, writer in enumerate(crew):
            writer.start(url=str(tmp_path), do="put", key=f"d/{turn}", body=str(index) * 1000)
        answers = [writer.end() for writer in crew]
        winners = [index for index, answer in enumerate(answers) if "generation" in answer]
        assert len(winners) == 1
        assert store.get(f"d/{turn}") == str(winners[0]).encode() * 1000
        assert {answer["error"] for answer in answers if "error" in answer} == {"PreconditionError"}


# Each list ends at the call before which the holder freezes; the lock is the second flock, after that of its scratch.
HOLDER_FROZEN_AT = {
    "before its commit": (["flock", "flock", "replace"], True),
    "after it": (["replace", "fsync"], False),
}


@pytest.mark.parametrize("case", HOLDER_FROZEN_AT)
def test_lock_of_a_killed_holder_is_free_and_one_wins(tmp_path: Path, writers, case: str) -> None:
    freeze_at, other_wins = HOLDER_FROZEN_AT[case]
    store = open_store(str(tmp_path))
    first = store.put("a", b"old")
    holder, other = writers(), writers()
    holder.start(
        url=str(tmp_path), do="put", key="a", body="holder", if_generation=first.generation, freeze_at=freeze_at
    )
    holder.until("frozen")
    if other_wins:
        other.start(url=str(tmp_path), do="put", key="a", body="other", if_generation=first.generation)
    else:
        generation = store.head("a").generation
        other.start(url=str(tmp_path), do="put", key="a", body="third", if_generation=generation)
    other.until("waiting")
    assert store.get("a") == (b"old" if other_wins else b"holder")  # readers need no lock
    holder.kill()
    assert holder.end()["status"] == -signal.SIGKILL
    assert "generation" in other.end()
    assert store.get("a") == (b"other" if other_wins else b"third")


def test_frozen_writer_that_wakes_late_is_refused(tmp_path: Path, writer) -> None:
    store = open_store(str(tmp_path))
    for key, freeze_at, generation in (
        ("created", ["link", "link"], ABSENT),
        ("swapped", ["flock", "flock"], store.put("swapped", b"0").generation),
    ):
        writer.start(url=str(tmp_path), do="put", key=key, body="late", if_generation=generation, freeze_at=freeze_at)
        writer.until("frozen")
        twin = store.put(key, b"twin", if_generation=generation, metadata={"by": "twin"})
        writer.kill(signal.SIGCONT)
        assert writer.end()["error"] == "PreconditionError"
        assert store.head(key) == twin
        assert consistent(store)[key] == (b"twin", {"by": "twin"})
    assert (count_of(tmp_path, "tmp"), count_of(tmp_path, "meta")) == (0, 2)


@pytest.mark.parametrize("deed", ["swap", "delete"])
def test_reader_overtaken_between_file_and_sidecar_sees_the_new_state(tmp_path: Path, writer, deed: str) -> None:
    store = open_store(str(tmp_path))
    first = store.put("a", b"old", metadata={"state": "old"})
    writer.start(url=str(tmp_path), do="head", key="a", freeze_at=["read"])
    writer.until("frozen")
    if deed == "swap":
        made = store.put("a", b"new", if_generation=first.generation, metadata={"state": "new"})
        expected = [made.generation, made.crc32c, {"state": "new"}]
    else:
        store.delete("a")
        expected = None
    writer.kill(signal.SIGCONT)
    assert writer.end()["facts"] == expected


def test_swap_waits_for_a_delete_and_is_refused(tmp_path: Path, writers) -> None:
    store = open_store(str(tmp_path))
    first = store.put("a", b"old")
    deleter, swapper = writers(), writers()
    generation = {"key": "a", "if_generation": first.generation}
    deleter.start(url=str(tmp_path), do="delete", freeze_at=["flock", "unlink"], **generation)
    deleter.until("frozen")
    swapper.start(url=str(tmp_path), do="put", body="new", **generation)
    swapper.until("waiting")
    deleter.kill(signal.SIGCONT)
    assert deleter.end()["deleted"]
    assert swapper.end()["error"] == "PreconditionError"
    assert (store.head("a"), count_of(tmp_path, "meta")) == (None, 0)


def test_delete_waits_for_a_swap_and_is_refused(tmp_path: Path, writers) -> None:
    store = open_store(str(tmp_path))
    first = store.put("a", b"old")
    deleter, swapper = writers(), writers()
    generation = {"key": "a", "if_generation": first.generation}
    swapper.start(url=str(tmp_path), do="put", body="new", freeze_at=["replace"], **generation)
    swapper.until("frozen")
    deleter.start(url=str(tmp_path), do="delete", **generation)
    deleter.until("waiting")
    swapper.kill(signal.SIGCONT)
    assert "generation" in swapper.end()
    assert deleter.end()["error"] == "PreconditionError"
    assert store.get("a") == b"new"


def test_creator_whose_folder_is_pruned_makes_it_again(tmp_path: Path, writer) -> None:
    store = open_store(str(tmp_path))
    store.put("d/e/neighbour", b"")
    writer.start(url=str(tmp_path), do="put", key="d/e/a", body="x", freeze_at=["link", "link"])
    writer.until("frozen")
    store.delete("d/e/neighbour")
    assert not (tmp_path / "d").exists()
    writer.kill(signal.SIGCONT)
    assert "generation" in writer.end()
    assert store.get("d/e/a") == b"x"


def test_sweep_spares_the_living_however_slow(tmp_path: Path, writer) -> None:
    store = open_store(str(tmp_path))
    writer.start(url=str(tmp_path), do="put", key="slow", body="x", metadata={"a": "b"}, freeze_at=["link", "link"])
    writer.until("frozen")
    FileStore(tmp_path, stale_s=0).put("other", b"")  # the first write of a handle sweeps
    assert count_of(tmp_path, "tmp") == 2
    writer.kill(signal.SIGCONT)
    assert "generation" in writer.end()
    assert consistent(store)["slow"] == (b"x", {"a": "b"})


def test_poller_never_sees_anything_partial_while_writers_are_killed(tmp_path: Path, writers) -> None:
    random = Random(7)
    store = open_store(str(tmp_path))
    crew = [writers() for _ in range(2)]
    for seed, writer in enumerate(crew):
        writer.start(url=str(tmp_path), do="churn", seed=seed)
    kills = polls = 0
    while kills < 30:
        for index, writer in enumerate(crew):
            for _ in range(random.randrange(1, 4)):
                writer.until("step")
            if random.random() < 0.6:
                polls += poll(store)
            writer.kill()
            assert writer.end()["status"] == -signal.SIGKILL
            kills += 1
            polls += poll(store)
            writer.start(url=str(tmp_path), do="churn", seed=100 * kills + index)
    assert polls > 30
    for writer in crew:
        writer.until("step")
        writer.kill()
        writer.end()
    for key in [f"d{d}/k{k}" for d in range(2) for k in range(3)]:
        info = store.head(key)
        store.put(key, b"end", if_generation=info.generation if info else ABSENT)
    assert [body for body, _ in consistent(store).values()] == [b"end"] * 6


def poll(store: Store) -> int:
    """Check every object that can be caught at one generation; return how many."""
    caught = 0
    for info in store.list(""):
        assert int(info.metadata["crc"]) == info.crc32c
        assert int(info.metadata["size"]) == info.size
        now = store.head(info.key)
        assert now is None or int(now.metadata["crc"]) == now.crc32c
        try:
            body = store.get(info.key, if_generation=info.generation)
        except (NotFoundError, PreconditionError):
            continue
        assert google_crc32c.value(body) == info.crc32c
        caught += 1
    return caught
