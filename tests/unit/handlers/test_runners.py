"""The runners of a handler, and ``invoke``, which all of them use."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt._handlers.concurrent_runner import concurrent_handler
from supabase_rt._handlers.dispatcher import Dispatcher
from supabase_rt._handlers.handler import Handler, invoke
from supabase_rt._handlers.runners import InlineRunner, QueuedRunner, new_handler

from ...support.waiting import turns, until


async def async_function(event: Any) -> None:
    """Does nothing, later."""


def handler_of(function: Callable[..., Any], **options: Any) -> Handler:
    return new_handler(function, Dispatcher(), source="test", **options)


# -- the choice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "options", "runner"),
    [
        (print, {}, InlineRunner),
        (print, {"thread": True}, QueuedRunner),
        (async_function, {}, QueuedRunner),
    ],
)
def test_a_handler_has_a_queue_if_it_cannot_run_at_once(
    function: Any, options: dict[str, Any], runner: type[Any]
) -> None:
    handler = handler_of(function, **options)
    assert type(handler.runner) is runner
    assert (handler.direct is not None) == (runner is InlineRunner)


async def test_a_function_that_returns_a_coroutine_gets_a_queue() -> None:
    seen: list[Any] = []

    async def later(event: Any) -> None:
        seen.append(event)

    handler = handler_of(lambda event: later(event))
    handler.deliver(1)
    assert (type(handler.runner), handler.direct) == (QueuedRunner, None)
    handler.deliver(2)
    await until(lambda: seen == [1, 2])
    handler.end()
    await turns()


async def test_an_event_within_an_event_is_not_lost_when_the_queue_is_made() -> None:
    seen: list[Any] = []

    async def later(event: Any) -> None:
        seen.append(event)

    def function(event: Any) -> Any:
        if event == "outer":
            handler.deliver("inner")
        return later(event)

    handler = handler_of(function)
    handler.deliver("outer")
    await until(lambda: seen == ["inner", "outer"])
    handler.end()
    await turns()


# -- invoke --------------------------------------------------------------------------------


async def test_invoke_returns_what_the_function_raised() -> None:
    error = RuntimeError("no")

    async def raises(event: Any) -> None:
        raise error

    assert await invoke(handler_of(raises), (1,)) is error
    assert await invoke(handler_of(async_function), (1,)) is None
    assert await invoke(handler_of(async_function), raises(1)) is error


async def test_invoke_tells_a_cancelled_task_from_a_cancelled_await() -> None:
    async def awaits_a_cancelled_future(event: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def hangs(event: Any) -> None:
        await asyncio.sleep(60)

    error = await invoke(handler_of(awaits_a_cancelled_future), (1,))
    assert isinstance(error, asyncio.CancelledError)
    task = asyncio.create_task(invoke(handler_of(hangs), (1,)), name="test")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_is_discarded_is_counted_and_not_handled(concurrency: int) -> None:
    seen: list[Any] = []

    async def function(event: Any) -> None:
        seen.append(event)

    dispatcher = Dispatcher()
    if concurrency == 1:
        handler = new_handler(function, dispatcher, source="test")
    else:
        handler = concurrent_handler(function, dispatcher, concurrency=concurrency, source="test")
    for number in range(5):
        handler(number)
    assert (handler.runner.waiting, dispatcher.tasks.waiting) == (5, 5)
    assert handler.runner.discard() == 5
    await dispatcher.drain()
    assert (seen, handler.runner.waiting, handler.runner.waiting_bytes) == ([], 0, 0)


async def test_a_handler_that_ended_handles_what_is_queued_and_nothing_more() -> None:
    seen: list[Any] = []

    async def function(event: Any) -> None:
        seen.append(event)

    dispatcher = Dispatcher()
    handler = new_handler(function, dispatcher, source="test")
    handler(1)
    handler.end()
    handler(2)
    await dispatcher.drain()
    assert seen == [1]


async def test_an_idle_worker_keeps_no_event_alive() -> None:
    class Event:
        pass

    handler = handler_of(async_function)
    event = Event()
    found = weakref.ref(event)
    handler.deliver(event)
    await until(lambda: handler.runner.is_idle)
    del event
    gc.collect()
    assert found() is None
    handler.end()
    await turns()
