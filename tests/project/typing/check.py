"""Checks with pyright that the package is fully typed and that the cases are read as meant.

Run by ``make types``. pyright comes from PyPI with a node of its own, so nothing else is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

BIN = sysconfig.get_path("scripts")
HERE = Path(__file__).parent
START = {"start": {"line": 0}}


def pyright(*args: str) -> dict[str, Any]:
    """Returns pyright's findings from outside the source tree, as in the project of a user."""
    environment = {
        **os.environ,
        # It looks for packages where the first python of PATH has them.
        "PATH": os.pathsep.join([BIN, os.environ.get("PATH", "")]),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    command = [os.path.join(BIN, "pyright"), "--outputjson", *args]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if not ended.stdout.startswith("{"):
        raise RuntimeError(f"pyright did not run: {ended.stdout}{ended.stderr}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def unknown() -> list[str]:
    """Returns symbols whose types are unknown or ambiguous for other checkers, with their
    places.
    """
    report = pyright("--verifytypes", "supabase_rt", "--ignoreexternal")["typeCompleteness"]
    if report["completenessScore"] == 1:
        return []
    return [
        f"{place(told)}: {symbol['name']}: {told['message']}"
        for symbol in report["symbols"]
        if not symbol["isTypeKnown"]
        for told in symbol["diagnostics"]
        if told["severity"] == "error"
    ]


def place(told: dict[str, Any]) -> str:
    return f"{told.get('file', '?')}:{told.get('range', START)['start']['line'] + 1}"


def misread() -> list[str]:
    """Returns the places where pyright reads ``cases.py`` and ``lambdas.py`` otherwise than they
    say.
    """
    report = pyright(
        "--pythonpath", sys.executable, *map(str, (HERE / "cases.py", HERE / "lambdas.py"))
    )
    return [f"{place(told)}: {told['message']}" for told in report["generalDiagnostics"]]


if __name__ == "__main__":
    found = unknown() + misread()
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.exit(bool(found))
