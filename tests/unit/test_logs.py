import io
import json
import logging
from collections.abc import Iterator

import pytest

from runner import logs


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before[0], before[1]


def _lines(how: str, **given: object) -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    logs.setup(how, "INFO", stream, **given)
    return logging.getLogger("runner.test"), stream


def test_a_text_line_is_utc_time_level_message_and_keys() -> None:
    log, stream = _lines("text", keys={"shard": 7})
    log.info("task done %s", "x", extra={"task": "12/41"})
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == "info    task done x shard=7 task=12/41\n"


def test_a_json_line_has_severity_time_message_and_keys() -> None:
    log, stream = _lines("json", keys={"run": "r1"})
    log.warning("slow")
    line = json.loads(stream.getvalue())
    assert (line["severity"], line["message"], line["run"]) == ("WARNING", "slow", "r1")
    assert line["time"].endswith("Z")


def test_the_level_decides_what_is_written() -> None:
    log, stream = _lines("text")
    log.debug("hidden")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("how", ["text", "json"])
def test_an_event_is_one_line_without_control_characters_whatever_the_remote_said(how: str) -> None:
    log, stream = _lines(how)
    log.error("answer: %s", "a\nb\x1b]0;title\x07\u202ec\u2028d\ud800")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()


@pytest.mark.parametrize("how", ["text", "json"])
def test_no_line_holds_the_key_not_even_in_a_traceback_or_a_key_of_the_line(how: str) -> None:
    log, stream = _lines(how, secrets=["fake-key-1"], keys={"run": "fake-key-1"})
    try:
        int("refused fake-key-1")
    except ValueError:
        log.exception("key %s", "fake-key-1")
    assert "fake-key-1" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer fake-key-2", "fake-key-2"),
        ("GET /x?a=1&X-Amz-Signature=0f0f0f0f&b=2", "0f0f0f0f"),
        ("key TD.abcdefgh.x", "abcdefgh"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_hidden_without_being_known(text: str, secret: str) -> None:
    assert secret not in logs.redact(text)
    assert logs.HIDDEN in logs.redact(text)


def test_set_up_twice_writes_each_line_once() -> None:
    _lines("text")
    log, stream = _lines("text")
    log.info("once")
    assert stream.getvalue().count("once") == 1
