"""What to do next, as a command that works when it is pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from runner.cli.given import CLUSTER, SELECTION, SOURCE, Given
from runner.errors import Exit
from runner.run_record import RunRecord
from runner.runs import RunState, RunStatus
from runner.spec import Backend, RunSpec
from runner.spec.resolve import flag_of, place_words
from runner.task import Stage

# What leads a command to a run, by what each takes.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "submit": ("store", *SOURCE),
    "retry": ("store", *SOURCE, *CLUSTER),
    "validate": ("store", *SOURCE),
    "pipeline": ("store", *SOURCE, *CLUSTER),
}
_ELSE = ("store", *CLUSTER)


def next_step(record: RunRecord, status: RunStatus, code: Exit, given: Given) -> str | None:
    """Return the command that takes a run further, or None when there is nothing to do.

    `given` is how the present command was told where store and source are: the next one is told the same way.
    """
    if status.state is RunState.RUNNING:
        return _command("status", status.id, "--watch", *places(given, "status"))
    if record.request["stage"] == Stage.PIPELINE:
        return None if code is Exit.DONE else next_pass(record, given)
    if status.state in (RunState.STOPPED, RunState.CANCELLED):
        return _go_on(record, status, given)
    if code is Exit.NOT_ALLOWED:
        return "correct the key in TARDIS_API_KEY or TARDIS_API_KEY_FILE, then submit again"
    if code is Exit.DONE or record.request["stage"] == Stage.VALIDATE:
        return _look(record, code, given)
    return _command("retry", status.id, *places(given, "retry"))


def next_pass(record: RunRecord, given: Given) -> str:
    """Return the command that goes on with a pipeline's day, or begins its next pass."""
    open_gate = ["--allow-incomplete"] if record.request.get("allowIncomplete") else []
    where = (*places(given, "pipeline"), *_backend(record, given, anew=True))
    return _command("pipeline", "--day", record.request["days"][0], *open_gate, *_selected(record.request), *where)


def _go_on(record: RunRecord, status: RunStatus, given: Given) -> str:
    if status.state is RunState.CANCELLED and record.spec.get("backend") == Backend.KUBERNETES:
        # A new run of what is left, with the values that the cancelled one had.
        return _command("retry", status.id, *places(given, "retry"))
    words = (*selection(record.request), *places(given, "submit"), *_backend(record, given))
    return _command("submit", record.request["stage"], *words)


def _look(record: RunRecord, code: Exit, given: Given) -> str | None:
    stage = record.request["stage"]
    if stage == Stage.INSTRUMENTS:
        return _command("instruments", "list", *pasted(given, ("store",)))
    if stage == Stage.VALIDATE and code is Exit.DONE:
        return None
    return _command("validate", *_what(record.request), *places(given, "validate"))


def selection(request: Mapping[str, Any]) -> list[str]:
    """Return the options that make this request again, those that stand at their defaults left out."""
    words = _what(request)
    if request["select"] != RunSpec().select:
        words += ["--select", str(request["select"])]
    if request["parent"]:
        words += ["--parent", str(request["parent"])]
    return words


def places(given: Given, command: str) -> list[str]:
    """Return the options by which a command line named its run file, store, source and cluster, for another command."""
    words = ["--file", str(given.file)] if given.file else []
    words += ["--kubeconfig", given.kubeconfig] if given.kubeconfig and command != "validate" else []
    return [*words, *pasted(given, _PLACES.get(command, _ELSE))]


def leading(given: Given) -> Callable[[str], str]:
    """Return what tells, by a command's name, the options that lead it where the present command was led."""
    return lambda command: shlex.join(places(given, command))


def pasted(given: Given, keys: Iterable[str]) -> list[str]:
    """Return the options of these keys that a command line gave."""
    return [word for key in keys if (value := given.flags.get(key)) is not None for word in (flag_of(key), str(value))]


def _backend(record: RunRecord, given: Given, *, anew: bool = False) -> list[str]:
    """Return the options that take a request to the cluster that its last run was on."""
    return place_words(record.spec, anew=anew) or pasted(given, ("backend",))


def _what(request: Mapping[str, Any]) -> list[str]:
    return ["--start-date", request["days"][0], "--end-date", request["days"][-1], *_selected(request)]


def _selected(request: Mapping[str, Any]) -> list[str]:
    default = RunSpec().model_dump(mode="json", by_alias=True)
    words: list[str] = []
    for key in SELECTION[2:]:
        value = request[key]
        if isinstance(value, list):
            same, text = sorted(value) == sorted(default[key]), ",".join(value)
        else:
            same, text = value == default[key], str(value)
        if not same:
            words += [flag_of(key), text]
    return words


def _command(*words: str) -> str:
    return f"runner {shlex.join(words)}"
