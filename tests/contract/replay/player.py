"""The server of a recording: it sends a recorded frame when our client has sent the recorded frame
before it.

The steps are taken in the recorded order, over all sockets. A ``send`` waits until our client has
written a frame of the same topic and event. A ``recv`` is sent with our refs in place of the
recorded ones. Nothing waits for time. So a driver makes the calls of a user in the order of the
recording. If our client never performs a step, the test fails with the number of that step.

A client names its recorded socket by a header, and reconnects under the same name: ``A`` becomes
``A2`` if the recording has that name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from aiohttp import web

from supabase_rt import RealtimeClient, ReconnectPolicy

from ...support.waiting import until
from .frames import CUT_OFF, Frame, contains, placeholders, read
from .link import Link
from .recordings import Step, load

__all__ = ["AT_ONCE", "NEVER_AGAIN", "Player", "play"]

T = TypeVar("T")

STEP_TIMEOUT = 5.0
"""Real seconds that a driver gets for a step; only a mistake takes that long."""
NEVER_AGAIN = ReconnectPolicy(
    initial_backoff=3600.0, max_backoff=3600.0, jitter=0.0, final_after=0.0
)
"""A refused channel does not come back by itself while the recording lasts."""
AT_ONCE = ReconnectPolicy(initial_backoff=0.001, max_backoff=0.01, jitter=0.0)

Skip = Callable[[Step], bool]


@dataclass
class Request:
    """An HTTP request of our client, refused handshakes included, until it is answered."""

    request: web.Request
    body: bytes
    answer: asyncio.Future[web.Response] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def tag(self) -> str:
        return self.request.headers.get("x-conn", "")

    @property
    def path(self) -> str:
        return unquote(self.request.rel_url.raw_path)


class Player:
    """Plays one recording; ``async with play(name) as player``."""

    def __init__(self, name: str, *, skip: Skip | None = None, hold: str = "") -> None:
        self.recording = load(name)
        self.links: dict[str, Link] = {}
        self.clients: dict[str, RealtimeClient] = {}
        self._made: list[RealtimeClient] = []
        self.posts: list[tuple[dict[str, Any], Request]] = []
        self.handshakes: dict[str, str] = {}
        self._steps = _without_the_end(_kept(self.recording.steps, skip))
        self._at = 0
        self._hold = hold
        self._go = asyncio.Event()
        self._news = asyncio.Event()
        self._requests: list[Request] = []
        self._port = 0
        self._asked: Request | None = None
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        self._site: web.TCPSite | None = None

    # -- the driver's side ---------------------------------------------------------------

    def client(self, conn: str, **options: Any) -> RealtimeClient:
        """A client for a recorded socket: its URL, its key, its vsn."""
        about = self.recording.opened(conn).about
        if "url" in about:
            url = urlsplit(about["url"])
            path, params = url.path, dict(parse_qsl(url.query))
        else:
            path, params = about["path"], dict(about["params"])
        vsn = params.pop("vsn")
        client = RealtimeClient(
            self.url(path.removesuffix("/websocket")),
            **{
                "params": params,
                "vsn": vsn,
                "headers": {"x-conn": conn},
                "reconnect": NEVER_AGAIN,
                **options,
            },
        )
        self.clients.setdefault(conn, client)
        self._made.append(client)
        return client

    def url(self, path: str = "/socket") -> str:
        """An endpoint of this server."""
        return f"ws://127.0.0.1:{self._port}{path}"

    def release(self) -> None:
        """Continue from the step at which the player holds."""
        self._go.set()

    async def end(self) -> None:
        """Wait until all steps are played and all clients have read them; compare the frames that
        they wrote.
        """
        await self._until(lambda: self._at >= len(self._steps) or None, "the end")
        for tag, client in self.clients.items():
            links = [link for link in self.links.values() if link.tag == tag]
            if client.is_connected():
                await until(lambda c=client, p=links: _is_read(c, p))  # type: ignore[misc]
        unlike = self.unlike()
        assert not unlike, "\n".join(unlike)

    def frames(self, conn: str) -> list[Frame]:
        """Returns all frames that our client wrote to a recorded socket, in order."""
        return list(self.links[conn].arrived)

    def extra(self) -> dict[str, list[tuple[str, str]]]:
        """Returns topics and events of frames that our clients wrote in addition to the
        recording.
        """
        return {
            conn: [frame.kind for frame in link.waiting]
            for conn, link in self.links.items()
            if link.waiting and not conn.endswith("+")
        }

    def unlike(self) -> list[str]:
        """Returns our frames whose payload differs from the recorded one (a join may contain
        more).
        """
        found = []
        for link in self.links.values():
            for recorded, ours in link.matched:
                payload = placeholders(ours.payload)
                if recorded.payload is CUT_OFF or recorded.payload == payload:
                    continue
                if ours.event == "phx_join" and contains(payload, recorded.payload):
                    continue
                found.append(f"{link.conn}: {recorded.raw!r:.300} but ours: {ours.raw!r:.300}")
        return found

    # -- the server's side ---------------------------------------------------------------

    async def start(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop_listening(self) -> None:
        assert self._site is not None
        await self._site.stop()

    async def stop(self) -> None:
        """End the clients, then the server."""
        for client in self._made:
            await client.disconnect()
        for request in self._requests:
            request.answer.set_result(web.Response(status=503))
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        found = Request(request, await request.read())
        conn = self._conn_for(found) if request.method == "GET" else None
        if conn is not None:
            self.handshakes[conn] = request.rel_url.raw_path_qs
            link = self.links[conn] = Link(conn, found.tag, self._news.set)
            return await link.serve(request)
        self._requests.append(found)
        self._news.set()
        return await found.answer

    def _conn_for(self, found: Request) -> str | None:
        """Returns the next recorded socket of a client that names its socket by a header.

        A client that reconnects more often than was recorded gets a silent socket, ``A+``.
        """
        if not found.tag:
            return None
        for step in self.recording.of("open"):
            tags = (step.conn, step.conn.rstrip("0123456789"))
            if found.tag in tags and step.conn not in self.links:
                return step.conn
        return f"{found.tag}+"

    async def _until(self, find: Callable[[], T | None], what: object) -> T:
        """Returns the result of ``find`` as soon as there is one."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                while (found := find()) is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        else:
            return found
        raise AssertionError(f"still waiting for {what}; of the client: {self.extra()}")

    async def run(self) -> None:
        """Take all steps."""
        steps: dict[str, Callable[[Step], Any]] = {
            "closed": self._closed,
            "send": self._send,
            "recv": self._recv,
            "http_req": self._http_request,
            "http_resp": self._http_response,
            "note": self._note,
            "check": self._note,
        }
        for step in self._steps:
            if step.direction in steps:
                await steps[step.direction](step)
            self._at += 1
        self._news.set()

    async def _link(self, step: Step) -> Link:
        def find() -> Link | None:
            found = self.links.get(step.conn)
            return found if found is not None and found.ws is not None else None

        return await self._until(find, step)

    def _first(self, fits: Callable[[Request], bool]) -> Request | None:
        found = next((request for request in self._requests if fits(request)), None)
        if found is not None:
            self._requests.remove(found)
        return found

    async def _closed(self, step: Step) -> None:
        link = await self._link(step)
        if step.about["code"] in (None, 1005):
            await self._until(lambda: link.is_gone or None, step)
        else:
            assert link.ws is not None
            await link.ws.close(code=step.about["code"])

    async def _send(self, step: Step) -> None:
        recorded = read(step.raw)
        assert recorded is not None
        link = await self._link(step)
        await self._until(lambda: link.match(recorded), step)

    async def _recv(self, step: Step) -> None:
        reply = _reply_ref(step) if "text" in step.about else None
        link = await self._link(step)
        await link.play(step.raw, reply)

    async def _http_request(self, step: Step) -> None:
        method, path = step.about["method"], step.about["path"]
        self._asked = await self._until(
            lambda: self._first(lambda r: (r.request.method, r.path) == (method, path)), step
        )
        self.posts.append((step.about, self._asked))

    async def _http_response(self, step: Step) -> None:
        assert self._asked is not None
        headers = {
            name: value
            for name, value in step.about["headers"].items()
            if name.lower() in ("content-type", "x-request-id")
        }
        body = step.about["body"].encode()
        response = web.Response(status=step.about["status"], headers=headers, body=body)
        self._asked.answer.set_result(response)

    async def _note(self, step: Step) -> None:
        text = step.about.get("note") or step.about.get("what", "")
        if text == "server gets SIGTERM":
            await self._stop_listening()
        if self._hold and self._hold in text:
            await self._go.wait()
        if text == "the server is started again":
            await self._listen()


def _is_read(client: RealtimeClient, links: Iterable[Link]) -> bool:
    links, health = list(links), client.health()
    return health.frames_in == sum(link.played for link in links) and health.frames_out == sum(
        len(link.arrived) for link in links
    )


def _reply_ref(step: Step) -> str | None:
    frame = step.json
    event, ref = (frame[3], frame[1]) if isinstance(frame, list) else (frame["event"], frame["ref"])
    return ref if event == "phx_reply" else None


def _kept(steps: Iterable[Step], skip: Skip | None) -> list[Step]:
    """Drops steps that the public API cannot perform, and the answers to them."""
    kept: list[Step] = []
    skipped: set[tuple[str, str]] = set()
    skipping_response = False
    for step in steps:
        drop = skip is not None and skip(step)
        if step.direction == "send":
            frame = read(step.raw)
            drop = drop or frame is None
            if drop and frame is not None and frame.ref is not None:
                skipped.add((step.conn, frame.ref))
        elif step.direction == "recv":
            drop = drop or any((step.conn, ref) in skipped for ref in _refs(step))
        elif step.direction == "http_req":
            skipping_response = drop
        elif step.direction == "http_resp":
            drop = skipping_response
        if not drop:
            kept.append(step)
    return kept


def _refs(step: Step) -> set[str]:
    """The refs in a frame of the server."""
    if "hex" in step.about:
        return set()
    frame = json.loads(step.about["text"])
    return {*frame[:2]} if isinstance(frame, list) else {frame["ref"]}


def _without_the_end(steps: list[Step]) -> list[Step]:
    """Drops the final steps of the script: our clients leave as the test likes."""
    while steps and (
        steps[-1].direction == "check"
        or (steps[-1].direction == "closed" and steps[-1].about["code"] in (None, 1005))
    ):
        steps.pop()
    return steps


@asynccontextmanager
async def play(name: str, *, skip: Skip | None = None, hold: str = "") -> AsyncIterator[Player]:
    """Play a recording to its end, to the clients that the player made.

    ``skip`` selects steps that are not played, such as sends and requests that the driver will not
    make. Their answers are left out too. ``hold`` is a part of a note or check at which the player
    waits for ``release``.
    """
    player = Player(name, skip=skip, hold=hold)
    await player.start()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(player.run())
            try:
                yield player
                await player.end()
            finally:
                task.cancel()
    except BaseExceptionGroup as exc:
        # One of them is the cause, and the others follow from it.
        raise exc.exceptions[0] from None
    finally:
        await player.stop()
