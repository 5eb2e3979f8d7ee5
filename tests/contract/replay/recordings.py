"""The recordings as steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "NAMES", "Recording", "Step", "load"]

FOLDER = Path(__file__).parents[1] / "recordings"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


@dataclass
class Step:
    """One line of a recording; ``about`` holds its fields."""

    number: int
    direction: str
    conn: str
    about: dict[str, Any]

    @property
    def raw(self) -> str | bytes:
        """The frame of a ``send`` or ``recv``."""
        if "hex" in self.about:
            return bytes.fromhex(self.about["hex"])
        text: str = self.about["text"]
        return text

    @property
    def json(self) -> Any:
        """The text frame of a ``recv``, by the standard library."""
        return json.loads(self.about["text"])

    def __str__(self) -> str:
        return f"step {self.number}: {self.conn} {self.direction} {str(self.about)[:200]}"


@dataclass
class Recording:
    """One file. The server's view of a conversation is ``steps``."""

    name: str
    steps: list[Step] = field(default_factory=list)

    def opened(self, conn: str) -> Step:
        """The way in which a socket was opened."""
        return next(step for step in self.steps if step.direction == "open" and step.conn == conn)

    def vsn(self, conn: str) -> str:
        """The protocol of a socket."""
        for step in self.steps:
            if step.direction == "open" and step.conn == conn:
                params = step.about.get("params")
                return str(params["vsn"]) if params else step.about["url"][-5:]
        frame = next(step for step in self.steps if step.conn == conn)
        return "2.0.0" if str(frame.raw).startswith("[") else "1.0.0"

    def of(self, direction: str, conn: str | None = None) -> list[Step]:
        """The steps of one direction, of one socket or of all."""
        return [
            step for step in self.steps if step.direction == direction and conn in (None, step.conn)
        ]

    def payloads(self, conn: str, event: str) -> list[Any]:
        """The payloads of the text frames that a socket received of one event."""
        found = []
        for step in self.of("recv", conn):
            if "text" not in step.about:
                continue
            frame = step.json
            if isinstance(frame, list):
                frame = {"event": frame[3], "payload": frame[4]}
            if frame["event"] == event:
                found.append(frame["payload"])
        return found

    def checks(self) -> list[str]:
        """The checks that the recording script made."""
        return [step.about["what"] for step in self.of("check")]


def load(name: str) -> Recording:
    """Read ``tests/contract/recordings/<name>.jsonl``."""
    found = Recording(name)
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        about = json.loads(line)
        about.pop("ms", None)
        conn = about.pop("conn", "")
        found.steps.append(Step(number, about.pop("dir"), conn, about))
    return found
