"""Command line options made from a dataclass: one for each field, with its docstring as help."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Protocol

__all__ = ["add_field_options", "field_values"]

CITATION = re.compile(r" (?:\(|See )docs/")
"""The start of a link to a page, which the help text leaves out."""


class Options(Protocol):
    """A parser, or a group of its options."""

    def add_argument(self, *flags: str, **about: Any) -> Any:
        """Add one option."""


def add_field_options(parser: Options, cls: type) -> None:
    """Add an option for each field of a dataclass of numbers and switches.

    ``None`` is written ``none``, and a pair such as calls per seconds ``5/30``.
    """
    about, hints = _descriptions(cls), typing.get_type_hints(cls)
    for field in fields(cls):
        option = "--" + field.name.replace("_", "-")
        shown = f"{about.get(field.name, '')} (default: {_shown(field.default)})".strip()
        if hints[field.name] is bool:
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction, default=None, help=shown
            )
        else:
            kind = _reader(hints[field.name])
            parser.add_argument(option, type=kind, default=MISSING, metavar="N", help=shown)


def field_values(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Returns the values of those options that were given."""
    given = {field.name: getattr(options, field.name) for field in fields(cls)}
    hints = typing.get_type_hints(cls)
    return {
        name: value
        for name, value in given.items()
        if value is not MISSING and not (hints[name] is bool and value is None)
    }


def _descriptions(cls: type) -> dict[str, str]:
    """Returns the docstring of each field, without the link at its end."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except OSError:
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            text = " ".join(ast.literal_eval(below.value).split())
            # argparse reads a percent sign as a placeholder.
            name = typing.cast(ast.Name, field.target).id
            found[name] = CITATION.split(text)[0].rstrip(".").replace("%", "%%")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{part:g}" for part in value)
    return "none" if value is None else f"{value}"


def _reader(hint: Any) -> Callable[[str], Any]:
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = list(typing.get_args(hint)) if is_union else [hint]
    optional = type(None) in kinds
    kind = next(each for each in kinds if each is not type(None))

    def read(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        parts = typing.get_args(kind)
        if not parts:
            return _number(kind, text)
        values = text.split("/")
        if len(values) != len(parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form CALLS/SECONDS")
        return tuple(_number(one, value) for one, value in zip(parts, values, strict=True))

    return read


def _number(kind: Callable[[str], Any], text: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 upwards")
    return value
