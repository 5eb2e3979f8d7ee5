"""The tour of the PyPI package ``realtime``: vsn 1.0.0, as far as it implements it.

test_tour.py runs it as a separate program, with the protocol of ``child.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

from realtime import AsyncRealtimeClient
from realtime.types import RealtimeAcknowledgementStatus, RealtimePostgresChangesListenEvent

about = json.loads(sys.argv[1])
numbers = itertools.count()
ANY = RealtimePostgresChangesListenEvent.All
INSERT = RealtimePostgresChangesListenEvent.Insert
answers: dict[int, asyncio.Future[Any]] = {}


def say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def ask(op: str, *args: object) -> Any:
    number = next(numbers)
    answer = answers[number] = asyncio.get_running_loop().create_future()
    say({"id": number, "op": op, "args": args})
    return await answer


async def listen() -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async for line in reader:
        message = json.loads(line)
        answer = answers.pop(message["id"])
        if "error" in message:
            answer.set_exception(RuntimeError(message["error"]))
        else:
            answer.set_result(message["value"])


async def until(what: str, check: Callable[[], object]) -> None:
    for _ in range(1500):
        if check():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"never came: {what}")


def client(key: str | None = None) -> AsyncRealtimeClient:
    return AsyncRealtimeClient(about["url"], key or about["anon"], initial_backoff=0.2)


def options(**config: Any) -> Any:
    base = {"broadcast": {"ack": False, "self": False}, "presence": {"key": "", "enabled": False}}
    return {"config": {**base, "private": False, **config}}


class Statuses:
    """The subscribe callback."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, status: Any, error: Exception | None) -> None:
        self.seen.append(str(status.value))

    async def joined(self, times: int = 1) -> None:
        await until("SUBSCRIBED", lambda: self.seen.count("SUBSCRIBED") >= times)


async def broadcast() -> object:
    one, two = client(), client()
    heard: dict[str, list[Any]] = {"one": [], "two": []}
    both = options(broadcast={"ack": True, "self": True})
    a, b = one.channel("peer-broadcast", both), two.channel("peer-broadcast", options())
    a.on_broadcast("chat", lambda message: heard["one"].append(message["payload"]))
    b.on_broadcast("chat", lambda message: heard["two"].append(message["payload"]))
    here, there = Statuses(), Statuses()
    await a.subscribe(here)
    await b.subscribe(there)
    await here.joined()
    await there.joined()
    acks: list[str] = []
    message = {"type": "broadcast", "event": "chat", "payload": {"n": 1}}
    push = await a.push("broadcast", message)
    push.receive(RealtimeAcknowledgementStatus.Ok, lambda *_: acks.append("ok"))
    # Frames of two sockets have no order.
    await until("its own", lambda: heard["one"] and acks)
    await b.send_broadcast("chat", {"n": 2})
    await until("both", lambda: len(heard["one"]) == 2 and heard["two"] and acks)
    await b.http_send("chat", {"n": 3})
    await until("the one over HTTP", lambda: len(heard["one"]) == 3)
    await a.unsubscribe()
    await one.close()
    await two.close()
    return {"acks": acks, **heard}


async def presence() -> object:
    one, two = client(), client()
    events: list[Any] = []
    a = one.channel("peer-presence", options(presence={"key": "ann", "enabled": True}))
    b = two.channel("peer-presence", options(presence={"key": "bob", "enabled": True}))
    a.on_presence_sync(lambda: None)
    b.on_presence_join(lambda key, current, new: events.append(["join", key]))
    b.on_presence_leave(lambda key, current, left: events.append(["leave", key]))
    here, there = Statuses(), Statuses()
    await a.subscribe(here)
    await b.subscribe(there)
    await here.joined()
    await there.joined()
    await a.track({"status": "here"})
    await until("ann", lambda: "ann" in b.presence_state())
    seen: Any = b.presence_state()
    state = {key: [meta["status"] for meta in metas] for key, metas in seen.items()}
    await a.untrack()
    await until("ann gone", lambda: "ann" not in b.presence_state())
    await one.close()
    await two.close()
    return {"state": state, "events": events}


async def changes() -> object:
    rows: dict[str, list[Any]] = {"all": [], "big": []}
    room, one = "peer-changes", client()
    system: list[str] = []
    channel = one.channel(room, options())

    def big(payload: Any) -> None:
        rows["big"].append(payload["data"]["record"]["body"])

    channel.on_postgres_changes(
        ANY,
        lambda payload: rows["all"].append(payload["data"]["type"]),
        filter=f"room=eq.{room}",
        schema="public",
        table="messages",
    )
    channel.on_postgres_changes(
        INSERT,
        big,
        filter=f"room=eq.{room},n=gt.1",
        schema="public",
        table="messages",
    )
    channel.on_system(lambda payload: system.append(payload.message))
    statuses = Statuses()
    await channel.subscribe(statuses)
    await statuses.joined()
    await until("Subscribed to PostgreSQL", lambda: system)
    await ask(
        "sql", f"insert into messages(room, body, n) values ('{room}','a',1), ('{room}','b',2)"
    )
    await ask("sql", f"update messages set n = 20 where room = '{room}' and n = 2")
    await ask("sql", f"delete from messages where room = '{room}' and n = 1")
    await until("the rows", lambda: len(rows["all"]) == 4 and rows["big"])
    await one.close()
    return {"system": system, **rows}


async def private() -> object:
    one, two, outsider = client(), client(), client()
    heard: list[Any] = []
    refused, here, there = Statuses(), Statuses(), Statuses()
    await outsider.channel("private-room", options(private=True)).subscribe(refused)
    await until("the refusal", lambda: refused.seen)
    await one.set_auth(about["member"])
    await two.set_auth(about["member"])
    a = one.channel("private-room", options(private=True))
    b = two.channel("private-room", options(private=True))
    b.on_broadcast("peer", lambda message: heard.append(message["payload"]))
    await a.subscribe(here)
    await b.subscribe(there)
    await here.joined()
    await there.joined()
    await a.send_broadcast("peer", {"secret": 1})
    await until("the secret", lambda: heard)
    for each in (one, two, outsider):
        await each.close()
    return {"refused": refused.seen[0], "heard": heard}


async def token() -> object:
    room, one = "peer-token", client()
    notes: list[str] = []
    system: list[str] = []
    channel = one.channel(room, options())

    def note(payload: Any) -> None:
        if payload["data"]["record"]["note"].startswith(room):
            notes.append(payload["data"]["record"]["note"])

    channel.on_postgres_changes(ANY, note, table="private_notes", schema="public")
    marks: list[Any] = []
    channel.on_postgres_changes(
        ANY, marks.append, table="messages", schema="public", filter=f"room=eq.{room}"
    )
    channel.on_system(lambda payload: system.append(payload.message))
    statuses = Statuses()
    await channel.subscribe(statuses)
    await until("the subscription", lambda: len(system) == 1)
    insert = f"insert into private_notes(owner, note) values ('{about['owner']}', '{room} %s')"
    await ask("sql", insert % "as anon")
    # Changes come in order. If this event is here, the one before it was filtered out.
    await ask("sql", f"insert into messages(room, body, n) values ('{room}', 'mark', 1)")
    await until("the mark", lambda: marks)
    await one.set_auth(about["member"])
    await until("the new subscription", lambda: len(system) == 2)
    await ask("sql", insert % "as member")
    await until("the note", lambda: notes)
    await one.close()
    return notes


async def restart() -> object:
    one, statuses = client(), Statuses()
    heard: list[int] = []
    channel = one.channel("peer-restart", options(broadcast={"ack": False, "self": True}))
    channel.on_broadcast("x", lambda message: heard.append(message["payload"]["n"]))
    await channel.subscribe(statuses)
    await statuses.joined()
    await channel.send_broadcast("x", {"n": 1})
    await until("the first", lambda: heard)
    await ask("restart")
    await statuses.joined(2)
    await channel.send_broadcast("x", {"n": 2})
    await until("the second", lambda: len(heard) == 2)
    await one.close()
    return {"heard": heard, "statuses": statuses.seen}


async def main() -> None:
    listening = asyncio.ensure_future(listen())
    results: dict[str, object] = {}

    async def run(step: Callable[[], Any]) -> None:
        try:
            results[step.__name__] = await step()
        except Exception as exc:
            results[step.__name__] = {"failed": repr(exc)}

    await asyncio.gather(*map(run, (broadcast, presence, changes, private, token)))
    # The last step, because it cuts all sockets.
    await run(restart)
    listening.cancel()
    say({"results": results})


if __name__ == "__main__":
    asyncio.run(main())
