"""Work on many items at once that finds the items it fails for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from .errors import DatabaseProblem

__all__ = ["piecewise"]

K = TypeVar("K")
V = TypeVar("V")


async def piecewise(
    work: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], items: Sequence[K], deadline: float
) -> tuple[dict[K, V], dict[K, Exception]]:
    """Work on all items at once; after a failure, on each half. Returns results and errors.

    Nothing is tried again after ``deadline``, a time of the loop. Raises ``DatabaseProblem`` if
    the database is away.
    """
    if not items:
        return {}, {}
    try:
        return dict(await work(items)), {}
    except DatabaseProblem:
        raise
    except Exception as exc:
        problem = exc
    if len(items) == 1 or asyncio.get_running_loop().time() > deadline:
        return {}, dict.fromkeys(items, problem)
    middle = len(items) // 2
    done, failed = await piecewise(work, items[:middle], deadline)
    if asyncio.get_running_loop().time() > deadline:
        return done, failed | dict.fromkeys(items[middle:], problem)
    more_done, more_failed = await piecewise(work, items[middle:], deadline)
    return done | more_done, failed | more_failed
