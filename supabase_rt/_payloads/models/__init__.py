"""The user's classes for rows, ``model=Todo``: one file for each kind of class."""

from __future__ import annotations

import dataclasses
from typing import Any

from .dataclass_models import dataclass_converter, name_of
from .row_converter import RowConverter

__all__ = ["RowConverter", "converter_for"]


def converter_for(cls: Any) -> RowConverter:
    """Returns the converter of a model; raises ``TypeError`` for a class of no known kind."""
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        return dataclass_converter(cls)
    raise TypeError(f"model is a dataclass, not {name_of(cls)}")
