"""Background tasks end in bounded time, whatever they do with their cancellation."""

from __future__ import annotations

import asyncio
import time

import pytest

from supabase_rt._connection.access_tokens import AccessTokens
from supabase_rt._runtime import background_tasks
from supabase_rt._runtime.background_tasks import GRACE, BackgroundTasks


class Stubborn:
    """Work that swallows each cancellation until it may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def work(self) -> str:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                pass
        return "token"


@pytest.mark.parametrize("patient", [True, False])
async def test_a_task_that_swallows_its_cancellation_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    monkeypatch.setattr(background_tasks, "REQUEST_TIMEOUT", 0.1)
    stubborn, tasks = Stubborn(), BackgroundTasks()
    task = tasks.start(stubborn.work(), "stubborn", patient=patient)
    await asyncio.sleep(0)
    begun = time.monotonic()
    await asyncio.wait_for(tasks.end(), 5)
    assert time.monotonic() - begun < 0.1 + GRACE + 1
    assert not task.done()
    stubborn.may_end.set()
    await task


async def test_a_token_callback_that_swallows_its_cancellation_is_not_waited_for() -> None:
    stubborn = Stubborn()
    used: list[str | None] = []
    tokens = AccessTokens(stubborn.work, 60.0, used.append, lambda error: None)
    tokens.refresh()
    await asyncio.sleep(0.01)
    begun = time.monotonic()
    await asyncio.wait_for(tokens.aclose(), 5)
    assert time.monotonic() - begun < GRACE + 1
    stubborn.may_end.set()
    await asyncio.sleep(0.01)
    assert used == []
