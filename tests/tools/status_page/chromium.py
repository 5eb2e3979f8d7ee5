"""Headless Chromium, driven over its DevTools socket: no driver, no download."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["NAMES", "Browser", "Tab", "browser", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Root and most containers have no sandbox; only our own pages are opened here.
    "--no-sandbox",
    "--remote-debugging-port=0",
    # An unused name, for the test of a page that is reached by another name.
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",
)
TIMEOUT = 20.0


def find_chromium() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page."""

    def __init__(self, owner: Browser, session: str) -> None:
        self._owner = owner
        self._session = session

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol."""
        return await self._owner.ask(method, self._session, **params)

    async def run(self, expression: str) -> Any:
        """Returns the awaited value of a JavaScript expression."""
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true; returns its value."""
        try:
            async with asyncio.timeout(TIMEOUT):
                while not (found := await self.run(expression)):
                    await asyncio.sleep(0.02)
                return found
        except TimeoutError:
            seen = await self.run("document.body.innerText")
            raise AssertionError(f"never true: {expression}; the page says: {seen}") from None

    async def open(self, url: str, ends: str | None = None) -> None:
        """Open an address; ``ends`` is the address that the page changes it to, if any."""
        await self.ask("Page.navigate", url=url)
        shown = json.dumps(url if ends is None else ends)
        await self.until(f"location.href === {shown} && document.readyState=='complete'")

    async def fill(self, selector: str, text: str) -> None:
        """Put text into a field."""
        await self.run(
            f"{{const f = document.querySelector({json.dumps(selector)});"
            f"f.value = {json.dumps(text)}; f.dispatchEvent(new Event('input'));}}"
        )

    async def click(self, selector: str) -> None:
        """Click on an element."""
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")


class Browser:
    """A running browser; ``logged`` has the console output of its pages, and errors."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._ws = ws
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.logged: list[str] = []

    async def listen(self) -> None:
        """Read the messages of the browser."""
        async for message in self._ws:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["method"] in (
                "Log.entryAdded",
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
            ):
                self.logged.append(json.dumps(said["params"]))

    async def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params}
        await self._ws.send_json(command | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(TIMEOUT):
            said = await answer
        assert "error" not in said, (method, said)
        found: dict[str, Any] = said["result"]
        return found

    async def tab(self) -> Tab:
        """Open a new page."""
        target = await self.ask("Target.createTarget", url="about:blank")
        found = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, found["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await tab.ask(f"{domain}.enable")
        return tab


@asynccontextmanager
async def browser(program: str, folder: Path) -> AsyncIterator[Browser]:
    """Start it with an empty profile in ``folder``."""
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = await _devtools(folder / "DevToolsActivePort", process)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, max_msg_size=0) as ws,
        ):
            found = Browser(ws)
            listening = asyncio.create_task(found.listen(), name="browser: listen")
            try:
                yield found
            finally:
                listening.cancel()
                await asyncio.wait([listening])
    finally:
        process.terminate()
        await process.wait()


async def _devtools(file: Path, process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(TIMEOUT):
        while process.returncode is None:
            lines = await asyncio.to_thread(_lines, file)
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the browser ended with {process.returncode}")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
