"""Who is there: the state of presence and the differences it changes by.

A state is ``{key: {"metas": [meta, ...]}}`` as the server sends it. ``sync_state`` and
``sync_diff`` are the algorithm of Phoenix as pure functions; ``PresenceState`` adds what a
channel needs around them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ..._wire.json_codec import dumps
from ...errors import DecodeError

__all__ = [
    "PresenceEvent",
    "PresenceState",
    "sync_diff",
    "sync_state",
    "transform",
]

State = dict[str, dict[str, Any]]

PENDING_LIMIT: Final = 1000
"""Differences kept for a state that has not come. A channel without presence of its own gets
the diffs of others and never a state, and must not grow by them."""

PENDING_BYTES: Final = 8 * 2**20
"""The same in bytes of JSON: others choose how large a difference is."""

_REFS: Final = frozenset(("phx_ref", "phx_ref_prev", "presence_ref"))


class _Step(NamedTuple):
    """One key of a difference, on its way into the state."""

    kind: str
    key: str
    current: list[Any]
    changed: list[Any]
    entry: dict[str, Any]


def _refs(entry: dict[str, Any]) -> set[str]:
    return {meta["phx_ref"] for meta in entry["metas"]}


def _without(entry: dict[str, Any], refs: set[str]) -> list[Any]:
    return [meta for meta in entry["metas"] if meta["phx_ref"] not in refs]


def _join(current: dict[str, Any] | None, key: str, joined: dict[str, Any]) -> _Step:
    """Metas that are there and not told again stay in front of the new ones."""
    if current is None:
        return _Step("join", key, [], joined["metas"], joined)
    metas = _without(current, _refs(joined)) + joined["metas"]
    return _Step("join", key, current["metas"], joined["metas"], {**joined, "metas": metas})


def _leave(current: dict[str, Any], key: str, left: dict[str, Any]) -> _Step:
    metas = _without(current, _refs(left))
    return _Step("leave", key, metas, left["metas"], {**current, "metas": metas})


def _put(state: State, step: _Step) -> None:
    # A join without metas makes a key without metas, as in supabase-js.
    if step.kind == "join" or step.entry["metas"]:
        state[step.key] = step.entry
    else:
        del state[step.key]


def _steps(state: State, joins: State, leaves: State) -> list[_Step]:
    """Joins before leaves: an update lists both, and its key must not vanish in between.

    The state is only looked at, so that it costs nothing to know what it was before.
    """
    steps: list[_Step] = []
    came: State = {}
    for key, joined in joins.items():
        step = _join(state.get(key), key, joined)
        steps.append(step)
        came[key] = step.entry
    for key, left in leaves.items():
        current = came.get(key) or state.get(key)
        if current is not None:
            steps.append(_leave(current, key, left))
    return steps


def _apply(state: State, joins: State, leaves: State) -> tuple[State, list[_Step]]:
    steps = _steps(state, joins, leaves)
    state = dict(state)
    for step in steps:
        _put(state, step)
    return state, steps


def _difference(state: State, new: State) -> tuple[State, State]:
    joins: State = {}
    leaves: State = {key: entry for key, entry in state.items() if key not in new}
    for key, entry in new.items():
        current = state.get(key)
        if current is None:
            joins[key] = entry
            continue
        added, gone = _without(entry, _refs(current)), _without(current, _refs(entry))
        if added:
            joins[key] = {**entry, "metas": added}
        if gone:
            leaves[key] = {**current, "metas": gone}
    return joins, leaves


def sync_state(state: State, new: State) -> tuple[State, State, State]:
    """Move ``state`` to the whole state ``new``: the result, what joined and what left.

    Nothing given is changed. Raises ``DecodeError`` where ``new`` is no presence state.
    """
    joins, leaves = _difference(state, _checked_state(new))
    return _apply(state, joins, leaves)[0], joins, leaves


def sync_diff(state: State, diff: dict[str, State]) -> tuple[State, State, State]:
    """Apply a difference ``{"joins", "leaves"}``: the result, what joined and what left.

    Who leaves without being there is not among those who left. Nothing given is changed.
    Raises ``DecodeError`` where ``diff`` is no difference.
    """
    joins, leaves = _checked_diff(diff)
    found, steps = _apply(state, joins, leaves)
    left = {step.key for step in steps if step.kind == "leave"}
    return found, joins, {key: entry for key, entry in leaves.items() if key in left}


# -- reading the wire --------------------------------------------------------------------


def _checked_state(value: Any, name: str = "presence state") -> State:
    if not isinstance(value, dict):
        raise DecodeError(f"{name} is not an object but {type(value).__name__}")
    for entry in value.values():
        metas = entry.get("metas") if isinstance(entry, dict) else None
        if not isinstance(metas, list):
            raise DecodeError(f"{name} with an entry that has no list of metas")
        for meta in metas:
            if not isinstance(meta, dict) or not isinstance(meta.get("phx_ref"), str):
                raise DecodeError(f"{name} with a meta that has no phx_ref")
    return value


def _checked_diff(value: Any) -> tuple[State, State]:
    if not isinstance(value, dict):
        raise DecodeError(f"presence diff is not an object but {type(value).__name__}")
    joins = _checked_state(value.get("joins"), "joins of a presence diff")
    return joins, _checked_state(value.get("leaves"), "leaves of a presence diff")


def _size(diff: tuple[State, State]) -> int:
    """The bytes of a difference as JSON."""
    try:
        return len(dumps(diff))
    except (ValueError, RecursionError):
        # Half a character, or nesting without end: nothing is known, so that it counts as all.
        return PENDING_BYTES


# -- what users see ----------------------------------------------------------------------


def _own(value: Any) -> Any:
    """A copy that a handler may change without changing the state."""
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner) for inner in value]
    return value


def _public_meta(meta: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in meta.items() if name not in _REFS}
    try:
        shown = {name: _own(value) for name, value in shown.items()}
    except RecursionError:
        # Another member tracked something absurdly deep. That must not break the reader, and
        # sharing it with the state is the lesser evil.
        pass
    return {"presence_ref": meta["phx_ref"], **shown}


def _public(metas: list[Any]) -> list[dict[str, Any]]:
    return [_public_meta(meta) for meta in metas]


def transform(state: State) -> dict[str, list[dict[str, Any]]]:
    """The state as users see it: ``{key: [{"presence_ref", ...}]}``, all of it fresh."""
    return {key: _public(entry["metas"]) for key, entry in state.items()}


class _Moment:
    """A state and the steps that lead on from it. While one is alive its state does not change."""

    __slots__ = ("__weakref__", "state", "steps")

    def __init__(self, state: State, steps: Sequence[_Step] = ()) -> None:
        self.state: State = state
        self.steps: Sequence[_Step] = steps


class PresenceSnapshot:
    """The state as it was while one event happened, made only if somebody asks.

    A state of n keys and a difference of k would cost n times k to copy out in advance, and
    handlers seldom look.
    """

    __slots__ = ("_count", "_moment")

    def __init__(self, moment: _Moment, count: int | None = None) -> None:
        self._moment = moment
        self._count = count

    def list(self) -> dict[str, Any]:
        """``{key: [{"presence_ref", ...}]}``, a copy of its own at every call."""
        moment, count = self._moment, self._count
        steps = moment.steps if count is None else moment.steps[:count]
        if not steps:
            return transform(moment.state)
        state = dict(moment.state)
        for step in steps:
            _put(state, step)
        if count is not None:
            # While the last meta of a key leaves, the key is still there with nothing under it.
            last = steps[-1]
            state[last.key] = last.entry
        return transform(state)


class PresenceEvent(NamedTuple):
    """``join`` and ``leave`` of one key, ``sync`` at the end of each message.

    ``current`` are the presences before a join and those that remain after a leave; ``changed``
    those that joined or left. ``state.list()`` is what ``presence_state()`` shows meanwhile.
    """

    kind: str
    key: str
    current: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    state: PresenceSnapshot


def _event(step: _Step, snapshot: PresenceSnapshot) -> PresenceEvent:
    return PresenceEvent(
        step.kind, step.key, _public(step.current), _public(step.changed), snapshot
    )


class PresenceState:
    """The presence of one channel, across its joins.

    The steps of the last difference are put into the state when the next one comes, or when
    somebody looks: until then the state is what it was, and what lies between is told from the
    steps. A difference of k keys so costs k, however many are present.
    """

    def __init__(self) -> None:
        self._state: State = {}
        self._steps: Sequence[_Step] = ()
        self._moment: weakref.ref[_Moment] | None = None
        self._join_ref: str | None = None
        self._pending: deque[tuple[int, tuple[State, State]]] | None = None
        self._pending_bytes = 0
        self._pending_ref: str | None = None

    def _settled(self) -> State:
        """The state with all steps in it, for nobody but us to change."""
        moment = None if self._moment is None else self._moment()
        if moment is not None:
            # An event of that moment is still to be handled, or was kept.
            self._state = dict(self._state)
        self._moment = None
        steps, self._steps = self._steps, ()
        for step in steps:
            _put(self._state, step)
        return self._state

    def _look(self) -> _Moment:
        """The present moment, for events to keep."""
        moment = _Moment(self._state, self._steps)
        self._moment = weakref.ref(moment)
        return moment

    def list(self) -> dict[str, Any]:
        """``{key: [{"presence_ref", ...}]}``, a copy of its own at every call."""
        return transform(self._settled())

    def receive_state(self, new: Any, join_ref: str | None) -> Sequence[PresenceEvent]:
        """Take over the whole state of the join ``join_ref``, then the waiting differences.

        Returns the events in the order of supabase-js. Raises ``DecodeError``, nothing changed.
        """
        before = self._settled()
        joins, leaves = _difference(before, _checked_state(new))
        # As in supabase-js, handlers see the old state until the new one is complete.
        old = PresenceSnapshot(_Moment(before))
        self._state, steps = _apply(before, joins, leaves)
        events = [_event(step, old) for step in steps]
        self._join_ref = join_ref
        for diff in self._take_pending(join_ref):
            events += self._apply_diff(*diff)
        events.append(self._sync())
        return events

    def receive_diff(self, diff: Any, join_ref: str | None) -> Sequence[PresenceEvent]:
        """Apply a difference, or keep it where the state of this join has not come yet.

        Returns the events in the order of supabase-js. Raises ``DecodeError``, nothing changed.
        """
        checked = _checked_diff(diff)
        if self._join_ref is None or self._join_ref != join_ref:
            self._keep(checked, join_ref)
            return []
        return [*self._apply_diff(*checked), self._sync()]

    def take_diff(self, diff: Any, join_ref: str | None) -> bool:
        """``receive_diff`` where nobody listens to joins and leaves; whether ``sync`` is due."""
        joins, leaves = _checked_diff(diff)
        if self._join_ref is None or self._join_ref != join_ref:
            self._keep((joins, leaves), join_ref)
            return False
        state = self._settled()
        for key, entry in joins.items():
            current = state.get(key)
            state[key] = entry if current is None else _join(current, key, entry).entry
        for key, left in leaves.items():
            current = state.get(key)
            if current is None:
                continue
            metas = _without(current, _refs(left))
            if metas:
                state[key] = {**current, "metas": metas}
            else:
                del state[key]
        return True

    def _apply_diff(self, joins: State, leaves: State) -> Sequence[PresenceEvent]:
        self._steps = _steps(self._settled(), joins, leaves)
        moment = self._look()
        return [
            _event(step, PresenceSnapshot(moment, count))
            for count, step in enumerate(self._steps, 1)
        ]

    def _sync(self) -> PresenceEvent:
        moment = None if self._moment is None else self._moment()
        return PresenceEvent("sync", "", [], [], PresenceSnapshot(moment or self._look()))

    def _keep(self, diff: tuple[State, State], join_ref: str | None) -> None:
        # What waited in an earlier join would bring back those who left between the two.
        if self._pending is None or join_ref != self._pending_ref:
            self._pending = deque()
            self._pending_ref = join_ref
            self._pending_bytes = 0
        size = _size(diff)
        self._pending.append((size, diff))
        self._pending_bytes += size
        # When full the oldest goes: it is the one most surely contained in the state to come.
        while len(self._pending) > PENDING_LIMIT or self._pending_bytes > PENDING_BYTES:
            self._pending_bytes -= self._pending.popleft()[0]

    def _take_pending(self, join_ref: str | None) -> Iterable[tuple[State, State]]:
        taken, self._pending = self._pending, None
        if taken is None or join_ref != self._pending_ref:
            return ()
        return [diff for _, diff in taken]
