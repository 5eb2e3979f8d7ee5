"""OpenTelemetry spans and metrics of a client (``supabase-rt[otel]``).

::

    from supabase_rt.otel import instrument

    instrument(supabase.realtime, attributes={"bot": "orders"})

Spans: one for each call of a handler, with the handler's own spans as children. One for each
outage of the connection, and one for each rejoin of a channel. Metrics: the duration of handlers,
the latency of heartbeats, and the counts of ``health()``.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "supabase_rt.otel needs OpenTelemetry: pip install 'supabase-rt[otel]'",
        name="opentelemetry",
    ) from None

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from . import (
    Broadcast,
    Health,
    PostgresChange,
    PresenceJoin,
    PresenceLeave,
    PresenceSync,
    RealtimeClient,
    SystemMessage,
    __version__,
)
from .types import CallNext

__all__ = ["instrument"]

KINDS: Final = (
    (PostgresChange, "postgres_changes"),
    (Broadcast, "broadcast"),
    ((PresenceSync, PresenceJoin, PresenceLeave), "presence"),
    (SystemMessage, "system"),
)

COUNTED: Final = (
    ("reconnects", "reconnects", "{reconnect}", "Links that took the place of lost ones"),
    ("joins", "joins", "{join}", "Joins of channels, rejoins included"),
    ("decode_errors", "decode_errors", "{frame}", "Frames that could not be read"),
    ("handler_errors", "handler.errors", "{error}", "Exceptions that handlers raised"),
    ("dropped_events", "handler.dropped", "{event}", "Events that found a handler too slow"),
    ("refused_sends", "sends.refused", "{send}", "Sends refused as too many waited"),
)
"""The counters: field of ``Health``, name, unit and description."""

MEASURED: Final = (
    ("queued_events", "handler.queued", "{event}", "Events that wait for a handler"),
    ("pending_replies", "replies.pending", "{request}", "Requests that are not answered yet"),
)
"""The values that also fall: field of ``Health``, name, unit and description."""

_instrumented: weakref.WeakSet[RealtimeClient] = weakref.WeakSet()


def instrument(
    client: Any,
    *,
    attributes: Mapping[str, str] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Trace and measure ``client`` from now on; a second call for it changes nothing.

    Args:
        client: a ``RealtimeClient`` or ``SupabaseClient``, also a blocking one.
        attributes: added to every span and measurement, to distinguish the clients of a program.
        tracer_provider: the global one by default.
        meter_provider: the global one by default.
    """
    realtime = getattr(client, "realtime", client)
    blocking = getattr(realtime, "_inner", None)
    if isinstance(blocking, RealtimeClient):
        realtime = blocking
    elif not isinstance(realtime, RealtimeClient):
        raise TypeError(f"instrument() takes a RealtimeClient, not {type(client).__name__}")
    if realtime in _instrumented:
        return
    _instrumented.add(realtime)
    tracer = trace.get_tracer("supabase_rt", __version__, tracer_provider)
    meter = metrics.get_meter("supabase_rt", __version__, meter_provider)
    known = dict(attributes or {})
    _trace_handlers(realtime, tracer, meter, known)
    _trace_outages(realtime, tracer, known)
    _measure_heartbeats(realtime, meter, known)
    _measure_health(realtime, meter, known)


def _kind(event: Any) -> str:
    return next((name for types, name in KINDS if isinstance(event, types)), "event")


def _about(event: Any, call_next: CallNext) -> dict[str, str]:
    found = {
        "messaging.system": "supabase_realtime",
        "messaging.operation.type": "process",
        "messaging.destination.name": call_next.topic,
        "code.function.name": call_next.name,
        "supabase_rt.kind": _kind(event),
    }
    if isinstance(event, PostgresChange):
        found["supabase_rt.event"] = str(event.event_type)
        found["supabase_rt.table"] = f"{event.schema}.{event.table}"
    elif isinstance(getattr(event, "event", None), str):
        found["supabase_rt.event"] = str(event.event)
    return found


def _trace_handlers(
    client: RealtimeClient, tracer: trace.Tracer, meter: metrics.Meter, known: dict[str, str]
) -> None:
    took = meter.create_histogram(
        "supabase_rt.handler.duration", "s", "How long handlers take for an event"
    )

    def around(event: Any, call_next: CallNext) -> Any:
        kind = _kind(event)
        measured = {**known, "code.function.name": call_next.name, "supabase_rt.kind": kind}
        span = tracer.start_span(
            f"{kind} {call_next.name}",
            kind=SpanKind.CONSUMER,
            attributes={**known, **_about(event, call_next)},
        )
        started = time.perf_counter()

        def end(error: BaseException | None) -> None:
            failed = {} if error is None else {"error.type": type(error).__name__}
            took.record(time.perf_counter() - started, {**measured, **failed})
            span.end()

        async def go_on(coroutine: Any) -> None:
            try:
                with trace.use_span(span):
                    await coroutine
            except BaseException as exc:
                end(exc)
                raise
            end(None)

        try:
            with trace.use_span(span):
                result = call_next(event)
        except BaseException as exc:
            end(exc)
            raise
        if inspect.iscoroutine(result):
            return go_on(result)
        end(None)
        return None

    client.use(around)


def _trace_outages(client: RealtimeClient, tracer: trace.Tracer, known: dict[str, str]) -> None:
    attempts = 0
    lost_at = time.time()

    def write(name: str, downtime: float, more: Mapping[str, Any]) -> trace.Span:
        begun = time.time_ns() - int(downtime * 1e9)
        return tracer.start_span(name, start_time=begun, attributes={**known, **more})

    def on_reconnecting(attempt: int, delay: float, cause: BaseException) -> None:
        nonlocal attempts, lost_at
        if not attempts:
            lost_at = time.time()
        attempts += 1

    def on_reconnected(downtime: float) -> None:
        nonlocal attempts
        write("reconnect", downtime, {"supabase_rt.attempts": attempts}).end()
        attempts = 0

    def on_gave_up(error: BaseException) -> None:
        nonlocal attempts
        more = {"supabase_rt.attempts": attempts, "error.type": type(error).__name__}
        span = write("reconnect", time.time() - lost_at if attempts else 0.0, more)
        span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end()
        attempts = 0

    def on_resumed(topic: str, downtime: float) -> None:
        write("rejoin", downtime, {"messaging.destination.name": topic}).end()

    client.on("reconnecting", on_reconnecting).on("reconnected", on_reconnected)
    client.on("gave_up", on_gave_up).on("resumed", on_resumed)


def _measure_heartbeats(
    client: RealtimeClient, meter: metrics.Meter, known: dict[str, str]
) -> None:
    latencies = meter.create_histogram(
        "supabase_rt.heartbeat.latency", "s", "From a heartbeat to its answer"
    )

    def on_heartbeat(status: str, latency: float | None) -> None:
        if latency is not None:
            latencies.record(latency, known)

    client.on("heartbeat", on_heartbeat)


def _measure_health(client: RealtimeClient, meter: metrics.Meter, known: dict[str, str]) -> None:
    # A meter keeps its callbacks for ever, so they must hold the client weakly.
    found = weakref.ref(client)

    def observe(look: Callable[[Health], Iterable[Observation]]) -> list[Any]:
        def callback(options: CallbackOptions) -> Iterable[Observation]:
            target = found()
            return [] if target is None else look(target.health())

        return [callback]

    def one(field: str) -> list[Any]:
        return observe(lambda health: [Observation(getattr(health, field), known)])

    for field, name, unit, words in COUNTED:
        meter.create_observable_counter(f"supabase_rt.{name}", one(field), unit, words)
    for field, name, unit, words in MEASURED:
        meter.create_observable_up_down_counter(f"supabase_rt.{name}", one(field), unit, words)
    meter.create_observable_counter(
        "supabase_rt.frames",
        observe(
            lambda health: [
                Observation(health.frames_in, {**known, "network.io.direction": "receive"}),
                Observation(health.frames_out, {**known, "network.io.direction": "transmit"}),
            ]
        ),
        "{frame}",
        "Frames of the socket",
    )
    meter.create_observable_up_down_counter(
        "supabase_rt.channels",
        observe(
            lambda health: [
                Observation(count, {**known, "supabase_rt.state": state})
                for state, count in health.channels.items()
            ]
        ),
        "{channel}",
        "Channels by state",
    )
    meter.create_observable_gauge(
        "supabase_rt.connected",
        observe(lambda health: [Observation(int(health.state == "open"), known)]),
        "1",
        "Whether the socket is open",
    )
