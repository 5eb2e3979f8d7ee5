"""Outcomes may be awaited many times, or never."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from supabase_rt._runtime.outcome import Outcome, Waiters

from ...support.waiting import turns, until


async def awaiting(outcome: Outcome[str]) -> str:
    return await outcome


async def test_one_result_for_many_awaits_in_many_tasks() -> None:
    outcome: Outcome[str] = Outcome()
    waiting = [asyncio.create_task(awaiting(outcome)) for _ in range(3)]
    await until(lambda: outcome.is_awaited)
    outcome.succeed("ok")
    assert await asyncio.gather(*waiting) == ["ok"] * 3
    assert await outcome == "ok"
    assert await outcome == "ok"
    assert outcome.done()


async def test_gather_and_wait_for_take_it() -> None:
    assert list(await asyncio.gather(Outcome.of("a"), Outcome.of("b"))) == ["a", "b"]
    assert await asyncio.wait_for(Outcome.of("c"), 1) == "c"


async def test_the_first_settling_counts() -> None:
    outcome: Outcome[str] = Outcome()
    outcome.succeed("first")
    outcome.succeed("second")
    outcome.fail(ValueError("third"))
    assert await outcome == "first"
    failed: Outcome[str] = Outcome()
    failed.fail(ValueError("first"))
    failed.fail(KeyError("second"))
    failed.succeed("third")
    with pytest.raises(ValueError, match="first"):
        await failed


async def test_every_await_raises_the_failure() -> None:
    outcome: Outcome[str] = Outcome()
    outcome.fail(ValueError("no"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await outcome


async def test_cancelling_an_await_leaves_the_work_going_on() -> None:
    outcome: Outcome[str] = Outcome()
    task = asyncio.create_task(awaiting(outcome))
    await until(lambda: outcome.is_awaited)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not outcome.is_awaited
    assert not outcome.done()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outcome, 0.001)
    outcome.succeed("later")
    assert await outcome == "later"


async def test_a_failure_that_nobody_awaits_is_told_once() -> None:
    heard: list[BaseException] = []
    outcome: Outcome[str] = Outcome(heard.append)
    outcome.fail(ValueError("alone"))
    assert [str(error) for error in heard] == ["alone"]
    with pytest.raises(ValueError, match="alone"):
        await outcome
    assert len(heard) == 1


async def test_a_failure_that_somebody_awaits_is_not_told() -> None:
    heard: list[BaseException] = []
    outcome: Outcome[str] = Outcome(heard.append)
    task = asyncio.create_task(awaiting(outcome))
    await until(lambda: outcome.is_awaited)
    outcome.fail(ValueError("heard"))
    with pytest.raises(ValueError, match="heard"):
        await task
    assert heard == []


async def test_a_cancelled_waiter_is_nobody() -> None:
    heard: list[BaseException] = []
    outcome: Outcome[str] = Outcome(heard.append)
    task = asyncio.create_task(awaiting(outcome))
    await until(lambda: outcome.is_awaited)
    task.cancel()
    outcome.fail(ValueError("alone"))
    await asyncio.wait([task])
    assert len(heard) == 1


async def test_an_unawaited_failure_is_no_warning_of_asyncio() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        outcome: Outcome[str] = Outcome()
        outcome.fail(ValueError("never"))
        del outcome
        gc.collect()
        await turns()
    assert found == []


async def test_the_repr_shows_what_came() -> None:
    outcome: Outcome[str] = Outcome()
    assert repr(outcome) == "<Outcome pending>"
    outcome.fail(ValueError("no"))
    assert repr(outcome) == "<Outcome ValueError('no')>"
    assert repr(Outcome.of("ok")) == "<Outcome 'ok'>"


async def test_all_who_wait_for_one_thing_are_told_together() -> None:
    waiting = Waiters()
    first, second, gone = waiting.add(), waiting.add(), waiting.add()
    waiting.remove(gone)
    waiting.remove(gone)
    assert not waiting.is_awaited
    task = asyncio.create_task(asyncio.wait_for(first, 1))
    await until(lambda: waiting.is_awaited)
    later = waiting.detach()
    assert not waiting.is_awaited
    assert later.is_awaited
    later.succeed()
    await asyncio.gather(task, second)
    third = waiting.add()
    waiting.fail(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await third
    assert not gone.done()
