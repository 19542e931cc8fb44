"""No task is handed out before a durable word names it."""

import threading
from datetime import date

import pytest

from runner.errors import TransientError
from runner.task import Stage, Task
from runner.worker.feed import Feed


def tasks(count: int) -> list[Task]:
    return [Task(Stage.DOWNLOAD, date(2024, 8, 8), f"K{n:03}", ("trades",)) for n in range(count)]


class Words:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []

    def __call__(self, names: tuple[str, ...]) -> None:
        self.said.append(names)


def test_every_task_comes_once_in_order_and_named_before() -> None:
    words, work = Words(), tasks(200)
    feed = Feed(work, words, least=1)
    taken = []
    while (task := feed.take()) is not None:
        assert any(task.id in names for names in words.said)
        taken.append(task)
        feed.ended(task)
    assert taken == work
    assert feed.take() is None
    assert feed.begun == ()


def test_a_word_names_what_is_begun_as_well_as_what_comes() -> None:
    words, work = Words(), tasks(6)
    feed = Feed(work, words, least=2)
    first, _, third = feed.take(), feed.take(), feed.take()
    assert words.said[1][:2] == (first.id, work[1].id)
    assert third.id in words.said[1]
    feed.ended(first)
    feed.announce()
    assert first.id not in words.said[-1]
    assert words.said[-1] == tuple(task.id for task in work[1:])
    assert feed.begun == (work[1].id, third.id)


def test_batches_grow_while_tasks_go_by_quickly_up_to_the_most() -> None:
    words = Words()
    feed = Feed(tasks(100), words, least=2, most=16)
    while (task := feed.take()) is not None:
        feed.ended(task)
    assert [len(names) for names in words.said] == [2, 4, 8, 16, 16, 16, 16, 16, 6]


def test_suspects_are_named_one_at_a_time() -> None:
    words = Words()
    feed = Feed(tasks(5), words, least=1, most=1)
    while (task := feed.take()) is not None:
        feed.ended(task)
    assert [len(names) for names in words.said] == [1] * 5


def test_nobody_gets_a_task_while_the_word_is_on_its_way() -> None:
    durable, asked = threading.Event(), threading.Event()

    def announce(_names: tuple[str, ...]) -> None:
        asked.set()
        assert durable.wait(60)

    feed = Feed(tasks(4), announce, least=4)
    taken: list[Task | None] = []
    takers = [threading.Thread(target=lambda: taken.append(feed.take())) for _ in range(3)]
    for taker in takers:
        taker.start()
    assert asked.wait(60)
    takers[0].join(0.05)
    assert taken == []
    durable.set()
    for taker in takers:
        taker.join(60)
    assert sorted(task.key for task in taken if task) == ["K000", "K001", "K002"]


def test_a_word_that_cannot_be_written_gives_no_task() -> None:
    def announce(_names: tuple[str, ...]) -> None:
        raise TransientError("the store is gone")

    feed = Feed(tasks(3), announce, least=3)
    with pytest.raises(TransientError):
        feed.take()
    assert feed.begun == ()


def test_many_threads_take_each_task_once() -> None:
    feed = Feed(tasks(500), lambda _: None, least=1)
    taken: list[Task] = []

    def work() -> None:
        while (task := feed.take()) is not None:
            taken.append(task)
            feed.ended(task)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task.key for task in taken) == [f"K{n:03}" for n in range(500)]


def test_a_feed_without_tasks_says_nothing() -> None:
    words = Words()
    assert Feed((), words, least=4).take() is None
    assert words.said == []
