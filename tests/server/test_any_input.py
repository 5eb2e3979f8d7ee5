"""No input of a client makes the server fail, or disturbs another client."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .kit import Client, World

KEYS = (
    "config broadcast presence private postgres_changes access_token event payload type key enabled"
    " ack self replay since limit schema table filter select replication_ready"
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "track", "untrack", "broadcast", "x", "sb_x", "true", "é☃", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TOPICS = st.sampled_from(["realtime:room", "realtime:a", "realtime:", "phoenix", "", "foo:bar"])
EVENTS = st.sampled_from(
    ["phx_join", "phx_leave", "heartbeat", "broadcast", "presence", "access_token", "nonsense", ""]
)
REFS = st.none() | st.sampled_from(["1", "2", ""]) | st.integers(0, 3)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "broadcast": VALUES,
        "presence": VALUES,
        "postgres_changes": st.lists(VALUES, max_size=2) | VALUES,
        "private": VALUES,
    },
)
PAYLOADS = (
    VALUES
    | st.builds(lambda config: {"config": config}, CONFIGS)
    | st.builds(
        lambda event, payload: {"event": event, "payload": payload},
        st.sampled_from(["track", "untrack", "TRACK", "x"]),
        VALUES,
    )
)


@st.composite
def frames(draw: st.DrawFn, vsn: str) -> str | bytes:
    """Generates frames that are valid, nearly valid, or not frames at all."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.text(max_size=20))
    if kind == 1:
        return draw(st.binary(max_size=20))
    join_ref, ref, topic, event = draw(REFS), draw(REFS), draw(TOPICS), draw(EVENTS)
    payload = draw(PAYLOADS)
    if kind == 2 and vsn == "2.0.0":
        return _binary(draw, topic)
    if vsn == "2.0.0":
        return json.dumps([join_ref, ref, topic, event, payload][: 4 if kind == 3 else 5])
    found: dict[str, Any] = {"topic": topic, "event": event, "payload": payload, "ref": ref}
    if kind == 3:
        del found[draw(st.sampled_from(list(found)))]
    return json.dumps(found | {"join_ref": join_ref})


def _binary(draw: st.DrawFn, topic: str) -> bytes:
    """Generates binary frames of kind 0 or 3 with any body."""
    body = draw(st.binary(max_size=10) | st.just(b'{"x":1}'))
    name = topic.encode()
    if draw(st.booleans()):
        head = bytes([3, 1, 1, len(name), 1, 0, draw(st.integers(0, 2))])
        return head + b"11" + name + b"e" + body
    return bytes([0, 1, 1, len(name), 9]) + b"11" + name + b"broadcast" + body


def checked(client: Client, witness: Client, data: str | bytes) -> None:
    client.raw(data)
    witness.heard()
    reply = witness.push("phoenix", "heartbeat", {})
    assert len(reply) == 1
    assert "realtime:room" in witness.session.channels


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@given(data=st.data())
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_frames_at_all(data: st.DataObject, vsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    world = World(presence_limit=None)
    witness, client = world.client("2.0.0"), world.client(vsn)
    witness.join(presence={"enabled": True})
    client.join(broadcast={"ack": True, "self": True}, presence={"enabled": True})
    for frame in data.draw(st.lists(frames(vsn), max_size=8)):
        checked(client, witness, frame)
        world.advance(0.5)
    client.session.end()
    assert world.backend.limits.users == 1
    assert [record.message for record in caplog.records] == []
    caplog.clear()
