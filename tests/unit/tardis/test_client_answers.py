"""What refusals mean, from their bytes alone."""

from __future__ import annotations

import json

import pytest

from runner.errors import ConfigError, SourceError, TransientError
from runner.tardis.answers import Answer, GoneError, RefusedError, ToldToWait, raise_for, read_answer


def told(**fields):
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (told(code=140, message="not available"), 140, "not available"),
        (told(code="140", message="x"), -1, "x"),
        (told(error="x"), -1, ""),
        ("", None, ""),
        ("[1]", None, "[1]"),
        ("[" * 100_000, None, "[" * 100),
        ("<html>\n  <b>no\x1b[31m\x07</b>", None, "<html> <b>no [31m </b>"),
        ("x" * 5000, None, "x" * 100),
        (told(code=1, message="y" * 5000), 1, "y" * 300),
    ],
)
def test_an_answer_is_one_short_printable_line(body, code, message):
    assert read_answer(400, {}, body) == Answer(400, code, message)


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"Retry-After": "120"}, "", 120.0),
        ({"Retry-After": " 120 "}, "", 120.0),
        ({}, told(code=274, retryAfterSeconds=893), 893.0),
        ({}, told(code=274, retryAfterSeconds="893"), 893.0),
        ({"Retry-After": "5"}, told(code=274, retryAfterSeconds=893), 893.0),
        ({"Retry-After": "5"}, told(code=274, retryAfterSeconds=None), 5.0),
        ({"Retry-After": "1e9"}, "", 86_400.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 30.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:31 GMT"}, "", None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, "", None),
        ({"Retry-After": "tomorrow"}, "", None),
        ({"Retry-After": "-1"}, "", None),
        ({"Retry-After": "nan"}, "", None),
        ({}, told(retryAfterSeconds=[1]), None),
    ],
)
def test_the_wait_is_read_in_every_form(headers, body, wait_s):
    assert read_answer(429, headers, body).wait_s == wait_s


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(400, 100, "x"), ConfigError),
        (Answer(400, 7, "x"), SourceError),
        (Answer(400, -1, "x"), SourceError),
        (Answer(400, None, "<html>"), TransientError),
        (Answer(400, 7, "must be in ISO 8601 format"), TransientError),
        (Answer(401, 1, "x"), RefusedError),
        (Answer(401, None, "x"), RefusedError),
        (Answer(403, 12, "x"), RefusedError),
        (Answer(403, None, "<html>"), TransientError),
        (Answer(403, 274, "x"), ToldToWait),
        (Answer(403, 274, "x", 5.0), ToldToWait),
        (Answer(429, None, "x", 5.0), ToldToWait),
        (Answer(503, None, "x", 5.0), ToldToWait),
        (Answer(429, None, "x"), TransientError),
        (Answer(503, None, "x"), TransientError),
        (Answer(500, None, "x", 5.0), TransientError),
        (Answer(404, 404, "x"), GoneError),
    ],
    ids=str,
)
def test_every_answer_has_one_meaning(answer, error):
    with pytest.raises(error) as caught:
        raise_for(answer, lock_wait_s=60)
    assert type(caught.value) is error


def test_a_lock_that_does_not_say_how_long_is_waited_for_a_while():
    with pytest.raises(ToldToWait) as caught:
        raise_for(Answer(403, 274, "active elsewhere"), lock_wait_s=60)
    assert (caught.value.wait_s, caught.value.locked) == (60, True)
