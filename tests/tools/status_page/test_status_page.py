"""The status page in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supabase_rt import Broadcast, PostgresChange, create_client
from supabase_rt.server import LocalRealtime
from tests.support.waiting import until

from .chromium import Browser, Tab, browser, find_chromium

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
    ),
    # A busy machine needs much time to start a browser.
    pytest.mark.timeout(120),
]
LIVE = "document.querySelector('#status').dataset.state === 'live'"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
async def chrome(tmp_path: Path) -> AsyncIterator[Browser]:
    assert CHROMIUM is not None
    async with browser(CHROMIUM, tmp_path / "profile") as found:
        yield found


def text(selector: str) -> str:
    return f"document.querySelector('{selector}').textContent"


async def see(tab: Tab, selector: str, *words: str) -> None:
    """Wait until an element shows all these words."""
    for word in words:
        await tab.until(f"{text(selector)}.includes({word!r})")


async def test_everything_that_happens_is_seen_and_done_on_the_page(
    server: LocalRealtime, chrome: Browser
) -> None:
    tab = await chrome.tab()
    await tab.open(server.inspector_url, f"{server.url}/")
    await tab.until(LIVE)
    supabase = create_client(server.url, server.anon_key)
    broadcasts: list[Broadcast] = []
    changes: list[PostgresChange] = []
    async with supabase.realtime:
        room = supabase.channel("room", {"config": {"presence": {"key": "anna"}}})
        room.on("postgres_changes", {"event": "*", "schema": "public"}, changes.append)
        room.on("presence", {"event": "sync"}, lambda: None)
        room.on("broadcast", {"event": "*"}, broadcasts.append)
        await room.subscribe().ready(10)
        await room.track({"mood": EVIL})
        await room.send({"type": "broadcast", "event": EVIL, "payload": {"x": EVIL}})

        # Events and presence.
        await see(tab, "#sockets", "socket 1", "room")
        await see(tab, "#presence", "room", "anna")
        await see(tab, "#events", "connect", "join", "+anna", "onerror=alert(1)")
        assert await tab.run("document.querySelectorAll('#events img, #events script').length") == 0

        # A broadcast and a row from the page itself.
        await tab.fill("#broadcast [name=topic]", "room")
        await tab.fill("#broadcast [name=event]", "hello")
        await tab.fill("#broadcast textarea", "{oops}")
        await tab.click("#broadcast button")
        await see(tab, "#broadcast .answer", "not JSON")
        await tab.fill("#broadcast textarea", '{"from": "the page"}')
        await tab.click("#broadcast button")
        await see(tab, "#broadcast .answer", "sent → 1")
        await until(lambda: broadcasts)
        assert (broadcasts[0].event, broadcasts[0].payload) == ("hello", {"from": "the page"})
        await tab.fill("#insert [name=table]", "messages")
        await tab.fill("#insert textarea", '{"id": 7, "body": "typed"}')
        await tab.click("#insert button")
        await see(tab, "#insert .answer", "inserted", "typed")
        await until(lambda: changes)
        assert changes[0].new == {"id": 7, "body": "typed"}
        await see(tab, "#events", "public.messages", "INSERT")
        await tab.until("document.querySelector('#tables option').value === 'public.messages'")

        # Details of an event.
        await tab.fill("#filter", "hello")
        rows = "[...document.querySelectorAll('#events li')].filter((row) => !row.hidden).length"
        assert await tab.run(rows) == 1
        await tab.fill("#filter", "")
        await tab.click("#pause")
        await room.send({"type": "broadcast", "event": "while-paused", "payload": {}})
        await see(tab, "#pause", "Resume (1)")
        assert "while-paused" not in await tab.run(text("#events"))
        await tab.click("#pause")
        await see(tab, "#events", "while-paused")

        # The page reconnects by itself, and shows a closed socket.
        await server.restart()
        await tab.until(f"{LIVE} && {text('#socket-count')} === '1'")
    await tab.until(f"{text('#socket-count')} === '0'")
    # The log shows the restart; a violated policy or a script error would be there as well.
    assert [line for line in chrome.logged if '"source": "network"' not in line] == []


LOCKED = "!document.querySelector('#unlock').hidden && document.querySelector('#main').hidden"


async def test_the_token_is_in_the_tab_and_nowhere_else(
    server: LocalRealtime, chrome: Browser
) -> None:
    tab, page = await chrome.tab(), f"{server.url}/"
    await tab.open(server.inspector_url, page)
    await tab.until(LIVE)
    assert await tab.run("location.hash + location.search + document.cookie") == ""
    assert "srt_" not in await tab.run("document.documentElement.outerHTML")
    # A reload keeps the token; another tab or another host name does not have it.
    await tab.run("location.reload()")
    await tab.until(f"document.readyState === 'complete' && {LIVE}")
    for other in (page, f"http://localhost:{server.port}/"):
        stranger = await chrome.tab()
        await stranger.open(other)
        await stranger.until(LOCKED)
    assert server.connections == 0


async def test_without_the_address_the_page_asks_for_it(
    server: LocalRealtime, chrome: Browser
) -> None:
    tab = await chrome.tab()
    await tab.open(f"{server.url}/")
    await tab.until(LOCKED)
    for wrong, answer in (
        ("not a token", "not the address that the server printed"),
        ("nonsense", "no longer good"),
        (server.service_key.replace(".", ""), "no longer good"),
    ):
        await tab.fill("#unlock input", wrong)
        await tab.click("#unlock button")
        await see(tab, "#unlock .answer", answer)
    await tab.fill("#unlock input", server.inspector_url)
    await tab.click("#unlock button")
    await tab.until(LIVE)
    await tab.until("document.querySelector('#unlock').hidden")
    # In an open tab, the address only changes the fragment, and loads nothing.
    async with LocalRealtime() as other:
        fragment = other.inspector_url.partition("#")[2]
    await tab.run(f"location.hash = {fragment!r}")
    await see(tab, "#unlock .answer", "no longer good")


async def test_a_page_of_a_server_that_was_started_anew_is_locked(chrome: Browser) -> None:
    tab = await chrome.tab()
    async with LocalRealtime() as server:
        await tab.open(server.inspector_url, f"{server.url}/")
        await tab.until(LIVE)
    async with LocalRealtime(port=server.port):
        await tab.until(LOCKED)
        await see(tab, "#unlock .answer", "no longer good")
