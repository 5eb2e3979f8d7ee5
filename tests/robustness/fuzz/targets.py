"""All targets by name. A target takes any bytes and raises only if a contract is broken."""

from __future__ import annotations

from collections.abc import Callable

from . import machine_targets, wire_targets

__all__ = ["TARGETS"]

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (*wire_targets.TARGETS, *machine_targets.TARGETS)
}
