"""The table of handlers: a pyee emitter without the traps of one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pyee.base import EventEmitter

from supabase_rt._handlers.dispatcher import Dispatcher
from supabase_rt._handlers.handler import Handler
from supabase_rt._handlers.listener_table import ListenerTable
from supabase_rt._handlers.runners import new_handler
from supabase_rt._payloads.postgres_data import read_postgres_changes
from supabase_rt._wire.json_codec import loads


def register(handler: Any, **options: Any) -> Handler:
    return new_handler(handler, Dispatcher(), source="test", **options)


def test_it_is_a_pyee_emitter() -> None:
    assert issubclass(ListenerTable, EventEmitter)


def test_an_error_that_pyee_emits_finds_a_listener() -> None:
    assert ListenerTable().emit("error", ValueError("would be raised by a bare emitter"))


def test_the_same_function_registered_twice_is_told_twice() -> None:
    seen: list[Any] = []
    table = ListenerTable()
    first, second = register(seen.append), register(seen.append)
    table.attach(1, first)
    table.attach(1, second)
    table.deliver((1,), "a")
    table.detach(1, first)
    table.detach(1, first)  # gone already
    table.deliver((1,), "b")
    assert seen == ["a", "a", "b"]
    assert table.handlers() == [second]


def test_a_key_called_error_is_no_special_one() -> None:
    seen: list[Any] = []
    table = ListenerTable()
    table.attach("error", register(seen.append))
    table.call("error", "x")
    table.call("nobody", "x")
    assert seen == ["x"]


def test_handlers_of_several_keys_are_told_in_the_order_of_the_keys() -> None:
    seen: list[str] = []
    table = ListenerTable()
    for key in (3, 1, 2):
        table.attach(key, register(lambda _, key=key: seen.append(str(key))))
    table.deliver((1, 2, 3), "payload")
    assert seen == ["1", "2", "3"]


def test_the_handlers_found_before_are_kept_within_a_limit() -> None:
    table = ListenerTable()
    for key in range(3000):
        table.deliver((key,), "payload")
    assert len(table._handlers_of) <= 1100


@pytest.mark.conformance("PC54")
def test_handlers_that_come_or_go_meanwhile_disturb_no_others() -> None:
    seen: list[str] = []
    table = ListenerTable()
    second = register(lambda _: seen.append("second"))
    late = register(lambda _: seen.append("late"))

    def first(_: Any) -> None:
        seen.append("first")
        table.attach(1, late)
        second.end()
        table.detach(1, second)

    table.attach(1, register(first))
    table.attach(1, second)
    table.attach(1, register(lambda _: seen.append("third")))
    table.deliver((1,), "payload")
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
    table = ListenerTable()
    for types in ("js", "raw", "js"):
        table.attach(1, register(seen.append, types=types))
    table.deliver((1,), data)
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
    table = ListenerTable()

    def blocking(payload: Any) -> None:
        time.sleep(0.11)

    table.attach(1, register(blocking))
    table.deliver((1,), data)
    await asyncio.sleep(0)
    assert "blocking blocked the event loop" in caplog.text
