"""Log lines of CLI and worker: text or JSON, UTC, one line per event, no control characters of others, no secret.

Configures the standard `logging`; nobody else does. Callers write `%`-style lower-case facts and put the keys
`run`, `shard`, `task` in the message, in `extra=`, or once for the process in `setup(keys=...)`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")
HIDDEN = "[hidden]"

_KEYS = ("run", "shard", "task")
# What looks like a credential whatever its value: a Bearer header, a Tardis key, the signature of a signed URL, the
# user and password of any URL.
_SECRET_SHAPES = re.compile(
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|"
    r"(?P<keep>\bBearer\s+|[?&](?:X-Amz-Signature|X-Goog-Signature|Signature)=)[^\s&'\"]+|\bTD\.[\w.\-]{8,}",
    re.IGNORECASE,
)
_SHORTEST_SECRET_CHARS = 4


def escape(text: str) -> str:
    r"""Return text with every control, bidirectional and otherwise invisible character written as an escape.

    >>> escape("ok"), escape("a\x1b[31mb\nc")
    ('ok', 'a\\x1b[31mb\\nc')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """Return text without the secrets given and without what has the shape of one.

    >>> redact("Authorization: Bearer abc, key fake-key-1", ["fake-key-1"])
    'Authorization: Bearer [hidden] key [hidden]'
    >>> redact("no answer from https://me:fake-password@host:8443/v1")
    'no answer from https://[hidden]@host:8443/v1'
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET_CHARS:
            text = text.replace(secret, HIDDEN)
    return _SECRET_SHAPES.sub(lambda match: (match["keep"] or "") + HIDDEN, text)


def setup(
    format: str = "text",  # noqa: A002 the word of the spec: logFormat
    level: str = "INFO",
    stream: TextIO | None = None,
    *,
    secrets: Sequence[str] = (),
    keys: Mapping[str, object] | None = None,
) -> None:
    """Send the log of this process to `stream` (default stderr), replacing any earlier set-up.

    `format` is one of FORMATS, `level` one of LEVELS; `keys` stand in every line; `secrets` in none.
    """
    shape = _Json(secrets, keys or {}) if format == "json" else _Text(secrets, keys or {})
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(shape)
    logging.basicConfig(handlers=[target], level=level.upper(), force=True)
    # Its warnings repeat what the client reports with the task's name.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class _Line(logging.Formatter):
    def __init__(self, secrets: Sequence[str], keys: Mapping[str, object]) -> None:
        super().__init__()
        self._secrets = tuple(secrets)
        self._keys = dict(keys)

    def _facts(self, record: logging.LogRecord) -> dict[str, str]:
        own = {key: getattr(record, key) for key in _KEYS if hasattr(record, key)}
        return {key: self._clean(str(value)) for key, value in {**self._keys, **own}.items()}

    def _clean(self, text: str) -> str:
        return escape(redact(text, self._secrets))

    def _trace(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        return "".join(f"\n  {self._clean(line)}" for line in self.formatException(record.exc_info).splitlines())


class _Text(_Line):
    def format(self, record: logging.LogRecord) -> str:
        keys = "".join(f" {key}={value}" for key, value in self._facts(record).items())
        message = self._clean(record.getMessage())
        return f"{_utc(record)} {record.levelname.lower():<7} {message}{keys}{self._trace(record)}"


class _Json(_Line):
    def format(self, record: logging.LogRecord) -> str:
        message = self._clean(record.getMessage()) + self._trace(record)
        line = {"severity": record.levelname, "time": _utc(record), "message": message, **self._facts(record)}
        return json.dumps(line)


def _utc(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
