"""The names that ``from supabase_rt import ...`` promises, and the cost of importing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import supabase_rt

NAMES = """
    create_client SupabaseClient RealtimeClient RealtimeChannel ReconnectPolicy
    PostgresChange Broadcast PresenceSync PresenceJoin PresenceLeave SystemMessage
    PostgresChangesFilter postgres_changes_filter
    SubscribeStatus ChannelState ConnectionState HeartbeatStatus ListenType
    RealtimeError ConnectionFailed ConnectionLost GaveUp InvalidState DecodeError AuthError
    SubscribeError TimedOut Refused BindingMismatch SendError
    REALTIME_LISTEN_TYPES REALTIME_SUBSCRIBE_STATES REALTIME_CHANNEL_STATES
    REALTIME_PRESENCE_LISTEN_EVENTS REALTIME_POSTGRES_CHANGES_LISTEN_EVENT
"""
PROMISED = set(NAMES.split())


@pytest.mark.conformance("IX1")
def test_every_promised_name_is_exported() -> None:
    assert set(supabase_rt.__all__) >= PROMISED
    namespace: dict[str, object] = {}
    exec("from supabase_rt import *", namespace)
    assert set(namespace) >= PROMISED


def test_nothing_is_exported_twice() -> None:
    assert len(set(supabase_rt.__all__)) == len(supabase_rt.__all__)


def test_the_version_is_a_version() -> None:
    assert supabase_rt.__version__.split(".")[0].isdigit()


def test_importing_is_silent_and_needs_no_server_extra() -> None:
    code = (
        "import sys; sys.modules['jwt'] = None; import supabase_rt; "
        "assert 'supabase_rt.server' not in sys.modules; "
        "assert 'asyncio' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
