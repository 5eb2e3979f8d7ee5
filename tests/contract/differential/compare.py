"""Two records of one scenario side by side, in a short text form."""

from __future__ import annotations

import json
from typing import Any

from .explained import RULES
from .scenario import Scenario

__all__ = ["differences", "unexplained"]

Record = dict[str, Any]
Pair = tuple[Any, Any]

DEFAULTS = {
    "broadcast": {"ack": False, "self": False},
    "presence": {"key": "", "enabled": False},
    "postgres_changes": [],
    "private": False,
}


def unexplained(scenario: Scenario, js: Record, ours: Record) -> list[str]:
    """The differences that the scenario does not explain, and the explanations that nothing
    needed.
    """
    if "failed" in js or "failed" in ours:
        return [f"could not be played: {js.get('failed') or ours.get('failed')}"]
    pairs, idle = differences(scenario, js, ours)
    found = [f"rule {name!r} explains nothing here" for name in idle]
    expected = {differs.at: (differs.js, differs.ours) for differs in scenario.differs}
    for path in sorted(pairs.keys() | expected.keys()):
        pair = pairs.get(path)
        if pair is None:
            found.append(f"{path}: explained as a difference, and is none")
        elif pair != expected.get(path):
            note = "otherwise than explained" if path in expected else "unexplained"
            found.append(f"{path}: {note}\n    js   {pair[0]!r}\n    ours {pair[1]!r}")
    stuck = {key for one in (js, ours) for key in one["results"] if key.startswith("stuck")}
    told = " ".join(expected)
    return found + [f"{key}: waited in vain" for key in stuck if key not in told]


def differences(scenario: Scenario, js: Record, ours: Record) -> tuple[dict[str, Pair], list[str]]:
    """Returns the remaining differences by path, and the rules of the scenario that changed
    nothing.
    """
    theirs, mine = flat(js, f"/js/{scenario.id}/"), flat(ours, f"/py/{scenario.id}/")
    idle = [name for name in scenario.rules if not RULES[name](theirs, mine)]
    paths = theirs.keys() | mine.keys()
    pairs = {path: (theirs.get(path), mine.get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}, idle


def flat(record: Record, own: str) -> Record:
    """A record by paths."""
    found: Record = {}
    for label, statuses in record["statuses"].items():
        found[f"statuses.{label}"] = [_status(status) for status in statuses]
    for result, value in record["results"].items():
        found[f"results.{result}"] = _without(value, own)
    for key in ("calls", "heartbeats", "tries"):
        found[key] = record[key]
    found["logs"] = [[kind, _without(text, own)] for kind, text in record["logs"]]
    seen = record["seen"]
    for frame in seen["frames"]:
        # The number of heartbeats in a scenario depends on the speed of the machine.
        if frame["event"] != "heartbeat":
            found.setdefault(f"frames.{frame['link']}", []).append(_frame(frame))
    for key in ("requests", "queries", "closes"):
        found[key] = seen[key]
    return found


def _status(status: dict[str, Any]) -> str:
    error = status["error"]
    return f"{status['status']} {status['state']}" + (f": {error}" if error is not None else "")


def _frame(frame: dict[str, Any]) -> str:
    """Returns event, topic if not ``room``, number of the join, and the unusual parts of the
    payload.
    """
    topic = "" if frame["topic"] == "realtime:room" else f" {frame['topic']}"
    kind = f" kind {frame['kind']}" if "kind" in frame else ""
    ref = "" if frame["has_ref"] else " without ref"
    payload = frame["payload"]
    if frame["event"] == "phx_join":
        payload = _unusual(payload)
    text = f" {json.dumps(payload, sort_keys=True)}" if payload != {} else ""
    return f"{frame['event']}{topic} #{frame['join']}{kind}{ref}{text}"


def _unusual(payload: dict[str, Any]) -> dict[str, Any]:
    """Returns a join payload without the parts that every join has."""
    rest = dict(payload)
    config = rest.pop("config")
    rest.update({key: value for key, value in config.items() if DEFAULTS.get(key) != value})
    missing = [key for key in DEFAULTS if key not in config]
    return {**rest, "missing": missing} if missing else rest


def _without(value: Any, own: str) -> Any:
    """Returns a value with the URL of its own side replaced, so that both sides compare equal."""
    if isinstance(value, dict) and isinstance(value.get("value"), str):
        return {"value": _without(value["value"], own)}
    if isinstance(value, str) and own in value:
        return "<base>" + value.partition(own)[2]
    return value
