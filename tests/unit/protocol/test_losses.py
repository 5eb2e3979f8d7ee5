from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.channel_machine import crash_error, mismatch_error, over_error
from supabase_rt.errors import BindingMismatch, InvalidState


@pytest.mark.conformance("NE3", "NE7")
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"reason": "channel_crash"}, "channel error: channel_crash"),
        ({}, "channel error: transport failure"),
        ({"reason": None}, "channel error: transport failure"),
        ({"code": True}, "channel error: transport failure"),
        (None, "channel error: connection lost"),
        (7, "channel error: connection lost"),
        ("text", "text"),
        ({"code": 1006}, "socket closed: 1006"),
        ({"code": 1006, "reason": ""}, "socket closed: 1006"),
        ({"code": 1006, "reason": "Network Failure"}, "socket closed: 1006 (Network Failure)"),
    ],
)
def test_a_crash_is_told_with_the_servers_reason_or_the_words_of_supabase_js(
    payload: Any, text: str
) -> None:
    error = crash_error(payload, "realtime:room")
    assert (str(error), error.topic, error.retryable) == (text, "realtime:room", True)


def test_a_mismatch_has_the_text_of_supabase_js_and_the_difference_as_hint() -> None:
    error = mismatch_error("entry 0", "realtime:room")
    assert isinstance(error, BindingMismatch)
    assert str(error) == "mismatch between server and client bindings for postgres changes"
    assert "entry 0" in error.hint
    assert not error.retryable


def test_a_channel_that_is_over_says_how_to_make_another() -> None:
    error = over_error("it is over", "room")
    assert isinstance(error, InvalidState)
    assert "client.channel('room')" in error.hint
