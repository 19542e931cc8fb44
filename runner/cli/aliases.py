"""Old command lines: the earlier names of commands become those of today, and each is told its new name once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from runner.errors import SpecError
from runner.task import WORKER_STAGES

_TAKE_A_STAGE = ("submit", "plan", "render")
_HELP = ("-h", "--help")


def modern(words: Sequence[str], commands: Mapping[str, object]) -> list[str]:
    """Return a command line in today's words; whatever is old in its first words is told on stderr.

    Raises SpecError for what is to come in a later version.
    """
    first, rest = words[0], list(words[1:])
    if first in _TAKE_A_STAGE and rest and rest[0] in _stages():
        new = [first, _stages()[rest.pop(0)]]
        return [*_told(f"{first} {words[1]}", new, commands), *rest]
    # Once a command without subcommands, now a group.
    if first == "instruments" and rest and rest[0].startswith("-") and rest[0] not in _HELP:
        return [*_told(first, ["submit", first], commands), *rest]
    if first in commands or first.startswith("-") or first not in _commands():
        return list(words)
    told = _told(first, _commands()[first], commands)
    for word in rest:
        _refuse_later(word.partition("=")[0], commands)
    return [*told, *rest]


def _refuse_later(flag: str, commands: Mapping[str, object]) -> None:
    later = _aliases()["later"].get(flag)
    if later is not None and not _exists(later, commands):
        name = f"runner {' '.join(later)}"
        raise SpecError(
            f"{flag}: is now a run of its own, `{name}`, which this version does not have yet; leave it out"
        )


def nearest(commands: Mapping[str, object]) -> Mapping[str, str]:
    """Return every word that may begin a command line, stages and old names too, with what to type for it."""
    old = {name: " ".join(new) for name, new in _commands().items() if _exists(new, commands)}
    return {**old, **{stage: f"submit {stage}" for stage in WORKER_STAGES}, **{name: name for name in commands}}


def _told(old: str, new: Sequence[str], commands: Mapping[str, object]) -> Sequence[str]:
    name = f"runner {' '.join(new)}"
    if not _exists(new, commands):
        raise SpecError(f"{old}: is now `{name}`, and this version does not have that yet; see `runner --help`")
    # Not cli.output, which brings what `runner --help` must not wait for.
    typer.echo(f"{old} is now: {name}", err=True)
    return new


def _exists(new: Sequence[str], commands: Mapping[str, object]) -> bool:
    return new[0] in commands and (new[0] not in _TAKE_A_STAGE or new[1] in WORKER_STAGES)


def _commands() -> Mapping[str, Sequence[str]]:
    found: Mapping[str, Sequence[str]] = _aliases()["commands"]
    return found


def _stages() -> Mapping[str, str]:
    found: Mapping[str, str] = _aliases()["stages"]
    return found


def _aliases() -> Mapping[str, Any]:
    # Imported here, because it brings pydantic, for which `runner --help` must not wait.
    from runner.spec.resolve import aliases  # noqa: PLC0415 see above

    return aliases()
