"""One run: a publisher, a server, a network with faults, a client, and the oracle's verdict.

Everything runs in one loop, mostly a virtual one, with the client's default options. ``play``
raises ``AssertionError`` with the seed, the schedule and the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import aiohttp

from supabase_rt import RealtimeChannel, RealtimeClient, ReconnectPolicy
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.waiting import our_tasks
from .oracle import WireLog, accepts, describe
from .proxy import FaultProxy
from .schedule import Step, make_schedule
from .steps import LabFaults

__all__ = ["BOUND", "Laboratory", "Report", "play"]

ROOMS = 3
BOUND = 250.0
"""Seconds from the end of the faults to a full recovery, by the default policy.

It is the sum of the following, with some time for the joins at the end:

* a stuck heartbeat (25 + 25, and 30 more while a join is unanswered)
* the longest pause between attempts (30), a token (10), and an attempt (10)
* a join without an answer (30), the pause after it (30), and the pause after a rate limit (30)
"""
FAILURES = ("CHANNEL_ERROR", "TIMED_OUT")


@dataclasses.dataclass
class Report:
    """The measurements of a run."""

    seed: int
    events: int = 0
    links: int = 0
    recovery: float = 0.0
    """Seconds from the end of the faults to the last SUBSCRIBED after it."""
    decode_errors: int = 0
    losses: int = 0
    """The number of times that a channel was reported as lost or not joined."""
    hours: float = 0.0


class Room:
    """A channel, and the events that its bindings got."""

    def __init__(
        self, client: RealtimeClient, number: int, clock: Callable[[], float], opens: list[str]
    ) -> None:
        self.statuses: list[tuple[float, str, int]] = []
        """The time, the event, and the number of ``open`` and ``close`` events before it."""
        self.got: dict[tuple[str, str], list[int]] = {}
        self.present: list[str] = []
        self._clock, self._opens = clock, opens
        config: Any = {"broadcast": {"ack": True}, "presence": {"key": f"k{number}"}}
        self.channel: RealtimeChannel = client.channel(f"room-{number}", {"config": config})
        changes = {"event": "INSERT", "schema": "public", "table": f"table_{number}"}
        self.channel.on("broadcast", {"event": "*"}, self._fail)
        heard: Any = (("broadcast", {"event": "*"}), ("postgres_changes", changes))
        for event, filters in heard:
            self.channel.on(event, filters, self._plain(event))
            self.channel.on(event, filters, self._slow(event))
        self.channel.on("presence", {"event": "join"}, self._joined)

    def _fail(self, payload: Any) -> None:
        raise RuntimeError("a handler that always fails")

    def _joined(self, payload: Any) -> None:
        self.present.append(payload.key)

    @staticmethod
    def _number(event: str, payload: Any) -> int:
        found: int = payload.payload["n"] if event == "broadcast" else payload.new["n"]
        return found

    def _plain(self, event: str) -> Callable[[Any], None]:
        got = self.got.setdefault((event, "plain"), [])
        return lambda payload: got.append(self._number(event, payload))

    def _slow(self, event: str) -> Callable[[Any], Any]:
        got = self.got.setdefault((event, "slow"), [])

        async def handler(payload: Any) -> None:
            await asyncio.sleep(0.003)
            got.append(self._number(event, payload))

        return handler

    def told(self, status: str, error: BaseException | None) -> None:
        self.statuses.append((self._clock(), str(status), len(self._opens)))


class Laboratory:
    """The parts of a run, as an async context manager."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        self.rng = random.Random(f"laboratory {seed}")
        self.vsn = self.rng.choice(("1.0.0", "2.0.0", "2.0.0"))
        self.options = {
            "reconnect": self.rng.choice(
                (ReconnectPolicy(), ReconnectPolicy(), ReconnectPolicy.supabase_js())
            ),
            "access_token": self._token if self.rng.random() < 0.4 else None,
            **options,
        }
        self.token_mode = "good"
        self.report = Report(seed)
        self.rooms: list[Room] = []
        self.sent: list[Any] = []
        self.opens: list[str] = []
        self.errors: list[str] = []
        self.beats: list[tuple[float, str]] = []
        self.healed_at = 0.0
        self.pace = 1.4
        """Seconds between two events, more or less."""
        self._numbers = 0
        self._stack = contextlib.AsyncExitStack()
        self._publisher: asyncio.Task[None] | None = None

    # -- build and take down -------------------------------------------------------------

    async def __aenter__(self) -> Laboratory:
        enter = self._stack.enter_async_context
        self.clock = asyncio.get_running_loop().time
        self.began_at = self.clock()
        self.server = await enter(LocalRealtime())
        self.http = await enter(aiohttp.ClientSession())
        self.proxy = await enter(FaultProxy(self.server.port))
        self.log = WireLog(self.vsn)
        self.proxy.watcher = self.log.watch
        self.faults = LabFaults(self)
        self.client = RealtimeClient(
            f"ws://127.0.0.1:{self.proxy.port}/realtime/v1",
            params={"apikey": self.server.anon_key},
            vsn=self.vsn,
            **self.options,
        )
        self._stack.push_async_callback(self.client.disconnect)
        self.client.on("open", lambda: self.opens.append("open"))
        self.client.on("close", lambda: self.opens.append("close"))
        for name in ("error", "gave_up"):
            self.client.on(name, lambda error: self.errors.append(repr(error)))
        self.client.on("heartbeat", lambda status: self.beats.append((self.clock(), str(status))))
        self.rooms = [Room(self.client, number, self.clock, self.opens) for number in range(ROOMS)]
        for room in self.rooms:
            room.channel.subscribe(room.told)
        for room in self.rooms:
            await room.channel
        for number in range(ROOMS):
            # Starts the tasks of the slow handlers, which then live until the end.
            await self.publish(number, "insert")
            await self.publish(number, "http")
        await self.until(lambda: all(any(room.got.values()) for room in self.rooms), 5.0, "events")
        await asyncio.sleep(0.1)
        self.baseline = self._tasks()
        self._publisher = asyncio.get_running_loop().create_task(self._publish())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._publisher is not None:
            self._publisher.cancel()
            await asyncio.wait([self._publisher])
        await self.proxy.heal()
        await self._stack.aclose()

    async def _token(self) -> str | None:
        """The token callback, which works, fails or hangs as the schedule says."""
        match self.token_mode:
            case "raises":
                raise OSError("no token today")
            case "hangs":
                await asyncio.sleep(10**6)
            case "is None":
                return None
            case "is cancelled":
                raise asyncio.CancelledError
        return self.server.token()

    # -- the other side ------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 2.0) * self.pace)
            await self.publish(self.rng.randrange(ROOMS), self.rng.choice(("http", "insert")))

    async def publish(self, room: int, how: str) -> int:
        """Publish a numbered event; returns the number."""
        self._numbers += 1
        number = self._numbers
        if how == "insert":
            await self.server.insert(f"table_{room}", {"id": number, "n": number})
            return number
        message = {"topic": f"room-{room}", "event": "tick", "payload": {"n": number}}
        with contextlib.suppress(aiohttp.ClientError):
            async with self.http.post(
                f"{self.server.url}/realtime/v1/api/broadcast",
                json={"messages": [message]},
                headers={"apikey": self.server.anon_key},
            ) as answer:
                assert answer.status == 202, answer.status
        return number

    # -- running -------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait by the loop's clock, real or virtual."""
        end = self.clock() + seconds
        while not condition():
            assert self.clock() < end, f"{what}: not within {seconds:g} s"
            await asyncio.sleep(0.05)

    async def run(self, steps: Sequence[Step]) -> None:
        """Do the steps, end all faults, and check the result."""
        for pause, name, arguments in steps:
            await asyncio.sleep(pause)
            await getattr(self.faults, name)(*arguments)
        await self.heal()
        await self.recover()
        await self.probe()
        self.judge()

    async def heal(self) -> None:
        """End all faults."""
        self.server.faults.reset()
        self.token_mode = "good"
        await self.proxy.heal()
        self.healed_at = self.clock()

    def is_joined(self) -> bool:
        return all(room.channel.state == "joined" for room in self.rooms)

    def _is_steady(self) -> bool:
        """Returns True if all channels are joined and a heartbeat was answered since then."""
        if not self.is_joined():
            return False
        sent = [at for at, status in self.beats if status == "sent" and at > self.healed_at]
        return bool(sent) and any(at >= sent[0] and now == "ok" for at, now in self.beats)

    async def recover(self) -> None:
        """Wait until everything is well, within the policy's bound."""
        try:
            await self.until(self._is_steady, BOUND, "recovery")
        except AssertionError as exc:
            states = [str(room.channel.state) for room in self.rooms]
            what = f"{exc}: {self.client.connection_state()}, {states}, {self.errors[-3:]}"
            raise AssertionError(what) from None
        late = [at for room in self.rooms for at, *_ in room.statuses if at > self.healed_at]
        self.report.recovery = max(late, default=self.healed_at) - self.healed_at

    async def probe(self) -> None:
        """Publish an event for every binding after the recovery; each must arrive."""
        assert self._publisher is not None
        self._publisher.cancel()
        await asyncio.wait([self._publisher])
        last = {}
        for number, room in enumerate(self.rooms):
            last[room, "postgres_changes"] = await self.publish(number, "insert")
            last[room, "broadcast"] = await self.publish(number, "http")
        await self.until(
            lambda: all(
                got[-1:] == [last[room, event]]
                for room in self.rooms
                for (event, _), got in room.got.items()
            ),
            20.0,
            "the last event on every binding",
        )
        await self._probe_presence()
        await self.until(
            lambda: self.client.health().pending_replies == 0 and all(s.done() for s in self.sent),
            60.0,
            "an end of every request",
        )
        # The client stops waiting for a token callback after the timeout.
        await self.until(lambda: "supabase_rt:token" not in our_tasks(), 11.0, "the last token")

    @staticmethod
    def _tasks() -> list[str]:
        """The writer task exists only while the peer is slow to read."""
        return [name for name in our_tasks() if name != "supabase_rt:writer"]

    async def _probe_presence(self) -> None:
        async with RealtimeClient(
            self.server.ws_url, params={"apikey": self.server.anon_key}, timeout=30.0
        ) as witness:
            for number, room in enumerate(self.rooms):
                options: ChannelOptions = {"config": {"presence": {"key": "witness"}}}
                channel = await witness.channel(f"room-{number}", options).subscribe()
                assert await channel.track({"here": True}) == "ok"
                await self.until(lambda room=room: "witness" in room.present, 20.0, "presence")  # type: ignore[misc]

    # -- judging -------------------------------------------------------------------------

    def judge(self) -> None:
        """Check everything that must hold after the recovery."""
        live = {link.number for link in self.proxy.links}
        for room in self.rooms:
            topic = room.channel.topic
            joins = self.log.joins[topic]
            for (event, kind), got in room.got.items():
                assert accepts(joins, event, got, live), (
                    f"{topic} {event} ({kind}):\n{describe(joins, event, got, live)}"
                )
            self._judge_statuses(topic, [status for _, status, _ in room.statuses])
            for one, two in pairwise(room.statuses):
                assert not self._is_told_twice(one, two), f"{topic}: {one}, then {two}"
        assert all(one != two for one, two in pairwise(self.opens)), self.opens
        tasks = self._tasks()
        assert tasks == self.baseline, f"tasks: {tasks}, at first: {self.baseline}"
        self.report.losses = sum(
            status in FAILURES for room in self.rooms for _, status, _ in room.statuses
        )
        self.report.hours = (self.clock() - self.began_at) / 3600
        self.report.events = self._numbers
        self.report.links = self.proxy.made
        self.report.decode_errors = self.client.health().decode_errors

    def _is_told_twice(self, one: tuple[float, str, int], two: tuple[float, str, int]) -> bool:
        """Returns True if two failures belong to one loss: no join fits between them."""
        if (
            one[1] not in FAILURES
            or two[1] not in FAILURES
            or "open" in self.opens[one[2] : two[2]]
        ):
            return False
        # On one link the next join waits for the policy's first backoff, 0.5 s less its jitter.
        # Without a link there is no such wait.
        return two[0] - one[0] < 0.37 or self.opens[one[2] - 1] == "close"

    def _judge_statuses(self, topic: str, names: list[str]) -> None:
        welcomed = names.count("SUBSCRIBED")
        assert set(names) <= {"SUBSCRIBED", *FAILURES}, names
        assert names[-1] == "SUBSCRIBED", names
        assert ("SUBSCRIBED", "SUBSCRIBED") not in pairwise(names), names
        assert welcomed <= len(self.log.joins[topic]), f"{welcomed} times joined: {names}"


async def play(seed: int, steps: Sequence[Step] | None = None, **options: Any) -> Report:
    """Run one schedule; a failure says how to play it again."""
    chosen = make_schedule(seed) if steps is None else steps
    # The jitter of the client's policy, seeded because the same seed must bring the same run.
    random.seed(seed)
    try:
        async with Laboratory(seed, **options) as lab:
            await lab.run(chosen)
            await lab.client.disconnect()
            assert our_tasks() == []
            return lab.report
    except Exception as exc:
        listed = "\n".join(f"    {step}" for step in chosen)
        raise AssertionError(f"seed {seed}: {type(exc).__name__}: {exc}\n{listed}") from exc
