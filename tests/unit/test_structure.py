"""The rules of CONTRIBUTING.md that a machine can judge. Every failure lists file:line."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runner"
MODULE_LINES = 400
FUNCTION_LINES = 50
LINT_EXCEPTIONS = 15
BANNED_WORDS = ("Manager", "Handler", "Orchestrator", "Processor", "Service", "Helper", "Helpers", "Util", "Utils")
BANNED_WORDS += ("Enhanced", "Unified", "V2")
MAY_READ_ENVIRONMENT = ("runner/cli/", "runner/worker/")
MAY_CATCH_EVERYTHING = ("runner/cli/", "runner/worker/")
WITH_DOCTESTS = ("runner/plan", "runner/market", "runner/layout")
# Third parties that one adapter alone may know: package -> where it may be imported.
ADAPTERS = {
    "tenacity": "runner/tardis/",
    "kubernetes": "runner/backends/kubernetes/access.py",
    "yaml": "runner/spec",
    "typer": "runner/cli/",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def rel(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def parsed(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sources(folder):
        yield rel(path), ast.parse(path.read_text(encoding="utf-8"))


def nodes(folder: Path) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in parsed(folder):
        for node in ast.walk(tree):
            yield name, node


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of a name or attribute, "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name or "") for everything that an import statement binds."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield from ((node.module or "", alias.name) for alias in node.names)


def tracked() -> Iterator[tuple[str, int, str]]:
    """Yield (file, line number, line) of every text file that git has or would take."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    )
    for name in sorted(set(filter(None, listed.stdout.decode().split("\0")))):
        path = ROOT / name
        if path.is_file() and b"\0" not in (body := path.read_bytes()):
            for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), start=1):
                yield name, number, line


def lines_matching(pattern: str, *, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{name}:{number} {match.group()[:60]}"
        for name, number, line in tracked()
        if name.endswith(suffixes) and (match := found.search(line))
    ]


def refuse(rule: str, offences: list[str]) -> None:
    assert not offences, "\n  ".join([rule, *offences])


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_there_is_something_to_judge() -> None:
    assert len(sources(PACKAGE)) > 5
    assert any(name == "pyproject.toml" for name, _, _ in tracked())


def test_modules_are_short() -> None:
    sizes = ((rel(path), len(path.read_text(encoding="utf-8").splitlines())) for path in sources(PACKAGE))
    refuse(
        f"a module has at most {MODULE_LINES} lines",
        [f"{name}:1 {lines} lines" for name, lines in sizes if lines > MODULE_LINES],
    )


def test_functions_are_short() -> None:
    refuse(
        f"a function has at most {FUNCTION_LINES} lines below its docstring",
        [
            f"{name}:{node.lineno} {node.name}: {body_lines(node)} lines"
            for name, node in nodes(PACKAGE)
            if isinstance(node, Function) and body_lines(node) > FUNCTION_LINES
        ],
    )


def test_no_module_is_empty() -> None:
    def content(tree: ast.Module) -> list[ast.stmt]:
        return [
            statement
            for statement in tree.body
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
        ]

    refuse(
        "a file appears with its first real use; only __init__.py may hold a docstring alone",
        [f"{name}:1" for name, tree in parsed(PACKAGE) if not content(tree) and not name.endswith("/__init__.py")],
    )


def test_names_say_what_things_are() -> None:
    words = "|".join(BANNED_WORDS)
    in_class = re.compile(rf"({words})(?![a-z])")
    in_module = re.compile(rf"(^|_)({words})(_|\.py$)", re.IGNORECASE)
    classes = [
        f"{name}:{node.lineno} class {node.name}"
        for name, node in nodes(PACKAGE)
        if isinstance(node, ast.ClassDef) and in_class.search(node.name)
    ]
    modules = [f"{rel(path)}:1" for path in sources(PACKAGE) if in_module.search(path.name)]
    refuse(f"no class or module is named {', '.join(BANNED_WORDS)}", classes + modules)


def catches_everything(node: ast.AST) -> bool:
    """Tell whether this is `except:` or `except Exception`, or a BaseException that is not raised again."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    names = {dotted(kind) or "what a call returns" if kind else "" for kind in kinds}
    again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
    return bool(names & {"", "Exception"}) or ("BaseException" in names and not again)


def test_everything_is_caught_in_two_places_only() -> None:
    found = [(name, node) for name, node in nodes(PACKAGE) if catches_everything(node)]
    places = [f"{name}:{node.lineno}" for name, node in found]  # type: ignore[attr-defined]
    refuse(
        "`except Exception` stands around one task (worker) and around the command line, nowhere else",
        [place for place in places if not place.startswith(MAY_CATCH_EVERYTHING)],
    )
    assert len(places) <= 2, places


def test_environment_is_read_at_the_rim() -> None:
    def reads(node: ast.AST) -> bool:
        names = {name for module, name in imported(node) if module == "os"}
        return dotted(node) in {"os.environ", "os.getenv"} or bool(names & {"environ", "getenv"})

    refuse(
        "the environment is read in cli/ and worker/ only",
        [
            f"{name}:{node.lineno}"  # type: ignore[attr-defined]
            for name, node in nodes(PACKAGE)
            if reads(node) and not name.startswith(MAY_READ_ENVIRONMENT)
        ],
    )


def test_private_names_stay_in_their_module() -> None:
    def private(text: str) -> bool:
        return any(part.startswith("_") and not part.startswith("__") for part in text.split("."))

    refuse(
        "a name with a leading underscore is not imported by another module",
        [
            f"{name}:{node.lineno} {module}.{what}"  # type: ignore[attr-defined]
            for name, node in nodes(PACKAGE)
            for module, what in imported(node)
            if module.split(".")[0] == "runner" and private(f"{module}.{what}")
        ],
    )


def test_third_parties_have_one_adapter() -> None:
    refuse(
        f"these packages are known to one place each: {ADAPTERS}",
        [
            f"{name}:{node.lineno} {module}"  # type: ignore[attr-defined]
            for name, node in nodes(PACKAGE)
            for module, _ in imported(node)
            if not name.startswith(ADAPTERS.get(module.split(".")[0], ""))
        ],
    )


def test_public_functions_of_pure_modules_show_themselves() -> None:
    refuse(
        f"every public function of {', '.join(WITH_DOCTESTS)} has a doctest",
        [
            f"{name}:{node.lineno} {node.name}"
            for name, tree in parsed(PACKAGE)
            for node in tree.body
            if name.startswith(WITH_DOCTESTS)
            and isinstance(node, Function)
            and not node.name.startswith("_")
            and ">>> " not in (ast.get_docstring(node) or "")
        ],
    )


def test_nothing_is_async() -> None:
    refuse(
        "plain functions only: no async twin of anything",
        [
            f"{name}:{node.lineno}"
            for name, node in nodes(PACKAGE)
            if isinstance(node, ast.AsyncFunctionDef | ast.Await)
        ],
    )


def calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and dotted(node.func).rsplit(".", 1)[-1] == name


def test_tests_wait_for_facts() -> None:
    def pauses(name: str, tree: ast.Module) -> Iterator[str]:
        polling = {inner for loop in ast.walk(tree) if isinstance(loop, ast.While) for inner in ast.walk(loop)}
        yield from (
            f"{name}:{node.lineno}"  # type: ignore[attr-defined]
            for node in ast.walk(tree)
            if calls(node, "sleep") and node not in polling
        )

    refuse(
        "a test does not sleep and hope: it asks for a fact in a `while`",
        [place for name, tree in parsed(ROOT / "tests") for place in pauses(name, tree)],
    )


@pytest.mark.parametrize("banned", ["hash", "eval", "exec"])
def test_calls_that_have_a_better_way(banned: str) -> None:
    refuse(
        f"{banned}() is not called: ids outlive the process, text is data",
        [f"{name}:{node.lineno}" for name, node in nodes(PACKAGE) if calls(node, banned)],  # type: ignore[attr-defined]
    )


def test_parquet_is_read_without_threads_that_outlive_the_read() -> None:
    def reads_ahead(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and dotted(node.func).endswith("ParquetFile"):
            return not any(k.arg == "pre_buffer" and ast.unparse(k.value) == "False" for k in node.keywords)
        return isinstance(node, ast.Call) and dotted(node.func) in ("pq.read_table", "parquet.read_table")

    refuse(
        "ParquetFile(…, pre_buffer=False), and not pq.read_table: a thread of Arrow's can abort the process at its end",
        [f"{name}:{node.lineno}" for name, node in nodes(PACKAGE) if reads_ahead(node)],  # type: ignore[attr-defined]
    )


def test_work_to_be_done_lives_in_the_tracker() -> None:
    refuse("no such marks in the tree", lines_matching(r"(#|//|<!--).*\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b"))


def test_no_merge_is_left_half_way() -> None:
    refuse("no merge markers in the tree", lines_matching(r"^(<{7}|>{7}|\|{7}) "))


def test_locks_name_no_place() -> None:
    refuse(
        "a lock file names packages and hashes; where they come from is the user's configuration",
        lines_matching(r"://|--(extra-)?index-url|--find-links|--trusted-host|@ file", suffixes=(".lock",)),
    )


def test_locks_pin_everything_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        pins = re.split(r"\n(?=\S)", (ROOT / name).read_text(encoding="utf-8").strip())
        refuse(f"{name}: exact version and hash", [p for p in pins if "==" not in p or "--hash=sha256:" not in p])


def test_locks_agree() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==.*?(?= \\$)", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))

    runtime = pins("requirements.lock")
    assert runtime
    refuse("what a run needs is part of what development needs", sorted(runtime - pins("requirements-dev.lock")))


def test_nothing_knows_the_machine_it_was_written_on() -> None:
    refuse("no absolute paths of one machine in the tree", lines_matching(r"(?<![\w.:$}-])/(home|Users|root|work)/\w+"))


def test_nothing_looks_like_a_secret() -> None:
    patterns = (
        r"TD\.[A-Za-z0-9_-]{12,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
        r'"private_key_i[d]"',
        r"AIza[0-9A-Za-z_-]{30,}",
        r"\bAKIA[0-9A-Z]{16}\b",
        r"\bgh[pousr]_[A-Za-z0-9]{30,}",
        r"\bxox[abpr]-[A-Za-z0-9-]{10,}",
    )
    refuse("no credentials in the tree, not even old ones", lines_matching("|".join(patterns)))


def test_lint_exceptions_are_few() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert len(settings["tool"]["ruff"]["lint"]["ignore"]) <= LINT_EXCEPTIONS
