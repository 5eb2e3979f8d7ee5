"""The dicts of ``supabase_rt.types`` have the keys that are checked at the call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from supabase_rt import (
    DecodeError,
    ListenType,
    PostgresChange,
    RealtimeChannel,
    RealtimeClient,
    types,
)
from supabase_rt._protocol import channel_options
from supabase_rt.server import LocalRealtime

from ...support.recorder import Recorder
from ...support.waiting import until

TODOS: Any = {"event": "*", "schema": "public", "table": "todos"}


@dataclass
class Todo:
    id: int
    text: str


def keys(shape: Any) -> set[str]:
    return set(shape.__annotations__)


def keywords(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


def test_the_options_of_the_client_are_all_there() -> None:
    assert keys(types.RealtimeOptions) == keywords(RealtimeClient)


def test_the_options_of_listening_are_all_there() -> None:
    assert keys(types.ListenOptions) | {"model"} == keywords(RealtimeChannel.on)
    assert keys(types.OnceOptions) | {"model"} == keywords(RealtimeChannel.once)


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        (types.ChannelConfigOptions, channel_options._CONFIG_KEYS),
        (types.BroadcastOptions, channel_options._CONFIG_KEYS["broadcast"]),
        (types.PresenceOptions, channel_options._CONFIG_KEYS["presence"]),
        (types.ChangesJoinOptions, channel_options._CONFIG_KEYS["postgres_changes_options"]),
        (types.ChangesFilter, channel_options._FILTER_KEYS[ListenType.POSTGRES_CHANGES]),
        (types.SendOptions, ("timeout", "persist")),
    ],
)
def test_the_keys_are_those_that_are_checked_at_the_call(shape: Any, known: Any) -> None:
    assert keys(shape) == set(known)


async def test_a_handler_is_given_rows_of_its_model(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """Other handlers of the same table still get dicts."""
    server.table("todos", {"id": "int8", "text": "text"})
    todos, plain, first = Recorder(), Recorder(), Recorder()
    channel = client.channel("room")
    channel.on("postgres_changes", TODOS, todos, model=Todo).on("postgres_changes", TODOS, plain)
    channel.once("postgres_changes", TODOS, first, model=Todo)
    await channel.subscribe()
    await channel.ready()
    stream = channel.stream("postgres_changes", TODOS, model=Todo)
    waiting = channel.wait_for("postgres_changes", TODOS, lambda one: one.new.id == 2, model=Todo)
    server.insert("todos", {"id": 1, "text": "one"})
    server.insert("todos", {"id": 2, "text": "two"})
    found = await todos.count(2)
    assert [change.new for change in found] == [Todo(1, "one"), Todo(2, "two")]
    assert found[0].old is None
    assert [change.new["id"] for change in plain.seen] == [1, 2]
    assert [change.new for change in first.seen] == [Todo(1, "one")]
    assert (await anext(stream)).new == Todo(1, "one")
    assert (await waiting).new == Todo(2, "two")
    await stream.aclose()


async def test_a_row_that_does_not_fit_is_an_error_of_the_handler(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.table("todos", {"id": "int8", "text": "text"})
    errors: list[tuple[Any, ...]] = []
    ids: list[int] = []

    def on_todo(change: PostgresChange[Todo]) -> None:
        ids.append(change.new.id)

    client.on("error", lambda *args: errors.append(args))
    channel = client.channel("room").on("postgres_changes", TODOS, on_todo, model=Todo)
    await channel.subscribe()
    await channel.ready()
    server.insert("todos", {"id": 1, "text": None})
    server.insert("todos", {"id": 2, "text": "two"})
    await until(lambda: ids == [2])
    ((error, event, handler),) = errors
    assert isinstance(error, DecodeError)
    assert str(error) == ("public.todos: column 'text' is of type NoneType, Todo.text expects str")
    assert (event.table, handler) == ("todos", on_todo)
    assert client.health().handler_errors == 1


@pytest.mark.parametrize(
    ("type", "filter", "options", "text"),
    [
        ("postgres_changes", TODOS, {"model": Todo, "types": "python"}, "types= or model="),
        ("broadcast", {"event": "x"}, {"model": Todo}, "for the rows of postgres_changes"),
        ("postgres_changes", TODOS, {"model": dict}, "model is a dataclass, not dict"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_at_the_call(
    make_client: Any, type: Any, filter: Any, options: Any, text: str
) -> None:
    channel = make_client("http://127.0.0.1:9").channel("room")
    for call in (channel.on, channel.once, channel.stream):
        handler = () if call == channel.stream else (print,)
        with pytest.raises((ValueError, TypeError), match=text):
            call(type, filter, *handler, **options)
    assert not channel._handlers.bound
