"""What the user gave on a command line: the options of a request, one table for all commands that take one."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.backends.kubernetes.values import requests
from runner.cli.output import say
from runner.errors import SpecError
from runner.spec import Resolved, RunSpec, resolve, tardis_key
from runner.spec.resolve import aliases, flag_of


@dataclass(frozen=True, slots=True)
class _Option:
    metavar: str
    help: str
    short: str = ""


# By key of the spec. Seconds, attempts and the like are settled in files or the environment, not typed every day.
OPTIONS: Mapping[str, _Option] = {
    "startDate": _Option("DATE", "First UTC day, YYYY-MM-DD. Default: the newest exported one."),
    "endDate": _Option("DATE", "Last UTC day, inclusive. Default: the first one."),
    "venues": _Option("LIST", "Venues, ours or Tardis's names, by comma or space."),
    "instrumentTypes": _Option("LIST", "SPOT_PAIR, PERPETUAL, FUTURE, OPTION. Default: all."),
    "instruments": _Option("LIST", "Keys (globs allowed) or Tardis symbols. Default: all."),
    "dataTypes": _Option("LIST", "Data types, as Tardis names them."),
    "maxInstruments": _Option("N", "Only the first N instruments of each venue and day."),
    "select": _Option("WHICH", "missing, failed or all."),
    "parent": _Option("RUN", "The run whose failed tasks are taken."),
    "store": _Option("URL", "Where objects live: file:///dir, gs://bucket/prefix."),
    "shards": _Option("N", "How many shards the plan has."),
    "parallelism": _Option("N", "How many shards are worked on at once."),
    "backend": _Option("NAME", "Who runs the shards: local or kubernetes."),
    "namespace": _Option("NAME", "The cluster's namespace. Default: the context's.", "-n"),
    "context": _Option("NAME", "The kubeconfig's context. Default: the current one."),
    "image": _Option("IMAGE", "What a cluster's pods run."),
    "tardis.url": _Option("URL", "Where day files come from."),
    "tardis.apiUrl": _Option("URL", "Where the catalogue comes from."),
    "logFormat": _Option("FORMAT", "text or json."),
    "logLevel": _Option("LEVEL", "DEBUG, INFO, WARNING or ERROR."),
}
WHERE = ("store", "logLevel")
SELECTION = ("startDate", "endDate", "venues", "instrumentTypes", "instruments", "dataTypes", "maxInstruments")
SOURCE = ("tardis.url", "tardis.apiUrl")
CLUSTER = ("namespace", "context")
RUN = ("select", "parent", "shards", "parallelism", "backend", *CLUSTER, "image", "logFormat")


@dataclass(frozen=True, slots=True)
class Given:
    """What a command line says of a request, before files and environment are asked."""

    flags: Mapping[str, object] = field(default_factory=dict)
    file: Path | None = None
    kubeconfig: str | None = None
    layers: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def also(self, **flags: object) -> Given:
        """Return this with further values, given by a command rather than by an option of the table."""
        return replace(self, flags={**self.flags, **flags})

    def over(self, files: Sequence[Path] | None) -> Given:
        """Return this with what files of values say of the run itself. Raises SpecError."""
        return replace(self, layers=requests(files or ()))

    def under(self, name: str, spec: Mapping[str, Any]) -> Given:
        """Return this with a spec under all that files and options say, and over the environment."""
        return replace(self, layers=((name, spec), *self.layers))

    def resolve(self, *, need_store: bool = True) -> Resolved:
        """Return the resolved spec. Raises SpecError."""
        return resolve(self.flags, self.file, env=os.environ, cwd=Path.cwd(), need_store=need_store, layers=self.layers)

    def spec(self) -> RunSpec:
        """Return the resolved spec alone. Raises SpecError."""
        return self.resolve().spec


def key() -> str | None:
    """Return the Tardis key of the environment, if there is one. Raises SpecError when it cannot be read."""
    return tardis_key(os.environ)


def selection(select: object, *, force: bool) -> str | None:
    """Return the selection that --select and --force mean together. Raises SpecError when they contradict."""
    if force and select not in (None, "all"):
        raise SpecError(f"flag --force means --select all, but --select {select} is given too; give one of them")
    if force:
        say("--force (--force-download) is now: --select all")
    return "all" if force else select if isinstance(select, str) else None


def takes(*keys: str, short_file: bool = True) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the options of these spec keys and --file; its parameter `given` then holds what was said.

    `short_file` tells whether -f is --file, rather than something of the command's own.
    """

    def decorate(body: Callable[..., int]) -> Callable[..., int]:
        own = [p for p in inspect.signature(body, eval_str=True).parameters.values() if p.name != "given"]
        old = {flag: key for flag, key in aliases()["flags"].items() if key in keys}
        options = [
            *(_option(flag_of(key), key) for key in keys),
            *(_option(flag, old[flag], hidden=True) for flag in old),
        ]
        names = {**{_name(flag_of(key)): key for key in keys}, **{_name(flag): key for flag, key in old.items()}}

        # The one place with open keyword arguments: typer calls by names that come from the table above.
        @functools.wraps(body)
        def command(**said: Any) -> int:
            flags: dict[str, object] = {}
            used = [flag for flag in old if said.get(_name(flag)) is not None]
            for name, key in names.items():
                flags[key] = _once(key, flags.get(key), said.pop(name))
            for flag in used:
                say(f"{flag} is now: {flag_of(old[flag])}")
            return body(given=Given(flags, said.pop("run_file"), said.pop("kubeconfig", None)), **said)

        file = _file("-f") if short_file else _file()
        last = [_KUBECONFIG, file] if "context" in keys else [file]
        command.__signature__ = inspect.Signature([*own, *options, *last])  # type: ignore[attr-defined] # PEP 362
        command.__annotations__ = {}
        return command

    return decorate


def _once(key: str, value: object, other: object) -> object:
    if value is not None and other is not None:
        raise SpecError(f"flag {flag_of(key)}: is given twice, under its old name too; give one of them")
    return other if value is None else value


def _name(flag: str) -> str:
    return flag.strip("-").replace("-", "_")


def _option(flag: str, key: str, *, hidden: bool = False) -> inspect.Parameter:
    text = OPTIONS[key]
    flags = (flag, text.short) if text.short else (flag,)
    option = typer.Option(*flags, metavar=text.metavar, help=text.help, show_default=False, hidden=hidden)
    kind = Annotated[str | None, option]
    return inspect.Parameter(_name(flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


_KUBECONFIG = inspect.Parameter(
    "kubeconfig",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, as kubectl's.", show_default=False),
    ],
)


def _file(*short: str) -> inspect.Parameter:
    option = typer.Option("--file", *short, metavar="FILE", help="A run file (YAML).", show_default=False)
    kind = Annotated[Path | None, option]
    return inspect.Parameter("run_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
