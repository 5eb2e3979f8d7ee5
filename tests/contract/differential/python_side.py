"""Plays one scenario with our client; the counterpart of runner.mjs, step for step."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from supabase_rt import (
    Broadcast,
    RealtimeChannel,
    RealtimeClient,
    ReconnectPolicy,
    postgres_changes_filter,
)

from .scenario import SCALE, TIMEOUT, Scenario
from .scripted import Stage
from .waking import Signal

__all__ = ["play"]

JS = ReconnectPolicy.supabase_js()
POLICY = dataclasses.replace(
    JS, steps=tuple(step * SCALE for step in JS.steps), initial_backoff=0.1, stable_after=0.0
)
"""The delays of supabase-js on the fast clock; the count starts again with every link."""


async def play(scenario: Scenario, base: str, stage: Stage, delay: float) -> dict[str, Any]:
    """Returns the record of our client for ``scenario``, begun after ``delay`` seconds."""
    await asyncio.sleep(delay)
    found = Play(scenario, f"{base}/py/{scenario.id}/realtime/v1", stage)
    try:
        return await found.run()
    except Exception:
        return {"failed": traceback.format_exc()}
    finally:
        for client in found.clients:
            await client.disconnect()


class Play:
    """The state of one run."""

    def __init__(self, scenario: Scenario, url: str, stage: Stage) -> None:
        self.scenario = scenario
        self.url = url
        self.stage = stage
        self.things: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.hooks = 0
        self.clients: list[RealtimeClient] = []
        self.statuses: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[dict[str, Any]] = []
        self.results: dict[str, Any] = {}
        self.heartbeats: list[str] = []
        self.tries: list[int] = []
        self.logs: list[tuple[str, str]] = []
        self.tokens = 0
        self.changed = Signal()
        self.waiters: list[asyncio.Task[None]] = []

    async def run(self) -> dict[str, Any]:
        self.things["client"] = self.make(self.scenario.client)
        for at, step in enumerate(self.scenario.steps):
            found = self.step(step)
            if isinstance(found, Awaitable):
                found = await found
            if found is False:
                self.results[f"stuck at {at}"] = step
        await asyncio.sleep(0.05)
        record = {
            "statuses": self.statuses,
            "calls": self.calls,
            "results": self.results,
            "heartbeats": self.heartbeats,
            "tries": self.tries,
            "logs": self.logs,
        }
        # A copy, because events at the end of the client are not part of the scenario.
        record = dict(json.loads(json.dumps(record, default=_plain)))
        record["seen"] = json.loads(json.dumps(await self.stage.do_seen()))
        for waiter in self.waiters:
            waiter.cancel()
        if self.waiters:
            await asyncio.wait(self.waiters)
        return record

    def make(self, options: dict[str, Any]) -> RealtimeClient:
        values = {key: self.value(value) for key, value in options.items()}
        found = RealtimeClient(
            self.url, **{"params": {"apikey": "KEY"}, "reconnect": POLICY, **_scaled(values)}
        )
        self.clients.append(found)
        return found

    # -- values --------------------------------------------------------------------------

    def value(self, found: Any) -> Any:
        if isinstance(found, list | tuple):
            return [self.value(item) for item in found]
        if not isinstance(found, dict):
            return found
        for key, make in self._makers().items():
            if key in found:
                return make(found)
        return {key: self.value(item) for key, item in found.items()}

    def _makers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "$seconds": lambda found: found["$seconds"] * SCALE,
            "$bytes": lambda found: bytes.fromhex(found["$bytes"]),
            "$thing": lambda found: self.things[found["$thing"]],
            "$tokens": lambda found: lambda: self.token(**found),
            "$delays": lambda found: lambda tries: self.delay(found["$delays"], tries),
            "$heartbeats": lambda _: lambda status, _latency: self.beat(status),
            "$logger": lambda found: (
                lambda kind, text, _: self.logged(found["$logger"], kind, text)
            ),
            "$filter": lambda found: _filter(found["$filter"]),
        }

    async def token(self, after: float = 0, **found: list[str | None]) -> str | None:
        tokens = found["$tokens"]
        token = tokens[min(self.tokens, len(tokens) - 1)]
        self.tokens += 1
        if after:
            await asyncio.sleep(after * SCALE)
        if token == "!":
            raise ValueError("no token today")
        return token

    def delay(self, delays: list[float], tries: int) -> float:
        self.tries.append(tries)
        return delays[min(tries, len(delays)) - 1] * SCALE

    def beat(self, status: str) -> None:
        self.heartbeats.append(str(status))
        self.changed.fire()

    def logged(self, word: str, kind: str, text: str) -> None:
        if word in text:
            self.logs.append((kind, text))

    # -- steps ---------------------------------------------------------------------------

    def step(self, step: Any) -> Any:
        op, *args = step
        return getattr(self, f"do_{op}")(*args)

    def do_server(self, op: str, *args: Any) -> Awaitable[Any]:
        return self.stage.do(op, *args)

    def do_channel(self, name: str, topic: str, opts: Any = None) -> None:
        self.options[name] = self.value(opts)

        def make() -> None:
            arguments = () if opts is None else (self.options[name],)
            self.things[name] = self.things["client"].channel(topic, *arguments)

        self.note(f"channel {name}", make)

    def do_direct(self, name: str, topic: str, opts: Any = None) -> None:
        self.things[name] = RealtimeChannel(topic, self.value(opts), self.things["client"])

    def do_on(
        self, name: str, kind: str, filter: Any, handler: str, about: dict[str, Any] | None = None
    ) -> None:
        about = about or {}

        def handle(*args: Any) -> None:
            call: dict[str, Any] = {"handler": handler, "payload": _dict(args[0])}
            if about.get("reads"):
                call["state"] = self.things[name].presence_state()
            if about.get("counts"):
                call["args"] = len(args)
            self.calls.append(call)
            self.changed.fire()
            if about.get("throws"):
                raise ValueError("thrown by a handler")

        self.note(f"on {handler}", lambda: self.things[name].on(kind, self.value(filter), handle))

    def do_subscribe(self, name: str, about: dict[str, Any] | None = None) -> None:
        about = about or {}
        reactions = dict(about.get("react", {}))
        label = about.get("label", name)
        told = self.statuses.setdefault(label, [])
        channel = self.things[name]

        def callback(status: str, error: BaseException | None) -> None:
            message = None if error is None else str(error)
            told.append({"status": status, "error": message, "state": channel.state})
            self.changed.fire()
            for step in reactions.pop(str(status), ()):
                self.step(step)

        seconds = about["timeout"] * SCALE if "timeout" in about else None
        self.note(f"subscribe {label}", lambda: channel.subscribe(callback, seconds))

    def do_throw(self) -> None:
        raise ValueError("thrown by a callback")

    def do_call(self, result: str, target: str, method: str, *args: Any) -> None:
        self.results[result] = "pending"
        try:
            found = getattr(self.things[target], method)(*(self.value(arg) for arg in args))
        except Exception as exc:
            self.results[result] = {"error": str(exc)}
            return
        if isinstance(found, Awaitable) and not isinstance(found, RealtimeChannel):
            self.waiters.append(asyncio.ensure_future(self.settle(result, found)))
        else:
            self.results[result] = {"value": None if isinstance(found, RealtimeChannel) else found}

    async def settle(self, result: str, found: Awaitable[Any]) -> None:
        try:
            self.results[result] = {"value": await found}
        except Exception as exc:
            self.results[result] = {"error": str(exc)}
        self.changed.fire()

    def do_await(self, result: str) -> Awaitable[bool]:
        return self.changed.until(lambda: self.results.get(result, "pending") != "pending")

    def do_construct(self, result: str, options: dict[str, Any]) -> None:
        self.note(result, lambda: self.make({"params": {}, **options}))

    def do_read(self, result: str, target: str, name: str) -> None:
        found = getattr(self.things[target], name)
        if callable(found):
            found = found()
        self.results[result] = [item.topic for item in found] if name == "channels" else found

    def do_same(self, result: str, one: str, other: str) -> None:
        self.results[result] = self.things[one] is self.things[other]

    def do_options(self, result: str, name: str) -> None:
        self.results[result] = self.options[name]

    def do_hooks(self, result: str) -> None:
        before, self.hooks = (
            self.hooks,
            len(self.clients[0]._parts.dispatcher.listeners.handlers()),
        )
        self.results[result] = self.hooks - before

    async def do_ask(self, result: str, op: str, *args: Any) -> None:
        self.results[result] = await self.stage.do(op, *args)

    def do_status(self, label: str, status: str, count: int = 1) -> Awaitable[bool]:
        def told() -> int:
            return sum(item["status"] == status for item in self.statuses.get(label, ()))

        return self.changed.until(lambda: told() >= count)

    def do_calls(self, handler: str, count: int = 1) -> Awaitable[bool]:
        return self.changed.until(
            lambda: sum(call["handler"] == handler for call in self.calls) >= count
        )

    def do_heartbeats(self, status: str, count: int = 1) -> Awaitable[bool]:
        return self.changed.until(lambda: self.heartbeats.count(status) >= count)

    async def do_sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * SCALE)

    def note(self, name: str, work: Callable[[], Any]) -> None:
        """Keep the exception that ``work`` raises as its result."""
        try:
            work()
        except Exception as exc:
            self.results[name] = {"error": str(exc)}


def _scaled(options: dict[str, Any]) -> dict[str, Any]:
    """The default durations of supabase-js, on the fast clock."""
    return {"timeout": TIMEOUT * SCALE, "heartbeat_interval": 25 * SCALE, **options}


def _filter(calls: list[list[Any]]) -> Any:
    builder = postgres_changes_filter()
    for name, *args in calls:
        builder = getattr(builder, {"in": "in_", "is": "is_", "not": "not_"}.get(name, name))(*args)
    return builder


def _dict(payload: Any) -> Any:
    """A payload in the JS shape; bytes stay bytes, which ``to_dict`` writes as base64."""
    if isinstance(payload, Broadcast) and isinstance(payload.payload, bytes):
        return dict(payload)
    return payload.to_dict()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return str(value)
