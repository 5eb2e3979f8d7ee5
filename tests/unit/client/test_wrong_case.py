"""Every public name, asked for in camelCase, raises an error with the Python name."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import supabase_rt
from supabase_rt import (
    Broadcast,
    PostgresChange,
    PresenceJoin,
    PresenceLeave,
    PresenceSync,
    RealtimeClient,
    ReconnectPolicy,
    Refused,
    SystemMessage,
    create_client,
    postgres_changes_filter,
    types,
)
from supabase_rt._payloads.postgres_data import PostgresData

URL, KEY = "https://x.supabase.co", "key"

SUPABASE = create_client(URL, KEY)
CHANGE: PostgresChange = PostgresChange(PostgresData("INSERT", "public", "todos"))
OBJECTS: list[Any] = [
    SUPABASE,
    SUPABASE.realtime,
    SUPABASE.channel("room"),
    ReconnectPolicy(),
    SUPABASE.realtime.health(),
    postgres_changes_filter(),
    CHANGE,
    Broadcast("broadcast", "x", {}),
    PresenceSync(),
    PresenceJoin("anna", [], []),
    PresenceLeave("anna", [], []),
    SystemMessage("system", "ok", "hello"),
    Refused("no"),
]


def camel_case(name: str) -> str:
    """Returns the name as supabase-js would spell it."""
    first, *others = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in others)


def attributes() -> Iterator[Any]:
    for owner in OBJECTS:
        for name in dir(owner):
            if not name.startswith("_") and camel_case(name) != name:
                yield pytest.param(owner, name, id=f"{type(owner).__name__}.{camel_case(name)}")


@pytest.mark.parametrize(("owner", "name"), list(attributes()))
def test_an_attribute_in_camel_case_names_the_one_of_python(owner: Any, name: str) -> None:
    wrong = camel_case(name)
    with pytest.raises(AttributeError) as caught:
        getattr(owner, wrong)
    text = str(caught.value)
    assert text.startswith(f"{type(owner).__name__!r} object has no attribute {wrong!r}; ")
    assert f"{name!r}" in text or f"here it is {name}" in text


def test_the_walk_walks() -> None:
    walked = {param.id for param in attributes()}
    assert {
        "SupabaseClient.removeChannel",
        "RealtimeClient.setAuth",
        "RealtimeClient.heartbeatInterval",
        "RealtimeChannel.presenceState",
        "RealtimeChannel.onPostgresChanges",
        "PostgresChangesFilter.in",
        "PostgresChangesFilter.isDistinct",
        "PostgresChange.eventType",
        "PresenceJoin.newPresences",
        "ReconnectPolicy.maxBackoff",
        "Health.connectedSince",
    } <= walked


@pytest.mark.parametrize(
    ("owner", "name", "text"),
    [
        (SUPABASE.realtime, "heartbeatIntervalMs", "'heartbeat_interval' and in seconds"),
        (SUPABASE.realtime, "endpointURL", "in Python it is 'endpoint_url'"),
        (SUPABASE.realtime, "close", "here it is disconnect()"),
        (SUPABASE.channel("room"), "is_joined", 'here it is state == "joined"'),
        (SUPABASE.channel("room"), "isJoined", 'here it is state == "joined"'),
        (CHANGE, "record", "here it is 'new'"),
        (Refused("no"), "message", "here it is str(error)"),
        (Refused("no"), "cause", "here it is error.__cause__"),
    ],
)
def test_names_that_are_more_than_a_spelling(owner: Any, name: str, text: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(text)):
        getattr(owner, name)


def test_a_promise_is_awaited() -> None:
    outcome: Any = RealtimeClient("wss://x.co", params={"apikey": KEY}).set_auth("token")
    with pytest.raises(AttributeError, match="an await"):
        outcome.then


def test_what_never_was_gets_no_advice() -> None:
    for owner in OBJECTS:
        with pytest.raises(AttributeError, match=r"has no attribute 'colourOfTheSky'$"):
            owner.colourOfTheSky
        assert not hasattr(owner, "__wrapped__")


# -- options -----------------------------------------------------------------------------


def keywords(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]


@pytest.mark.parametrize(
    "name", [name for name in keywords(RealtimeClient) if camel_case(name) != name]
)
def test_an_option_in_camel_case(name: str) -> None:
    for wrong in (camel_case(name), f"{camel_case(name)}Ms"):
        options: Any = {wrong: 1}
        with pytest.raises(TypeError, match=f"in Python it is {name!r}"):
            RealtimeClient("wss://x.co", **options)
        with pytest.raises(TypeError, match=f"in Python it is {name!r}"):
            create_client(URL, KEY, realtime=options)


@pytest.mark.parametrize(
    ("wrong", "name"), [("accessToken", "access_token"), ("global", "global_")]
)
def test_an_option_of_create_client_in_camel_case(wrong: str, name: str) -> None:
    options: Any = {wrong: None}
    with pytest.raises(TypeError, match=f"create_client has no option {wrong!r}; .* {name!r}"):
        create_client(URL, KEY, **options)


def test_an_option_of_channel_in_camel_case() -> None:
    wrong: Any = {"resubscribeAfter": 60}
    with pytest.raises(TypeError, match=r"channel\(\) has no option .*'resubscribe_after'"):
        create_client(URL, KEY).channel("room", **wrong)


@pytest.mark.parametrize("field", dataclasses.fields(ReconnectPolicy), ids=lambda one: one.name)
def test_a_field_of_the_policy_in_camel_case(field: Any) -> None:
    wrong = camel_case(field.name)
    if wrong == field.name:
        wrong += "s" if not wrong.endswith("s") else "es"
    options: Any = {wrong: 1}
    calls: Any = (lambda: ReconnectPolicy(**options), lambda: ReconnectPolicy.from_dict(options))
    for call in calls:
        with pytest.raises(
            TypeError, match=f"has no {wrong!r}; did you mean {field.name!r}"
        ) as hit:
            call()
        assert isinstance(hit.value, ValueError)


def test_a_policy_is_still_copied_replaced_and_pickled() -> None:
    policy = ReconnectPolicy(max_backoff=5)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert dataclasses.replace(policy, jitter=0).max_backoff == 5
    assert ReconnectPolicy(False) == ReconnectPolicy.disabled()
    error = pickle.loads(pickle.dumps(Refused("no", code="Unauthorized")))
    assert (str(error), error.code) == ("no", "Unauthorized")


def test_options_in_an_object_as_in_javascript() -> None:
    anything: Any = RealtimeClient
    with pytest.raises(TypeError, match=r"the options of RealtimeClient are keyword arguments"):
        anything("wss://x.co", {"params": {"apikey": KEY}})
    anything = create_client
    with pytest.raises(TypeError, match=r"keyword arguments: create_client\(\.\.\., realtime="):
        anything(URL, KEY, {"realtime": {}})


# -- keys of dicts -----------------------------------------------------------------------


def options_at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value if isinstance(value, dict) else {}


CONFIG: list[tuple[tuple[str, ...], Any]] = [
    ((), types.ChannelOptions),
    (("config",), types.ChannelConfigOptions),
    (("config", "broadcast"), types.BroadcastOptions),
    (("config", "presence"), types.PresenceOptions),
    (("config", "broadcast", "replay"), types.ReplayOptions),
    (("config", "postgres_changes_options"), types.ChangesJoinOptions),
]
KEYS = [(path, key) for path, shape in CONFIG for key in shape.__annotations__]


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[".".join((*p, k)) for p, k in KEYS])
def test_a_key_of_the_channel_options_in_the_wrong_case(path: tuple[str, ...], key: str) -> None:
    client = RealtimeClient("wss://x.co", params={"apikey": KEY})
    for wrong in {camel_case(key), key.upper(), key.capitalize()} - {key}:
        options: Any = options_at(path, {wrong: True})
        with pytest.raises(ValueError, match=f"unknown key {wrong!r} in .*; did you mean {key!r}"):
            client.channel("room", options)


@pytest.mark.parametrize(
    ("type", "shape"),
    [
        ("postgres_changes", types.ChangesFilter),
        ("broadcast", types.BroadcastFilter),
        ("presence", types.PresenceFilter),
    ],
)
def test_a_key_of_a_filter_in_the_wrong_case(type: Any, shape: Any) -> None:
    channel = RealtimeClient("wss://x.co", params={"apikey": KEY}).channel("room")
    for key in shape.__annotations__:
        with pytest.raises(ValueError, match=f"did you mean {key!r}"):
            channel.on(type, {key.upper(): "x"}, print)


def test_a_listen_type_in_camel_case() -> None:
    channel: Any = RealtimeClient("wss://x.co", params={"apikey": KEY}).channel("room")
    with pytest.raises(ValueError, match="did you mean 'postgres_changes'"):
        channel.on("postgresChanges", {"event": "*", "schema": "public"}, print)


def test_a_key_of_send_options_in_the_wrong_case() -> None:
    channel: Any = RealtimeClient("wss://x.co", params={"apikey": KEY}).channel("room")
    for wrong, key in (("Timeout", "timeout"), ("timeoutMs", "timeout"), ("Persist", "persist")):
        with pytest.raises(ValueError, match=f"did you mean {key!r}"):
            channel.send({"type": "broadcast", "event": "x"}, {wrong: 1})


@pytest.mark.parametrize(
    "payload",
    [one for one in OBJECTS if isinstance(one, Mapping)],
    ids=repr,
)
def test_a_key_of_a_payload_in_the_wrong_case(payload: Any) -> None:
    for key, name in payload._names.items():
        for wrong in {camel_case(name), name} - {key}:
            with pytest.raises(KeyError, match=f"the key is {key!r}, the attribute {name!r}"):
                payload[wrong]


def test_a_key_of_another_client_in_a_payload() -> None:
    with pytest.raises(KeyError, match=r"'data': here it is the change itself: change\.new"):
        CHANGE["data"]


# -- the package -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["create_client", "postgres_changes_filter"])
def test_an_import_in_camel_case(name: str) -> None:
    wrong = camel_case(name)
    with pytest.raises(ImportError, match=f"has no {wrong!r}; in Python it is {name!r}"):
        exec(f"from supabase_rt import {wrong}")


def test_an_import_of_nothing_is_the_usual_error() -> None:
    assert not hasattr(supabase_rt, "nothingAtAll")
    with pytest.raises(ImportError, match="cannot import name 'nothingAtAll'"):
        exec("from supabase_rt import nothingAtAll")
