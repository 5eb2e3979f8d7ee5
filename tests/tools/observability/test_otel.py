"""Spans and metrics, read from OpenTelemetry's in-memory exporters."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from supabase_rt import RealtimeClient, ReconnectPolicy, SupabaseClient, create_client, sync
from supabase_rt.otel import instrument
from supabase_rt.server import LocalRealtime
from supabase_rt.sync.loop_thread import call

from ...support.clients import MakeClient
from ...support.waiting import until

ANY = {"event": "*"}


@dataclass
class Seen:
    """A tracer and a meter provider, and their exported data."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def instrument(self, client: Any, **options: Any) -> None:
        instrument(client, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self, start: str = "") -> list[ReadableSpan]:
        return [one for one in self.exporter.get_finished_spans() if one.name.startswith(start)]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def value(self, name: str) -> Any:
        (point,) = self.points()[f"supabase_rt.{name}"]
        return point.value


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.meters.shutdown()


async def test_each_handled_event_is_a_span_around_what_the_handler_does(
    server: LocalRealtime, client: RealtimeClient, seen: Seen
) -> None:
    server.table("todos", {"id": "int8"})
    seen.instrument(client, attributes={"bot": "orders"})
    tracer = seen.tracers.get_tracer("test")

    async def slow(event: Any) -> None:
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inside slow"):
            pass

    def plain(change: Any) -> None:
        with tracer.start_as_current_span("inside plain"):
            pass

    def threaded(event: Any) -> None:
        with tracer.start_as_current_span("inside threaded"):
            pass

    channel = client.channel("room").on("broadcast", {"event": "a"}, slow)
    channel.on("broadcast", {"event": "b"}, threaded, thread=True)
    todos: Any = {"event": "*", "schema": "public", "table": "todos"}
    await channel.on("postgres_changes", todos, plain).subscribe()
    await channel.ready()
    assert [one.direct is not None for one in channel._handlers.bound] == [False, False, True]
    server.broadcast("room", "a", {})
    server.broadcast("room", "b", {})
    server.insert("todos", {"id": 1})
    await until(lambda: len(seen.spans()) == 6)
    by_name = {span.name.split(".")[-1]: span for span in seen.spans()}
    for name in ("slow", "plain", "threaded"):
        span, inside = by_name[name], by_name[f"inside {name}"]
        assert inside.parent is not None
        assert inside.parent.span_id == span.context.span_id
        assert (span.kind, span.status.status_code) == (SpanKind.CONSUMER, StatusCode.UNSET)
    about = dict(by_name["plain"].attributes or {})
    assert about.pop("code.function.name", "").endswith("plain")  # type: ignore[union-attr]
    assert about == {
        "bot": "orders",
        "messaging.system": "supabase_realtime",
        "messaging.operation.type": "process",
        "messaging.destination.name": "realtime:room",
        "supabase_rt.kind": "postgres_changes",
        "supabase_rt.event": "INSERT",
        "supabase_rt.table": "public.todos",
    }
    assert (by_name["slow"].attributes or {})["supabase_rt.event"] == "a"
    durations = seen.points()["supabase_rt.handler.duration"]
    assert [point.count for point in durations] == [1, 1, 1]
    assert all(point.attributes["bot"] == "orders" for point in durations)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_that_raises_is_a_span_with_an_error(
    server: LocalRealtime, client: RealtimeClient, seen: Seen, is_async: bool
) -> None:
    seen.instrument(client)

    def plain(event: Any) -> None:
        raise LookupError("no")

    async def slow(event: Any) -> None:
        plain(event)

    await client.channel("room").on("broadcast", ANY, slow if is_async else plain).subscribe()
    server.broadcast("room", "x", {})
    await until(lambda: seen.spans())
    (span,) = seen.spans()
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    (took,) = seen.points()["supabase_rt.handler.duration"]
    assert took.attributes["error.type"] == "LookupError"
    assert client.health().handler_errors == seen.value("handler.errors") == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_an_outage_and_what_was_joined_again_are_spans(
    server: LocalRealtime, client: RealtimeClient, seen: Seen
) -> None:
    seen.instrument(client)
    await client.channel("room").subscribe()
    server.faults.cut()
    await until(lambda: len(seen.spans()) == 2)
    (reconnect,), (rejoin,) = seen.spans("reconnect"), seen.spans("rejoin")
    assert (reconnect.attributes or {})["supabase_rt.attempts"] == 1
    assert dict(rejoin.attributes or {}) == {"messaging.destination.name": "realtime:room"}
    for span in (reconnect, rejoin):
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        assert span.status.status_code is StatusCode.UNSET
    assert (seen.value("reconnects"), seen.value("joins")) == (1, 2)


async def test_giving_up_is_an_outage_with_an_error(
    server: LocalRealtime, make_client: MakeClient, seen: Seen
) -> None:
    client = make_client(reconnect=ReconnectPolicy.disabled())
    seen.instrument(client)
    await client.channel("room").subscribe()
    server.faults.cut()
    await until(lambda: seen.spans())
    (span,) = seen.spans()
    assert (span.name, span.status.status_code) == ("reconnect", StatusCode.ERROR)
    assert (span.attributes or {})["error.type"] == "GaveUp"


async def test_what_health_counts_is_measured(
    server: LocalRealtime, client: RealtimeClient, seen: Seen
) -> None:
    seen.instrument(client)
    gate = asyncio.Event()

    async def handler() -> None:
        await gate.wait()

    await client.channel("room").on("broadcast", ANY, handler, maxsize=2).subscribe()
    for _ in range(5):
        server.broadcast("room", "x", {})
        await until(lambda: client.health().frames_in > 1)
    client.send_heartbeat()
    await until(lambda: client.health().last_heartbeat_latency is not None)
    health, points = client.health(), seen.points()
    frames = {
        point.attributes["network.io.direction"]: point.value
        for point in points["supabase_rt.frames"]
    }
    assert frames == {"receive": health.frames_in, "transmit": health.frames_out}
    (state,) = points["supabase_rt.channels"]
    assert (state.attributes["supabase_rt.state"], state.value) == ("joined", 1)
    assert (seen.value("connected"), seen.value("handler.queued")) == (1, 2)
    assert seen.value("handler.dropped") == health.dropped_events > 0
    assert seen.value("replies.pending") == 0
    (latency,) = points["supabase_rt.heartbeat.latency"]
    assert latency.count == 1
    gate.set()


async def test_two_calls_for_one_client_count_once(server: LocalRealtime, seen: Seen) -> None:
    supabase: SupabaseClient = create_client(server.url, server.anon_key)
    seen.instrument(supabase)
    seen.instrument(supabase.realtime)
    await supabase.channel("room").on("broadcast", ANY, lambda: None).subscribe()
    server.broadcast("room", "x", {})
    await until(lambda: seen.spans())
    assert len(seen.spans()) == 1
    assert seen.value("joins") == 1
    await supabase.realtime.remove_all_channels()


def test_a_blocking_client_has_the_same_spans(seen: Seen) -> None:
    """Spans of handlers in threads are children of the handler's span, too."""
    tracer = seen.tracers.get_tracer("test")

    def handler(event: Any) -> None:
        with tracer.start_as_current_span("inside"):
            done.set()

    done = threading.Event()
    server = call(LocalRealtime().start)
    try:
        with sync.create_client(server.url, server.anon_key) as supabase:
            seen.instrument(supabase)
            supabase.channel("room").on("broadcast", ANY, handler).subscribe()
            call(server.broadcast, "room", "x", {})
            assert done.wait(20)
    finally:
        call(server.stop)
    inside, around = seen.spans()
    assert inside.parent is not None
    assert inside.parent.span_id == around.context.span_id
    assert around.name.endswith("handler")


def test_a_client_that_is_gone_is_neither_kept_nor_measured(seen: Seen) -> None:
    client = RealtimeClient("ws://127.0.0.1:9", params={"apikey": "key"})
    seen.instrument(client)
    assert seen.value("joins") == 0
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert "supabase_rt.joins" not in seen.points()


def test_what_is_no_client_is_refused(seen: Seen) -> None:
    with pytest.raises(TypeError, match="takes a RealtimeClient, not int"):
        seen.instrument(5)


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "supabase_rt.otel")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'supabase-rt\[otel\]'"):
        __import__("supabase_rt.otel")
