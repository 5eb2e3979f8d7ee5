"""Finds the ids that each test names in the source, without running or importing a test.

A marker counts only if the test runs everywhere. A marker on a test that is marked to be skipped or
to fail is an error. A marked test that skips while it runs fails (tests/conftest.py). So the claims
of the table hold whenever the suite is green.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["Unsure", "marked"]

TESTS = Path(__file__).parents[2]
MARKER = "conformance"
UNSURE = {"skip", "skipif", "xfail", "importorskip"}


class Unsure(Exception):
    """A marker on a test that may not run; the text names it."""


@cache
def marked(folder: Path = TESTS) -> dict[str, list[str]]:
    """The tests by the ids that they name, as ``tests/file.py::test``, in the order of the
    files.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if f"mark.{MARKER}" not in text:
            continue
        name = path.relative_to(folder.parent).as_posix()
        module = ast.parse(text)
        for function in _tests(module):
            ids = list(_ids(function))
            if ids and (_marks(function) | _module_marks(module)) & UNSURE:
                raise Unsure(f"{name}::{function.name} is marked with ids and may not run")
            for id in ids:
                tests = found.setdefault(id, [])
                tests.append(f"{name}::{function.name}")
    return found


def _tests(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _ids(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The arguments of the marker on the test or on one of its parameters."""
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Call) and _name(node.func) == MARKER:
                for argument in node.args:
                    yield str(ast.literal_eval(argument))


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {_name(found) for deco in node.decorator_list for found in ast.walk(deco)}


def _module_marks(module: ast.Module) -> set[str]:
    """The calls in ``pytestmark`` and at the top of the file."""
    plain = [node for node in module.body if isinstance(node, ast.Assign | ast.Expr)]
    return {_name(found) for node in plain for found in ast.walk(node)}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""
