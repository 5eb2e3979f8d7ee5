"""Writes docs/local-server-fidelity.md: ``python -m tests.server_postgres.table``."""

from __future__ import annotations

from pathlib import Path

from tests.contract.replay.recordings import NAMES

from .differences import DIFFERENCES, RULES, UNLIKE

__all__ = ["PAGE", "PLAYED", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "local-server-fidelity.md"
PLAYED = [name for name in NAMES if name != "longpoll"]
"""The recordings that are played to our server; long polling is out of scope."""

HEAD = """\
# How close the local server is to the real one

<!-- written by python -m tests.server_postgres.table; what stands here is changed there -->

`tests/contract/recordings` holds conversations with a real Realtime server (supabase/realtime
2.129.8).
A test plays {count} of its {all} files to `LocalRealtime`, with an embedded Postgres behind it. It
sends the recorded client's frames, requests and SQL unchanged. Every frame and HTTP answer that
comes back must be the recorded one (`tests/server_postgres/test_replay_db.py`).

## What differs

"""


def page() -> str:
    """Returns the text of the page."""
    rows = [
        f"| {', '.join(f'`{name}`' for name in each.recordings)} "
        f"| {each.real} | {each.ours} | {each.why} |"
        for each in DIFFERENCES
    ]
    return "\n".join(
        [
            HEAD.format(count=len(PLAYED), all=len(NAMES)).rstrip() + "\n",
            "| recording | the real server | here | because |",
            "|---|---|---|---|",
            *rows,
            "\n## How it is compared\n",
            *(f"- **{name}**: {text}" for name, text in RULES.items()),
            "\n## Other limits of the imitation\n",
            "Known from the real server's source or documentation, without a recording of it:\n",
            *(f"- **{name}**: {text}" for name, text in UNLIKE.items()),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
