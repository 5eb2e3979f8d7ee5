"""The commands, one in each file."""

from __future__ import annotations

import importlib
import pkgutil

from ..command import Command

__all__ = ["find_commands"]


def find_commands() -> list[Command]:
    """Returns all commands, sorted by name."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    )
    return sorted((module.COMMAND for module in modules), key=lambda command: command.name)
