"""Other Realtime clients use the local server like the real one, and meet our client.

The official client (``tour.mjs``) and the PyPI package ``realtime`` (``peer.py``) each run their
steps once, in a separate process; then each step is a test.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from tests.contract.differential.javascript_side import Missing, install

from ..tables import OWNER, TABLES
from .child import travel
from .ours import Ours

HERE = Path(__file__).parent
BOTH = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
Found = dict[str, Any]


async def go(postgres: EmbeddedPostgres, command: list[str]) -> Found:
    """Run the steps of a client against a new server."""
    async with LocalRealtime(db=postgres.url) as server:
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        ours = Ours(server)

        async def token(lives: float) -> str:
            return server.token("authenticated", OWNER, expires_in=lives)

        async def restart() -> None:
            await server.restart(downtime=0.2)

        async def sql(statement: str) -> None:
            await server.sql(statement)

        operations: dict[str, Callable[..., Awaitable[Any]]] = {
            "sql": sql,
            "token": token,
            "restart": restart,
            **ours.operations(),
        }
        about = {
            "url": server.ws_url,
            "anon": server.anon_key,
            "member": server.token("authenticated", OWNER),
            "owner": OWNER,
        }
        try:
            return await travel([*command, json.dumps(about)], operations)
        finally:
            await ours.close()


@pytest.fixture(scope="module")
def js(prepared: EmbeddedPostgres) -> Found:
    try:
        install()
    except Missing as exc:
        pytest.skip(f"THE TOUR OF THE OFFICIAL CLIENT WAS SKIPPED: {exc}")
    # Thirty conversations at once are too many for asyncio's debug mode.
    return asyncio.run(go(prepared, ["node", str(HERE / "tour.mjs")]), debug=False)


@pytest.fixture(scope="module")
def peer(prepared: EmbeddedPostgres) -> Found:
    command = [sys.executable, str(HERE / "peer.py")]
    return asyncio.run(go(prepared, command), debug=False)


# -- the official client ---------------------------------------------------------------------


@BOTH
def test_js_broadcasts_with_ack_and_self(js: Found, vsn: str) -> None:
    assert js[f"broadcast {vsn}"] == {
        "results": ["ok", "ok"],
        "heard": {"one": [{"n": 1}, {"n": 2}], "two": [{"n": 1}]},
        "left": "ok",
    }


def test_js_broadcasts_bytes_to_those_who_can_get_them(js: Found) -> None:
    assert js["binary 2.0.0"] == {
        "results": ["ok", "ok"],
        "heard": {"new": ["00017fff", "end"], "old": ["end"]},
    }


@BOTH
def test_js_presence(js: Found, vsn: str) -> None:
    assert js[f"presence {vsn}"] == {
        "results": ["ok"] * 4,
        "state": {"ann": ["busy"]},
        "events": [
            ["join", "ann", ["here"]],
            ["join", "ann", ["busy"]],
            ["leave", "ann", ["here"]],
            ["leave", "ann", ["busy"]],
        ],
    }


@BOTH
def test_js_changes_of_a_table_with_filters(js: Found, vsn: str) -> None:
    assert js[f"changes {vsn}"] == {
        "told": ["Subscribed to PostgreSQL"],
        "rows": {
            "all": [
                ["INSERT", 1, None, None],
                ["INSERT", 2, None, None],
                ["UPDATE", 20, 2, None],
                ["DELETE", None, 1, None],
            ],
            "big": ["b"],
            "deleted": ["a"],
        },
    }
    assert js[f"bad filter {vsn}"] == (
        "ERROR P0001 (raise_exception) invalid column for filter nope"
    )


@BOTH
def test_js_private_channels(js: Found, vsn: str) -> None:
    found = js[f"private {vsn}"]
    assert "You do not have permissions to read from this Channel topic: private-room" in (
        found.pop("refused")
    )
    assert found == {
        "results": ["ok", "timed out"],
        "heard": {"member": [{"secret": 1}], "other": []},
    }


@BOTH
def test_js_sends_over_http(js: Found, vsn: str) -> None:
    assert js[f"http {vsn}"] == {
        "results": [{"success": True}, {"success": True}, "Unauthorized", "ok"],
        "heard": [["single", {"x": 1}], ["batch", {"x": 3}]],
    }


@BOTH
def test_js_refreshes_its_token_and_lets_one_expire(js: Found, vsn: str) -> None:
    found = js[f"token {vsn}"]
    assert found["notes"] == ["as member"]
    assert found["system"] == [
        *["Subscribed to PostgreSQL"] * 3,
        "Token has expired 0 seconds ago",
    ]
    assert found["statuses"] == ["SUBSCRIBED", "CLOSED"]


@BOTH
def test_js_hears_the_database(js: Found, vsn: str) -> None:
    assert js[f"database {vsn}"] == [
        ["send", 1, "string"],
        ["INSERT", "broadcasted", None],
        ["replayed", True],
    ]


def test_js_comes_back_after_a_restart(js: Found) -> None:
    for found in js["restart"]:
        assert found["statuses"] == [
            ["SUBSCRIBED", None],
            ["CHANNEL_ERROR", "socket closed: 1012"],
            ["SUBSCRIBED", None],
        ]
        assert found["heard"] == [1, 2]
        assert found["rows"] == ["row 1", "row 2"]


@pytest.mark.parametrize("ours", ["1.0.0", "2.0.0"])
@BOTH
def test_js_and_ours_in_one_room(js: Found, vsn: str, ours: str) -> None:
    binary = vsn == ours == "2.0.0"
    sent = ["ok"] * (2 if binary else 1)
    found = js[f"together {vsn} {ours}"]
    assert found["results"] == found["sent"] == sent
    bytes_of_python, bytes_of_js = ([["bytes", "00ff"]], [["bytes", "0102ff"]])
    assert found["heard"] == [["from-python", {"text": "☃"}], *(bytes_of_python * binary)]
    assert found["seen"] == {
        "heard": [["from-js", {"text": 'añ"é'}], *(bytes_of_js * binary)],
        "state": {"js": ["js"], "python": ["python"]},
    }


# -- the PyPI package realtime ---------------------------------------------------------------


def test_peer_broadcasts_with_ack_and_self_and_over_http(peer: Found) -> None:
    assert peer["broadcast"] == {
        "acks": ["ok"],
        "one": [{"n": 1}, {"n": 2}, {"n": 3}],
        "two": [{"n": 1}, {"n": 3}],
    }


def test_peer_presence(peer: Found) -> None:
    assert peer["presence"] == {
        "state": {"ann": ["here"]},
        "events": [["join", "ann"], ["leave", "ann"]],
    }


def test_peer_changes_of_a_table_with_filters(peer: Found) -> None:
    assert peer["changes"] == {
        "system": ["Subscribed to PostgreSQL"],
        "all": ["INSERT", "INSERT", "UPDATE", "DELETE"],
        "big": ["b"],
    }


def test_peer_private_channels(peer: Found) -> None:
    assert peer["private"] == {"refused": "CHANNEL_ERROR", "heard": [{"secret": 1}]}


def test_peer_refreshes_its_token(peer: Found) -> None:
    assert peer["token"] == ["peer-token as member"]


def test_peer_comes_back_after_a_restart(peer: Found) -> None:
    assert peer["restart"] == {
        "heard": [1, 2],
        "statuses": ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"],
    }
