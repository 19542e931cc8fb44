"""Build hook: compile runner/tardis/scan.c where there is a C compiler and Python's headers, else leave it out.

What is compiled is optional: without it the same files are read by Arrow alone, to the same bits, in more time.
It is of Python's limited interface and asks little of the C library, so one build fits every Python from 3.11 on.
CC names another compiler; `CC=false` is none.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "runner/tardis/scan.c"
MODULE = "runner/tardis/scan.abi3.so"
FLAGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden")
LINKED = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)


class Compile(BuildHookInterface):
    """Adds the compiled module: to the checkout of an editable install, to a wheel otherwise."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what the wheel holds."""
        self._scratch = tempfile.TemporaryDirectory()
        built = Path(self._scratch.name) / "scan.so"
        if (trouble := compiled(Path(self.root) / SOURCE, built)) is not None:
            self.app.display_warning(f"{SOURCE} is not compiled, Arrow reads everything: {trouble}")
            if version == "editable":
                (Path(self.root) / MODULE).unlink(missing_ok=True)  # made of an earlier source
            return
        if version == "editable":
            # Renamed into place: whoever runs keeps the one that is mapped.
            fresh = Path(self.root) / f"{MODULE}.{os.getpid()}"
            fresh.write_bytes(built.read_bytes())
            fresh.replace(Path(self.root) / MODULE)
        else:
            build_data["force_include"][str(built)] = MODULE
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"cp311-abi3-{platform}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Forget what was compiled."""
        del version, build_data, artifact_path
        self._scratch.cleanup()


def compiled(source: Path, target: Path) -> str | None:
    """Compile; return what went wrong, None when nothing did."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *FLAGS, f"-I{sysconfig.get_path('include')}", *LINKED, "-o", str(target), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        return str(e)
    return done.stderr.strip() or "the compiler failed" if done.returncode else None
