"""``health().to_prometheus()``, read by the parser of Prometheus's own client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supabase_rt import ChannelState, ConnectionState, Health, RealtimeClient
from supabase_rt._client.health import METRICS
from supabase_rt.server import LocalRealtime

from ...support.waiting import until

KNOWN = {
    "state": ConnectionState.OPEN,
    "connected_since": 1700000000.25,
    "last_message_at": 1700000001.5,
    "last_heartbeat_latency": 0.012,
    "reconnects": 2,
    "frames_in": 30,
    "frames_out": 20,
    "decode_errors": 1,
    "stale_frames": 0,
    "unknown_frames": 0,
    "handler_errors": 3,
    "dropped_events": 4,
    "queued_events": 5,
    "joins": 6,
    "refused_sends": 0,
    "pending_replies": 1,
}


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_number_is_there_with_its_type_and_its_help() -> None:
    health = Health(**KNOWN, channels={"joined": 2}, last_system_error="not a metric")  # type: ignore[arg-type]
    text = health.to_prometheus()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for field, name, kind, words in METRICS:
        family = families[f"supabase_rt_{name}".removesuffix("_total")]
        assert (family.type, family.documentation) == (kind, words)
        assert [sample.value for sample in family.samples] == [KNOWN[field]]
    numbers = {name for name, value in KNOWN.items() if not isinstance(value, str)}
    assert {field for field, *_ in METRICS} == numbers
    assert "not a metric" not in text
    found = parsed(text)
    states = {
        state: found["supabase_rt_connection_state", (("state", state),)]
        for state in ConnectionState
    }
    assert states == {**dict.fromkeys(ConnectionState, 0), ConnectionState.OPEN: 1}
    channels = {state: found["supabase_rt_channels", (("state", state),)] for state in ChannelState}
    assert channels == {**dict.fromkeys(ChannelState, 0), ChannelState.JOINED: 2}


def test_each_metric_is_introduced_once_before_its_samples() -> None:
    """The format requires all lines of a metric together, and a line feed at the end."""
    text = Health(**KNOWN).to_prometheus({"bot": "x"})  # type: ignore[arg-type]
    seen: list[str] = []
    for line in text.splitlines():
        name = line.split("{")[0].split()[2 if line.startswith("#") else 0]
        if line.startswith("# HELP"):
            assert name not in seen
            seen.append(name)
        assert name == seen[-1]
    assert text.endswith("\n")


async def test_what_is_not_known_yet_is_left_out(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    before = parsed(client.health().to_prometheus())
    assert ("supabase_rt_connected_since_timestamp_seconds", ()) not in before
    assert before["supabase_rt_frames_received_total", ()] == 0
    await client.channel("room").subscribe()
    client.send_heartbeat()
    await until(lambda: client.health().last_heartbeat_latency is not None)
    after = parsed(client.health().to_prometheus())
    assert after["supabase_rt_connected_since_timestamp_seconds", ()] > 1.7e9
    assert after["supabase_rt_heartbeat_latency_seconds", ()] > 0
    assert after["supabase_rt_joins_total", ()] == 1


@given(st.dictionaries(st.sampled_from(["bot", "_zone", "A1"]), st.text(), max_size=3))
def test_labels_of_any_content_come_back(labels: dict[str, str]) -> None:
    text = Health(**KNOWN).to_prometheus(labels)  # type: ignore[arg-type]
    for name, found in parsed(text):
        assert {key: value for key, value in found if key != "state"} == labels, name


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "__a", "state", "ü", "a\n"])
def test_a_name_that_no_label_can_have_is_refused(name: str) -> None:
    health: Any = Health(**KNOWN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be the name of a label"):
        health.to_prometheus({name: "x"})
