"""Log records have the facts of their text as fields, too."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from supabase_rt import ConnectionLost, RealtimeClient, RealtimeError
from supabase_rt._runtime.log_fields import facts
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import closed_port
from ...support.recorder import Recorder
from ...support.waiting import until

ANY = {"event": "*"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    usual = vars(logging.makeLogRecord({}))
    return {
        name: value
        for name, value in vars(record).items()
        if name not in usual and name not in ("message", "asctime")
    }


def found(caplog: pytest.LogCaptureFixture, text: str) -> dict[str, Any]:
    (record,) = [one for one in caplog.records if text in one.getMessage()]
    return fields(record)


def test_an_error_of_ours_adds_what_it_knows_and_another_its_class_only() -> None:
    class Tricky(Exception):
        code = "a secret"

    assert facts(Tricky("secret"), topic="t") == {"error": "Tricky", "topic": "t"}
    lost = ConnectionLost("x", close_code=1006)
    assert facts(lost) == {"error": "ConnectionLost", "code": "ConnectionLost", "close_code": 1006}
    assert facts(RealtimeError("x", code="C"), count=None) == {
        "error": "RealtimeError",
        "code": "C",
    }


@pytest.mark.parametrize("name", sorted(vars(logging.makeLogRecord({}))))
def test_no_field_hides_one_that_every_record_has(name: str) -> None:
    """``logging`` would refuse such a field only when the record is created."""
    assert name not in {
        "topic", "event", "handler", "host", "error", "code", "close_code", "http_status",
        "status", "attempt", "delay", "count", "size", "seconds", "signal", "table",
    }  # fmt: skip


async def test_a_handler_that_raises(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Any) -> None:
        raise ValueError("no")

    await client.channel("room").on("broadcast", ANY, broken).subscribe()
    server.broadcast("room", "cursor", {})
    await until(lambda: client.health().handler_errors)
    told = found(caplog, "failed: ValueError")
    assert told.pop("handler").endswith("broken")
    assert told == {"error": "ValueError", "topic": "realtime:room", "event": "cursor"}


async def test_a_handler_that_is_too_slow_at_the_end(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(drain_timeout=0)

    begun = asyncio.Event()

    async def stuck() -> None:
        begun.set()
        await asyncio.Event().wait()

    await client.channel("room").on("broadcast", ANY, stuck, maxsize=1).subscribe()
    server.broadcast("room", "x", {})
    await begun.wait()
    for _ in range(3):
        server.broadcast("room", "x", {})
    await until(lambda: client.health().dropped_events == 2)
    await client.disconnect()
    dropped = [fields(one) for one in caplog.records if "too slow" in one.getMessage()]
    assert {one["topic"] for one in dropped} == {"realtime:room"}
    assert sum(one["count"] for one in dropped) == 2
    cut_off = found(caplog, "did not end in time")
    assert (cut_off["topic"], cut_off["count"]) == ("realtime:room", 1)


async def test_a_handler_with_nothing_to_do_ends_in_no_time(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client, seen = make_client(drain_timeout=0), Recorder()

    async def quick(event: Any) -> None:
        seen(event)

    await client.channel("room").on("broadcast", ANY, quick).subscribe()
    server.broadcast("room", "x", {})
    await seen.count(1)
    await client.disconnect()
    assert "did not end" not in caplog.text


async def test_a_link_that_is_lost_and_cannot_be_made(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "supabase_rt")
    client = make_client()
    await client.channel("room").subscribe()
    server.faults.close(1012)
    await until(lambda: client.health().reconnects == 1)
    told = found(caplog, "connection to")
    assert told.pop("host")
    assert told == {"error": "ConnectionLost", "code": "ConnectionLost", "close_code": 1012}
    again = found(caplog, "trying again")
    assert (again["attempt"], again["close_code"]) == (1, 1012)
    assert again["delay"] >= 0
    lost = [fields(one) for one in caplog.records if "CHANNEL_ERROR" in one.getMessage()]
    assert [(one["topic"], one["status"]) for one in lost] == [("realtime:room", "CHANNEL_ERROR")]


async def test_a_broadcast_over_http_that_fails(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(f"http://127.0.0.1:{closed_port()}")
    message = {"type": "broadcast", "event": "x", "payload": {}}
    assert await client.channel("room").send(message) == "error"
    told = found(caplog, "broadcast over HTTP failed")
    assert told.pop("error")
    assert told == {"topic": "realtime:room", "event": "x"}
