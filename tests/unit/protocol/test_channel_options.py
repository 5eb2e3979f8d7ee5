from __future__ import annotations

import math
from typing import Any

import pytest

from supabase_rt import postgres_changes_filter
from supabase_rt._protocol.channel_options import (
    ChannelConfig,
    check_filter,
    check_keys,
    check_listen_type,
    check_seconds,
    send_options,
)
from supabase_rt.enums import ListenType

from .support import config

BROADCAST, PRESENCE = ListenType.BROADCAST, ListenType.PRESENCE
CHANGES, SYSTEM = ListenType.POSTGRES_CHANGES, ListenType.SYSTEM
REPLAY = {"since": 1000, "limit": 5}


def of(**section: Any) -> ChannelConfig:
    return config({"config": section})


def payload(
    found: ChannelConfig, *, presence: bool = False, since: int | None = None
) -> dict[str, Any]:
    return found.join_payload(presence=presence, postgres_changes=[], since=since)


# -- keys and seconds --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("presense", "did you mean 'presence'?"),
        ("heartbeatInterval", "did you mean 'heartbeat_interval'?"),
        ("heartbeatIntervalMs", "did you mean 'heartbeat_interval'?"),
        ("zzz", "known: presence, heartbeat_interval"),
        (7, "known: presence, heartbeat_interval"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: Any, advice: str) -> None:
    with pytest.raises(ValueError, match="in options") as raised:
        check_keys("options", [key], ["presence", "heartbeat_interval"])
    assert advice in str(raised.value)


def test_known_keys_pass_and_no_keys_are_known_of_nothing() -> None:
    check_keys("options", ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="known: none"):
        check_keys("options", ["a"], [])


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), (86_400, 86_400.0)])
def test_seconds_are_positive_numbers(value: Any, seconds: float) -> None:
    assert check_seconds("timeout", value) == seconds


@pytest.mark.parametrize("value", [0, -1, True, "1", None, math.nan, math.inf, 1e10, 10**400])
def test_anything_else_is_no_number_of_seconds(value: Any) -> None:
    with pytest.raises(ValueError, match="timeout is a positive number of seconds"):
        check_seconds("timeout", value)


# -- channel options ---------------------------------------------------------------------


@pytest.mark.conformance("CL1", "CL2")
@pytest.mark.parametrize(
    "opts", [None, {}, {"config": {}}, {"config": None}, {"config": {"private": None}}]
)
def test_the_defaults_are_those_of_supabase_js(opts: Any) -> None:
    assert config(opts).params == {
        "config": {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "private": False,
        }
    }


@pytest.mark.conformance("CL7")
def test_a_given_section_replaces_its_defaults_as_in_supabase_js() -> None:
    found = of(broadcast={"replication_ready": True}, presence={"key": "me"})
    assert found.params["config"]["broadcast"] == {"replication_ready": True}
    assert payload(found)["broadcast"] == {"replication_ready": True}
    assert found.params["config"]["presence"] == {"key": "me"}
    assert not found.ack
    assert not found.presence_enabled


def test_options_can_be_read() -> None:
    found = of(
        private=True,
        broadcast={"ack": True, "replay": REPLAY},
        presence={"enabled": True},
    )
    assert (found.private, found.ack, found.presence_enabled) == (True, True, True)
    assert found.replay == REPLAY
    assert config().replay is None


@pytest.mark.parametrize(
    ("opts", "text"),
    [
        ("room", "channel options is a dict, not str"),
        ({"broadcast": {"ack": True}}, "put 'broadcast' under 'config'"),
        ({"private": True}, "put 'private' under 'config'"),
        ({"confg": {}}, "did you mean 'config'?"),
        ({"config": []}, "config is a dict, not list"),
        ({"config": {"brodcast": {}}}, "did you mean 'broadcast'?"),
        ({"config": {"broadcast": True}}, "config.broadcast is a dict, not bool"),
        ({"config": {"broadcast": {"acks": True}}}, "did you mean 'ack'?"),
        ({"config": {"broadcast": {"ack": "yes"}}}, "config.broadcast.ack is True or False"),
        ({"config": {"broadcast": {"self": 1}}}, "config.broadcast.self is True or False"),
        (
            {"config": {"broadcast": {"replication_ready": "yes"}}},
            "config.broadcast.replication_ready is True or False",
        ),
        ({"config": {"presence": {"enabled": 1}}}, "config.presence.enabled is True or False"),
        ({"config": {"presence": {"key": 7}}}, "config.presence.key is a string"),
        ({"config": {"private": "yes"}}, "config.private is True or False"),
        (
            {"config": {"postgres_changes_options": {"wait": 1}}},
            "config.postgres_changes_options.wait is True or False",
        ),
        (
            {"config": {"postgres_changes_options": {"timeout": 1.5}}},
            "timeout is a whole number of milliseconds",
        ),
    ],
)
def test_an_option_that_is_wrong_is_named(opts: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        config(opts)
    assert text in str(raised.value)


# -- replay ------------------------------------------------------------------------------


def test_replay_needs_a_private_channel() -> None:
    with pytest.raises(ValueError, match="replay on public channel 'realtime:room'"):
        of(broadcast={"replay": REPLAY})


def test_a_moment_with_fractions_is_cut_to_milliseconds() -> None:
    found = of(private=True, broadcast={"replay": {"since": 1755772800000.75}})
    assert found.replay == {"since": 1755772800000}


@pytest.mark.conformance("NX19")
@pytest.mark.parametrize(
    ("replay", "text"),
    [
        ({}, "needs 'since'"),
        ([], "is a dict"),
        ({"since": "yesterday"}, "since is a whole number of milliseconds since 1970"),
        ({"since": True}, "since is a whole number"),
        ({"since": -1}, "since is a whole number"),
        ({"since": math.nan}, "since is a whole number"),
        ({"since": math.inf}, "since is a whole number"),
        ({"since": 1, "limit": 0}, "limit is 1 to 25"),
        ({"since": 1, "limit": 26}, "limit is 1 to 25"),
        ({"since": 1, "limit": "5"}, "limit is a whole number of messages"),
        ({"since": 1, "limit": 2.5}, "limit is a whole number of messages"),
        ({"since": 1, "until": 2}, "unknown key 'until'"),
    ],
)
def test_a_replay_that_the_server_would_refuse_raises_at_once(replay: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        of(private=True, broadcast={"replay": replay})
    assert text in str(raised.value)


# -- the join payload --------------------------------------------------------------------


def test_the_join_payload_has_the_sections_of_the_protocol() -> None:
    assert payload(config()) == {
        "broadcast": {"ack": False, "self": False},
        "presence": {"key": "", "enabled": False},
        "postgres_changes": [],
        "private": False,
    }


@pytest.mark.conformance("CL5", "CR17")
def test_a_presence_handler_enables_presence_and_leaves_the_params_alone() -> None:
    found = of(presence={"key": "me"})
    assert payload(found, presence=True)["presence"] == {"key": "me", "enabled": True}
    assert found.params["config"]["presence"] == {"key": "me"}


@pytest.mark.conformance("CL6")
def test_presence_can_be_enabled_without_a_handler() -> None:
    assert payload(of(presence={"enabled": True}))["presence"]["enabled"] is True


def test_a_later_since_goes_into_the_payload_and_leaves_the_params_alone() -> None:
    found = of(private=True, broadcast={"replay": dict(REPLAY)})
    assert payload(found, since=2000)["broadcast"]["replay"] == {"since": 2000, "limit": 5}
    assert found.replay == REPLAY


@pytest.mark.conformance("NX1")
def test_options_of_the_changes_are_sent_only_where_given() -> None:
    options = {"wait": True, "timeout": 5000}
    assert "postgres_changes_options" not in payload(config())
    sent = payload(of(postgres_changes_options=options))
    assert sent["postgres_changes_options"] == options


@pytest.mark.conformance("NX2")
@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (None, 0.0),
        ({"wait": False, "timeout": 60_000}, 0.0),
        ({"wait": True}, 25.0),
        ({"wait": True, "timeout": 60_000}, 70.0),
    ],
    ids=["none", "no wait", "default wait", "long wait"],
)
def test_a_join_that_waits_for_the_feed_is_given_time(options: Any, seconds: float) -> None:
    assert of(postgres_changes_options=options).join_timeout_extension == seconds


# -- the same topic again ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "asked"),
    [
        ({"private": True}, {}),
        ({"private": True}, {"private": True}),
        ({}, {"private": False}),
        ({"broadcast": {"self": True}}, {"presence": {"enabled": False}}),
        ({"presence": {"key": "me"}}, {"presence": {"enabled": False}}),
        ({}, {"presence": {"key": ""}}),
        ({}, {"postgres_changes_options": {"wait": False}}),
    ],
)
def test_options_left_out_or_equal_never_differ(mine: Any, asked: Any) -> None:
    assert of(**mine).difference(of(**asked)) is None


@pytest.mark.parametrize(
    ("mine", "asked", "difference"),
    [
        ({}, {"private": True}, "private is False, asked for True"),
        ({"private": True}, {"private": False}, "private is True, asked for False"),
        ({}, {"broadcast": {"self": True}}, "broadcast.self is False, asked for True"),
        (
            {"presence": {"key": "me"}},
            {"presence": {"key": "you"}},
            "presence.key is 'me', asked for 'you'",
        ),
        (
            {},
            {"postgres_changes_options": {"wait": True}},
            "postgres_changes_options.wait is None, asked for True",
        ),
        (
            {"private": True, "broadcast": {"replay": REPLAY}},
            {"private": True, "broadcast": {"replay": {**REPLAY, "since": 7}}},
            "broadcast.replay.since is 1000, asked for 7",
        ),
    ],
)
def test_options_given_and_different_are_named(mine: Any, asked: Any, difference: str) -> None:
    assert of(**mine).difference(of(**asked)) == difference


# -- listening ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("broadcast", BROADCAST),
        ("Postgres_Changes", CHANGES),
        (ListenType.PRESENCE, PRESENCE),
        ("SYSTEM", SYSTEM),
    ],
)
def test_a_listen_type_is_known_in_any_case(given: Any, found: ListenType) -> None:
    assert check_listen_type(given) is found


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("postgresChanges", "did you mean 'postgres_changes'? known"),
        ("presense", "did you mean 'presence'? known"),
        ("zzz", "'zzz'; known: 'broadcast'"),
        (None, "unknown listen type None"),
        (7, "unknown listen type 7"),
    ],
)
def test_an_unknown_listen_type_is_named_with_the_nearest(given: Any, advice: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_listen_type(given)
    assert advice in str(raised.value)


TODOS = {"event": "*", "schema": "public", "table": "todos"}


@pytest.mark.parametrize(
    ("type", "filter", "found"),
    [
        (BROADCAST, {"event": "shout"}, {"event": "shout"}),
        (PRESENCE, {"event": "SYNC"}, {"event": "SYNC"}),
        (PRESENCE, {"event": "*"}, {"event": "*"}),
        (SYSTEM, None, {}),
        (SYSTEM, {}, {}),
        (SYSTEM, {"event": "anything"}, {}),
        (CHANGES, {"event": "*", "schema": "public"}, {"event": "*", "schema": "public"}),
        (CHANGES, {"event": "insert", "table": "todos"}, {"event": "insert", "table": "todos"}),
        (
            CHANGES,
            {**TODOS, "filter": None, "select": ("id", "name")},
            {**TODOS, "select": ["id", "name"]},
        ),
        (
            CHANGES,
            {**TODOS, "filter": postgres_changes_filter().eq("id", 1)},
            {**TODOS, "filter": "id=eq.1"},
        ),
        (
            CHANGES,
            {"event": "*", "schema": "public", "filter": postgres_changes_filter()},
            {"event": "*", "schema": "public", "filter": ""},
        ),
    ],
)
def test_a_filter_is_checked_and_copied(type: ListenType, filter: Any, found: Any) -> None:
    assert check_filter(type, filter) == found


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"schema": "public"}, "'table'"), ({"table": "todos"}, "'schema'")],
)
@pytest.mark.parametrize("row_filter", ["id=eq.1", postgres_changes_filter().eq("id", 1)])
def test_a_row_filter_without_schema_and_table_is_refused_at_the_call(
    given: dict[str, str], missing: str, row_filter: Any
) -> None:
    with pytest.raises(ValueError, match=f"'filter' needs a name as {missing} beside it"):
        check_filter(CHANGES, {"event": "*", **given, "filter": row_filter})


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"schema": "public"}, "'table'"),
        ({"table": "todos"}, "'schema'"),
        ({"schema": "*"}, "'schema' and 'table'"),
        ({"schema": "public", "table": "*"}, "'table'"),
    ],
)
def test_columns_of_more_than_one_table_are_refused_at_the_call(
    given: dict[str, str], missing: str
) -> None:
    with pytest.raises(ValueError, match=f"'select' needs a name as {missing} beside it"):
        check_filter(CHANGES, {"event": "*", **given, "select": ["id"]})
    assert check_filter(CHANGES, {"event": "*", **given, "select": []})["select"] == []


@pytest.mark.parametrize(
    ("type", "filter", "text"),
    [
        (BROADCAST, None, 'the filter of \'broadcast\' is a dict such as {"event": "*"}'),
        (PRESENCE, "sync", 'the filter of \'presence\' is a dict such as {"event": "sync"}'),
        (BROADCAST, {}, "needs 'event'"),
        (BROADCAST, {"event": 7}, "'event' is a string"),
        (BROADCAST, {"evnt": "x"}, "did you mean 'event'?"),
        (PRESENCE, {"event": "enter"}, "unknown event 'enter'; known: *, sync, join, leave"),
        (CHANGES, {"event": "upsert", "schema": "public"}, "known: *, INSERT, UPDATE, DELETE"),
        (CHANGES, None, '"table": "messages"}, not None'),
        (CHANGES, {"event": "*"}, "needs 'schema', 'table' or both"),
        (CHANGES, {"event": "*", "schema": ""}, "'schema' is a name"),
        (CHANGES, {"event": "*", "table": 7}, "'table' is a name"),
        (CHANGES, {"event": "*", "table": "t", "filter": 7}, "'filter' is a string such as"),
        (CHANGES, {"event": "*", "table": "t", "select": "id"}, "'select' is a list"),
        (CHANGES, {"event": "*", "table": "t", "select": 7}, "'select' is a list"),
        (CHANGES, {"event": "*", "table": "t", "select": [7]}, "'select' is a list"),
        (SYSTEM, {"evnt": "x"}, "did you mean 'event'?"),
    ],
)
def test_a_filter_that_is_wrong_is_named(type: ListenType, filter: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_filter(type, filter)
    assert text in str(raised.value)


# -- sending -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opts", "timeout", "persist", "found"),
    [
        (None, None, None, (None, None)),
        ({"timeout": 5}, None, None, (5.0, None)),
        ({"timeout": 5}, 7, None, (7.0, None)),
        ({"persist": True}, None, None, (None, True)),
        ({"persist": True}, None, False, (None, False)),
        (None, None, {"ttl": 60}, (None, {"ttl": 60})),
        ({"persist": {"ttl": None}}, None, None, (None, {})),
    ],
)
def test_options_of_a_call_come_from_the_dict_or_from_keywords(
    opts: Any, timeout: Any, persist: Any, found: Any
) -> None:
    assert send_options(opts, timeout, persist) == found


@pytest.mark.parametrize(
    ("opts", "text"),
    [
        ({"timeot": 5}, "did you mean 'timeout'?"),
        ({"timeout": 0}, "timeout is a positive number of seconds"),
        ({"persist": "yes"}, "persist is a dict"),
        ({"persist": {"tll": 5}}, "did you mean 'ttl'?"),
        ({"persist": {"ttl": -5}}, "ttl is a whole number of seconds"),
        ("fast", "opts is a dict"),
    ],
)
def test_a_send_option_that_is_wrong_is_named(opts: Any, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        send_options(opts, None, None)
    assert text in str(raised.value)
