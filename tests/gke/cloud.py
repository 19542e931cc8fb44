"""A stand-in for gcloud and bq (PROGRAM): it knows the real flags of the commands it takes, refuses all others, and
keeps what they make in a file. What does not exist cannot be used, and what is used cannot be deleted.

CLOUD names its folder: `state.json`, `calls` (a line for each call) and, to spoil things, `answers.json` and
`faults.json`: what a call with a text in it fails with (`["text", "message", after]`; `after`: it takes effect first).
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

FLAGS = json.loads((Path(__file__).parents[1] / "data" / "gcloud" / "commands.json").read_text(encoding="utf-8"))
PROGRAM = os.environ.get("PROGRAM", "")
FOLDER = Path(os.environ.get("CLOUD", "."))
Flags = dict[str, list[str]]
# Flags whose value is the name of another thing.
USES = {
    "--network": "compute networks",
    "--subnetwork": "compute networks subnets",
    "--router": "compute routers",
    "--nat-external-ip-pool": "compute addresses",
    "--cluster": "container clusters",
    "--service-account": "iam service-accounts",
}
NEEDED = {
    "compute networks subnets": ("--network", "--region", "--range"),
    "compute routers": ("--network", "--region"),
    "compute routers nats": ("--router", "--region"),
    "compute addresses": ("--region",),
    "container clusters": ("--region",),
    "container node-pools": ("--cluster", "--region"),
    "artifacts repositories": ("--location", "--repository-format"),
    "billing budgets": ("--billing-account", "--display-name", "--budget-amount"),
}
ANSWERS = {
    "value(projectNumber)": "123456789012",
    "value(natIps.len())": "1",
    "value(status)": "RUNNING",
    "value(billingAccountName.basename())": "000000-AAAAAA-BBBBBB",
}
# Things that the server names; people know them by a title.
TITLED = ("alpha monitoring policies", "beta monitoring channels", "billing budgets")
# What is there before anything is made.
GIVEN = ("projects", "billing projects")


def refuse(message: str) -> NoReturn:
    sys.exit(f"ERROR: {message}")


def read(name: str, default: object) -> object:
    file = FOLDER / name
    return json.loads(file.read_text()) if file.exists() else default


STATE = read("state.json", {"things": {}, "bindings": [], "services": []})


def parsed(words: list[str]) -> tuple[str, list[str], Flags]:
    """Return the command, its plain words and its flags; leave where the real program would not know one of them."""
    program = FLAGS[PROGRAM]
    plain: list[str] = []
    given: Flags = {}
    queue, command = list(words), ""
    while queue:
        word = queue.pop(0)
        if word.startswith("--"):
            flag, value = valued(word, queue, {**program[""], **program.get(command, {})})
            given.setdefault(flag, []).append(value)
            continue
        plain.append(word)
        command = max((c for c in program if c and f"{' '.join(plain)} ".startswith(f"{c} ")), key=len, default="")
    if not command:
        refuse(f"Invalid choice: {' '.join(plain)}")
    return command, plain[len(command.split()) :], given


def valued(word: str, queue: list[str], known: dict[str, object]) -> tuple[str, str]:
    """Return a flag and its value, taken from the words that follow where it stands there."""
    flag, equals, value = word.partition("=")
    kind = known.get(flag)
    if kind is None and flag.startswith("--no-") and known.get(f"--{flag[5:]}") == "bool":
        kind = "bool"
    if kind is None:
        refuse(f"unrecognized arguments: {flag}")
    if kind != "bool" and not equals:
        if not queue or queue[0].startswith("--"):
            refuse(f"argument {flag}: expected one argument")
        value = queue.pop(0)
    plain = value.lower().replace("_", "-")
    if isinstance(kind, list) and plain not in [str(each).lower().replace("_", "-") for each in kind]:
        refuse(f"argument {flag}: Invalid choice: {value!r}")
    return flag, value


def whole(kind: str, name: str) -> str:
    """Return a thing's whole name: an account is known by its address."""
    is_short = kind == "iam service-accounts" and "@" not in name
    return f"{name}@my-project.iam.gserviceaccount.com" if is_short else name


def create(kind: str, plain: list[str], flags: Flags) -> None:
    if len(plain) != (kind not in TITLED):
        refuse(f"({kind} create) wrong number of names: {plain}")
    check(kind, flags)
    title = flags.get("--display-name", [""])[0]
    name = f"{kind.split(' ')[-1]}/{len(STATE['things'])}" if kind in TITLED else whole(kind, plain[0])  # noqa: PLC0207
    if f"{kind} {name}" in STATE["things"]:
        refuse(f"({kind} create) ALREADY_EXISTS: {name}")
    STATE["things"][f"{kind} {name}"] = {"title": title, "flags": flags}


def check(kind: str, flags: Flags) -> None:
    if lacking := [flag for flag in NEEDED.get(kind, ()) if flag not in flags]:
        refuse(f"argument {lacking[0]}: Must be specified.")
    for flag, other in USES.items():
        for used in flags.get(flag, ()):
            if f"{other} {used}" not in STATE["things"]:
                refuse(f"({kind} create) {other} {used} cannot be used, as it is not")
    for file in (*flags.get("--data-file", ()), *flags.get("--policy-from-file", ())):
        text = Path(file).read_text(encoding="utf-8")
        if "--policy-from-file" in flags:
            json.loads(text)


def delete(kind: str, plain: list[str], _: Flags) -> None:
    name = plain[0]
    find(kind, name)
    # Its pools go with a cluster.
    things = STATE["things"] = {
        key: thing
        for key, thing in STATE["things"].items()
        if not (kind == "container clusters" and name in thing["flags"].get("--cluster", ()))
    }
    for other, thing in things.items():
        if any(used == kind and name in thing["flags"].get(flag, ()) for flag, used in USES.items()):
            refuse(f"({kind} delete) RESOURCE_IN_USE: {name} by {other}")
    del things[f"{kind} {name}"]


def find(kind: str, name: str) -> None:
    if kind not in GIVEN and f"{kind} {name}" not in STATE["things"]:
        refuse(f"({kind} describe) NOT_FOUND: {name} was not found")


def describe(kind: str, plain: list[str], flags: Flags) -> str:
    find(kind, plain[0])
    answers = {**ANSWERS, **read("answers.json", {})}
    return "".join(f"{answers.get(each, 'something')}\n" for each in flags.get("--format", ["yaml"]))


def show(kind: str, _: list[str], __: Flags) -> str:
    found = {
        key.removeprefix(f"{kind} "): thing for key, thing in STATE["things"].items() if key.startswith(f"{kind} ")
    }
    return "".join(f"{thing['title']}\t{name}\n" for name, thing in found.items())


def bind(kind: str, plain: list[str], flags: Flags, *, is_given: bool = True) -> None:
    find(kind, plain[0])
    binding = [f"{kind} {plain[0]}", flags["--role"][0], flags["--member"][0]]
    rest = [each for each in STATE["bindings"] if each != binding]
    STATE["bindings"] = sorted([*rest, binding] if is_given else rest)


def connect(kind: str, plain: list[str], _: Flags) -> None:
    find(kind, plain[0])
    Path(os.environ["KUBECONFIG"]).write_text("{}")


VERBS: dict[str, Callable[[str, list[str], Flags], str | None]] = {
    "create": create,
    "delete": delete,
    "describe": describe,
    "list": show,
    "mk": lambda _, plain, flags: create("dataset", plain, flags),
    "show": lambda _, plain, __: find("dataset", plain[0]),
    "enable": lambda _, plain, __: STATE["services"].extend(each for each in plain if each not in STATE["services"]),
    "add-iam-policy-binding": bind,
    "remove-iam-policy-binding": lambda kind, plain, flags: bind(kind, plain, flags, is_given=False),
    "get-credentials": connect,
}


def main() -> None:
    words = sys.argv[1:]
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps([PROGRAM, *words]) + "\n")
    struck = next((fault for fault in read("faults.json", []) if fault[0] in " ".join(words)), None)
    if struck and not struck[2]:
        refuse(struck[1])
    command, plain, flags = parsed(words)
    if not STATE["services"] and not command.startswith(("services", "projects")):
        refuse("API has not been used in this project before or it is disabled (SERVICE_DISABLED)")
    kind, _, verb = command.rpartition(" ")
    printed = VERBS[verb](kind, plain, flags)
    (FOLDER / "state.new").write_text(json.dumps(STATE))
    (FOLDER / "state.new").replace(FOLDER / "state.json")
    if struck:
        refuse(struck[1])
    sys.stdout.write(printed or "")


if __name__ == "__main__":
    main()
