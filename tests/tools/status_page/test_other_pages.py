"""Other web pages in a real browser: some may use the local server, and others may not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from supabase_rt import Broadcast, create_client
from supabase_rt.server import Happening, LocalRealtime
from tests.contract.differential.javascript_side import Missing, install

from .chromium import Browser, Tab, browser, find_chromium

HERE = Path(__file__).parent
SUPABASE_JS = HERE / "node_modules/@supabase/supabase-js/dist/umd/supabase.js"
CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
    ),
    pytest.mark.timeout(120),
]
USE = """
(async () => {
  const client = supabase.createClient(URL_, KEY);
  const heard = new Promise((resolve) => {
    window.room = client.channel("room", { config: { broadcast: { self: true } } })
      .on("broadcast", { event: "hello" }, ({ payload }) => resolve(payload));
  });
  const status = await new Promise((resolve) => window.room.subscribe(resolve));
  await window.room.send({ type: "broadcast", event: "hello", payload: { from: "the page" } });
  const sent = await window.room.httpSend("there", { from: "http" });
  const rows = await client.from("todos").select();
  return { status, heard: await heard, sent, rows: rows.data, origin: location.origin };
})()
"""
ATTACK = """
(async () => {
  const found = [];
  const ask = async (path, options) => {
    try {
      const response = await fetch(SERVER + path, options);
      if (response.type !== "opaque") found.push(`${path} ${response.status}`);
    } catch { /* as it should be */ }
  };
  const text = { "Content-Type": "text/plain" };
  const row = JSON.stringify({ table: "todos", record: { id: 666 } });
  for (const mode of ["cors", "no-cors"]) {
    for (const path of ["/", "/api/ping", "/rest/v1/todos?apikey=" + KEY, "/inspector/rows"]) {
      await ask(path, { mode });
    }
    const post = { mode, method: "POST", headers: text, body: row };
    await ask("/inspector/rows", post);
    await ask("/realtime/v1/api/broadcast/room/events/e?apikey=" + KEY, post);
  }
  await ask("/inspector/rows", { headers: { Authorization: "Bearer x" } });
  for (const path of ["/realtime/v1/websocket?vsn=2.0.0&apikey=" + KEY, "/inspector/socket"]) {
    await new Promise((resolve) => {
      const socket = new WebSocket(SERVER.replace("http", "ws") + path, ["supabase-rt.inspector"]);
      socket.onopen = () => { found.push(path); resolve(); };
      socket.onerror = resolve;
    });
  }
  const image = new Image();
  await new Promise((resolve) => {
    image.onload = image.onerror = resolve;
    image.src = SERVER + "/api/ping";
  });
  return found;
})()
"""


@pytest.fixture
async def chrome(tmp_path: Path) -> AsyncIterator[Browser]:
    assert CHROMIUM is not None
    async with browser(CHROMIUM, tmp_path / "profile") as found:
        yield found


@pytest.fixture
async def pages() -> AsyncIterator[int]:
    """The port of another web server, whose page has supabase-js."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>page</title><script src=/supabase.js></script>",
            content_type="text/html",
        )

    async def script(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(SUPABASE_JS) if SUPABASE_JS.exists() else web.Response(text="")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/supabase.js", script)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def attack(tab: Tab, server: LocalRealtime, url: str) -> list[str]:
    """Returns the results of a foreign page, although it knows the key."""
    script = ATTACK.replace("SERVER", json.dumps(url)).replace(
        "KEY", json.dumps(server.service_key)
    )
    found: list[str] = await tab.run(script)
    return found


async def test_supabase_js_in_a_page_on_this_machine_works(
    server: LocalRealtime, chrome: Browser, pages: int
) -> None:
    try:
        install(HERE)
    except Missing as exc:
        pytest.skip(f"supabase-js cannot be had: {exc}")
    server.insert("todos", {"id": 1, "text": "tea"})
    supabase = create_client(server.url, server.anon_key)
    got: list[Broadcast] = []
    async with supabase.realtime:
        room = supabase.channel("room").on("broadcast", {"event": "*"}, got.append)
        await room.subscribe()
        for name in ("localhost", "127.0.0.1", "app.localhost"):
            tab = await chrome.tab()
            await tab.open(f"http://{name}:{pages}/")
            use = USE.replace("URL_", json.dumps(server.url))
            assert await tab.run(use.replace("KEY", json.dumps(server.anon_key))) == {
                "status": "SUBSCRIBED",
                "heard": {"from": "the page"},
                "sent": {"success": True},
                "rows": [{"id": 1, "text": "tea"}],
                "origin": f"http://{name}:{pages}",
            }
    assert [each.event for each in got] == ["hello", "there"] * 3


async def test_a_foreign_page_gets_nothing_and_changes_nothing(
    server: LocalRealtime, chrome: Browser, pages: int
) -> None:
    server.table("todos", {"id": "int4"})
    seen: list[Happening] = []
    server.watch(seen.append)
    tab = await chrome.tab()
    await tab.open(f"http://elsewhere.test:{pages}/")
    for url in (server.url, f"http://localhost:{server.port}"):
        assert await attack(tab, server, url) == []
    assert {found.kind for found in seen} == {"refuse"}
    # Browsers do not trust this address as an origin, so they send no Sec-Fetch-Site to it.
    # So images and the like get through; the page cannot read their answers.
    assert await attack(tab, server, f"http://0.0.0.0:{server.port}") == []
    assert {found.event for found in seen if found.kind == "request"} == {"GET"}
    assert {found.kind for found in seen} == {"refuse", "request"}
    assert server.connections == 0


async def test_a_sandboxed_page_and_a_file_get_nothing(
    server: LocalRealtime, chrome: Browser, pages: int, tmp_path: Path
) -> None:
    seen: list[Happening] = []
    server.watch(seen.append)
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><title>file</title>")
    for url in (file.as_uri(), "data:text/html,<title>data</title>"):
        tab = await chrome.tab()
        await tab.open(url)
        assert await attack(tab, server, server.url) == []
    assert {found.kind for found in seen} == {"refuse"}


async def test_a_name_that_was_rebound_gets_nothing(server: LocalRealtime, chrome: Browser) -> None:
    """For the browser, the page and the server are one origin."""
    server.table("todos", {"id": "int4"})
    seen: list[Happening] = []
    server.watch(seen.append)
    tab = await chrome.tab()
    url = f"http://elsewhere.test:{server.port}"
    await tab.open(f"{url}/")
    assert "--allow-host elsewhere.test" in await tab.run("document.body.innerText")
    got = await attack(tab, server, url)
    # The page can read the refusals, and nothing else.
    assert all(answer.endswith(" 403") for answer in got)
    assert {found.kind for found in seen} == {"refuse"}
    assert server.connections == 0


async def test_a_page_on_this_machine_without_the_token_opens_nothing_of_the_status_page(
    server: LocalRealtime, chrome: Browser, pages: int
) -> None:
    tab = await chrome.tab()
    await tab.open(f"http://localhost:{pages}/")
    got = await attack(tab, server, server.url)
    assert not any("inspector" in answer for answer in got)
    # It cannot get the status page either, in a frame or in a window.
    address = json.dumps(server.inspector_url)
    held = await tab.run(
        f"""(async () => {{
          const frame = document.createElement("iframe");
          await new Promise((resolve) => {{
            frame.onload = resolve;
            frame.src = {address};
            document.body.append(frame);
          }});
          return String(frame.contentDocument?.title ?? "closed");
        }})()"""
    )
    assert held == "closed"
    assert not server.backend.activity.watched


async def test_a_page_that_was_allowed_may_use_it(chrome: Browser, pages: int) -> None:
    async with LocalRealtime(allow_origins=[f"http://elsewhere.test:{pages}"]) as server:
        tab = await chrome.tab()
        await tab.open(f"http://elsewhere.test:{pages}/")
        assert "/api/ping 200" in await attack(tab, server, server.url)
        assert server.connections == 1
