"""The frames in docs/protocol.md are read by our codec and sent to the local server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supabase_rt import PostgresChange
from supabase_rt._payloads.postgres_data import read_postgres_changes
from supabase_rt._wire.serializer import decode_text, encode_text

from ..server.kit import World
from ..support.snippets import PAGES, ROOT, json_of

PAGE = ROOT / "docs" / "protocol.md"
FRAMES = json_of(PAGE)
FROM_THE_SERVER = {"phx_reply", "postgres_changes"}
ELSEWHERE = "local-server.md"
"""The page whose JSON tests/server_postgres/test_docs_db.py checks."""


def version_of(frame: Any) -> str:
    return "2.0.0" if isinstance(frame, list) else "1.0.0"


def event_of(frame: Any) -> str:
    return str(frame[3] if isinstance(frame, list) else frame["event"])


def ids(frames: list[tuple[str, Any]]) -> list[str]:
    return [f"{heading}: {event_of(frame)}" for heading, frame in frames]


def test_no_page_with_json_is_overlooked() -> None:
    assert {page.name for page in PAGES if json_of(page)} == {PAGE.name, ELSEWHERE}
    assert len(FRAMES) > 10


@pytest.mark.parametrize(("heading", "frame"), FRAMES, ids=ids(FRAMES))
def test_a_frame_of_the_page_is_read_and_written_again(heading: str, frame: Any) -> None:
    vsn = version_of(frame)
    assert json.loads(encode_text(vsn, decode_text(vsn, json.dumps(frame)))) == frame


SENT = [found for found in FRAMES if event_of(found[1]) not in FROM_THE_SERVER]


@pytest.mark.parametrize(("heading", "frame"), SENT, ids=ids(SENT))
def test_a_server_accepts_what_a_client_sends_on_the_page(heading: str, frame: Any) -> None:
    """The server answers a request that it cannot read or refuses with an error."""
    world = World()
    client = world.client(version_of(frame))
    event = event_of(frame)
    if event not in ("phx_join", "heartbeat"):
        (joined,) = client.join(broadcast={"ack": True})
        assert joined[4]["status"] == "ok"
    text = json.dumps(frame).replace("<token>", world.token("authenticated", sub="ann"))
    answers = [(one if isinstance(one, dict) else one[4]["status"]) for one in client.raw(text)[:1]]
    if event == "access_token":  # success is not answered
        assert answers == []
    elif isinstance(frame, dict):
        assert answers[0]["payload"]["status"] == "ok"
    else:
        assert answers == ["ok"]


def test_the_change_of_the_page_becomes_the_payload_of_a_handler() -> None:
    ((_, frame),) = [one for one in FRAMES if event_of(one[1]) == "postgres_changes"]
    change = PostgresChange(read_postgres_changes(frame[4]).data, "js")
    assert (change.event_type, change.table) == ("UPDATE", "todos")
    assert (change.new, change.old) == ({"id": 7, "title": "b"}, {"id": 7})
