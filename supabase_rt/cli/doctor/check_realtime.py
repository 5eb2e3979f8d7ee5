"""Checks of Realtime itself, from the handshake to an event that arrives."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ..connection_arguments import channel_options
from .report import Report

if TYPE_CHECKING:
    from ... import RealtimeClient, SupabaseClient

__all__ = ["check_realtime"]

TOPIC = "supabase-rt-doctor"
POLICIES = (
    "policies on realtime.messages decide: one for select to join, one for insert to send, "
    "each with realtime.topic()"
)


async def check_realtime(
    report: Report,
    supabase: SupabaseClient,
    *,
    timeout: float,
    table: str | None,
    schema: str,
    private: str | None,
) -> None:
    """Check handshake, heartbeat, join, broadcast, database changes and a private topic."""
    from ... import ConnectionFailed

    client = supabase.realtime
    started = time.perf_counter()
    try:
        await asyncio.wait_for(client.connect(), timeout)
    except (ConnectionFailed, TimeoutError) as exc:
        hint = getattr(exc, "hint", "") or "the server accepts connections, and says nothing"
        report.fail("websocket", str(exc) or "no answer in time", hint)
        return
    report.ok("websocket", f"open after {1000 * (time.perf_counter() - started):.0f} ms")
    try:
        if not await _check_heartbeat(report, client, timeout):
            return
        await _check_broadcast(report, supabase, timeout)
        await _check_changes(report, supabase, timeout, schema, table)
        if private is None:
            report.skip("private", "name a topic with --private to check its policies")
        else:
            await _check_private(report, supabase, timeout, private)
    finally:
        await client.remove_all_channels()


async def _check_heartbeat(report: Report, client: RealtimeClient, timeout: float) -> bool:
    answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_heartbeat(status: str, latency: float | None) -> None:
        if status == "ok" and latency is not None and not answered.done():
            answered.set_result(latency)

    client.on("heartbeat", on_heartbeat)
    client.send_heartbeat()
    try:
        latency = await asyncio.wait_for(answered, timeout)
    except TimeoutError:
        advice = "something between swallows frames: a proxy, a VPN, a stalled server"
        report.fail("heartbeat", "sent, but never answered", advice)
        return False
    finally:
        client.off("heartbeat", on_heartbeat)
    report.ok("heartbeat", f"answered in {1000 * latency:.0f} ms")
    return True


def _refused(report: Report, name: str, exc: Exception, remedy: str = "") -> None:
    hint = remedy or getattr(exc, "hint", "") or "see the server's log"
    report.fail(name, str(exc), hint)


async def _check_broadcast(report: Report, supabase: SupabaseClient, timeout: float) -> None:
    from ... import RealtimeError

    channel = supabase.channel(
        TOPIC, channel_options(private=False, broadcast={"self": True, "ack": True})
    )
    started = time.perf_counter()
    try:
        await channel.subscribe(timeout=timeout)
    except RealtimeError as exc:
        remedy = ""
        if getattr(exc, "code", "") == "PrivateOnly":
            remedy = "the project allows private channels only: join with private and a policy"
        _refused(report, "join", exc, remedy)
        report.skip("broadcast", "needs a channel")
        return
    report.ok("join", f"joined in {1000 * (time.perf_counter() - started):.0f} ms")
    started = time.perf_counter()
    echo = channel.wait_for("broadcast", {"event": "echo"}, timeout=timeout)
    try:
        status = await channel.send({"type": "broadcast", "event": "echo", "payload": {}})
        if status != "ok":
            report.fail("broadcast", f"not accepted: {status}", "is a rate limit reached?")
            return
        await echo
    except RealtimeError as exc:
        _refused(report, "broadcast", exc, "sent, but it did not come back: see the server's log")
        return
    report.ok("broadcast", f"came back in {1000 * (time.perf_counter() - started):.0f} ms")


async def _check_changes(
    report: Report, supabase: SupabaseClient, timeout: float, schema: str, table: str | None
) -> None:
    from ... import RealtimeError

    wanted: dict[str, Any] = {"event": "*", "schema": schema}
    if table is not None:
        wanted["table"] = table
    channel = supabase.channel(f"{TOPIC}-changes")
    channel.on("postgres_changes", wanted, lambda: None)
    about = f"{schema}.{table or '*'}"
    started = time.perf_counter()
    try:
        await channel.subscribe(timeout=timeout)
        # Changes may start some seconds after the join.
        await channel.ready(2 * timeout)
    except RealtimeError as exc:
        more = "doctor --db URL looks at the database itself"
        hint = getattr(exc, "hint", "")
        _refused(report, "changes", exc, f"{hint}; {more}" if hint else more)
        return
    report.ok("changes", f"{about} flow after {1000 * (time.perf_counter() - started):.0f} ms")


async def _check_private(
    report: Report, supabase: SupabaseClient, timeout: float, topic: str
) -> None:
    from ... import RealtimeError

    channel = supabase.channel(topic, channel_options(private=True))
    try:
        await channel.subscribe(timeout=timeout)
    except RealtimeError as exc:
        _refused(report, "private", exc, f"may this token read {topic!r}? {POLICIES}")
        return
    report.ok("private", f"{topic!r} may be joined by this token")
