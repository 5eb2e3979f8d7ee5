"""pyee underneath: its registry, without its traps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pyee.base import EventEmitter

from supabase_rt._handlers.dispatcher import Dispatch
from supabase_rt._handlers.handler import Registration
from supabase_rt._handlers.listener_table import Emitter
from supabase_rt._payloads.postgres_data import read_postgres_changes
from supabase_rt._wire.json_codec import loads


def register(handler: Any, **options: Any) -> Registration:
    return Registration(handler, Dispatch(), source="test", **options)


def test_it_is_a_pyee_emitter() -> None:
    assert issubclass(Emitter, EventEmitter)


def test_an_error_that_pyee_emits_finds_a_listener() -> None:
    assert Emitter().emit("error", ValueError("would be raised by a bare emitter"))


def test_the_same_function_registered_twice_is_told_twice() -> None:
    seen: list[Any] = []
    emitter = Emitter()
    first, second = register(seen.append), register(seen.append)
    emitter.attach(1, first)
    emitter.attach(1, second)
    emitter.deliver((1,), "a")
    emitter.detach(1, first)
    emitter.detach(1, first)  # gone already
    emitter.deliver((1,), "b")
    assert seen == ["a", "a", "b"]
    assert emitter.registrations() == [second]


def test_a_key_called_error_is_no_special_one() -> None:
    seen: list[Any] = []
    emitter = Emitter()
    emitter.attach("error", register(seen.append))
    emitter.tell("error", "x")
    emitter.tell("nobody", "x")
    assert seen == ["x"]


def test_listeners_of_several_keys_are_told_in_the_order_of_the_keys() -> None:
    seen: list[str] = []
    emitter = Emitter()
    for key in (3, 1, 2):
        emitter.attach(key, register(lambda _, key=key: seen.append(str(key))))
    emitter.deliver((1, 2, 3), "payload")
    assert seen == ["1", "2", "3"]


def test_the_memory_of_who_listens_does_not_grow_without_limit() -> None:
    emitter = Emitter()
    for key in range(3000):
        emitter.deliver((key,), "payload")
    assert len(emitter._listeners_of) <= 1100


@pytest.mark.conformance("PC54")
def test_a_listener_that_comes_or_goes_meanwhile_does_not_disturb_the_others() -> None:
    seen: list[str] = []
    emitter = Emitter()
    second = register(lambda _: seen.append("second"))
    late = register(lambda _: seen.append("late"))

    def first(_: Any) -> None:
        seen.append("first")
        emitter.attach(1, late)
        second.end()
        emitter.detach(1, second)

    emitter.attach(1, register(first))
    emitter.attach(1, second)
    emitter.attach(1, register(lambda _: seen.append("third")))
    emitter.deliver((1,), "payload")
    assert seen == ["first", "third"]


def test_each_way_of_converting_gets_one_payload() -> None:
    data = read_postgres_changes(
        loads(
            b'{"ids":[1],"data":{"type":"INSERT","schema":"public","table":"t","errors":null,'
            b'"commit_timestamp":"2026-01-01T00:00:00Z",'
            b'"columns":[{"name":"n","type":"int8"}],"record":{"n":"5"}}}'
        )
    ).data
    seen: list[Any] = []
    emitter = Emitter()
    for types in ("js", "raw", "js"):
        emitter.attach(1, register(seen.append, types=types))
    emitter.deliver((1,), data)
    assert [payload.new["n"] for payload in seen] == [5, "5", 5]
    assert seen[0] is seen[2]
    assert seen[0] is not seen[1]


async def test_handlers_that_block_are_named_for_changes_too(caplog: Any) -> None:

    data = read_postgres_changes(
        loads(
            b'{"ids":[1],"data":{"type":"INSERT","schema":"public","table":"t","errors":null,'
            b'"commit_timestamp":null,"columns":[],"record":{}}}'
        )
    ).data
    emitter = Emitter()

    def blocking(payload: Any) -> None:
        time.sleep(0.11)

    emitter.attach(1, register(blocking))
    emitter.deliver((1,), data)
    await asyncio.sleep(0)
    assert "blocking blocked the event loop" in caplog.text
