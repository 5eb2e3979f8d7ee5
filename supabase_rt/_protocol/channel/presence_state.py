"""The presence state of a channel, and the diffs that change it.

A state is ``{key: {"metas": [meta, ...]}}`` as the server sends it. ``sync_state`` and
``sync_diff`` are the algorithm of Phoenix as pure functions. ``PresenceState`` adds the join that a
message belongs to, and the events for handlers.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ..._wire.json_codec import dumps
from ...errors import DecodeError

__all__ = [
    "PresenceState",
    "PresenceUpdate",
    "sync_diff",
    "sync_state",
    "transform",
]

State = dict[str, dict[str, Any]]

PENDING_LIMIT: Final = 1000
"""Diffs kept until the state comes. A channel that does not use presence receives diffs but never a
state, and must not grow by them."""

PENDING_BYTES: Final = 8 * 2**20
"""The same in bytes of JSON: others choose how large a difference is."""

STATE_LIMIT: Final = 64 * 2**20
"""Estimated bytes of memory that the state of one channel may take: about 100,000 present."""

OBJECT_BYTES: Final = 232
"""The memory of a small object beside its text, on a 64-bit machine."""

LIST_BYTES: Final = 64
"""The same for a list."""

GROWTH: Final = 16
"""Memory for each byte of JSON, by which the next weighing of the state is planned."""

WEIGH_EVERY: Final = 2**20
"""Bytes of diffs between two weighings of a state that is almost full: each takes its size."""

_REFS: Final = frozenset(("phx_ref", "phx_ref_prev", "presence_ref"))


class _KeyChange(NamedTuple):
    """The change of one key by a diff; ``entry`` is the new entry of the state."""

    kind: str
    key: str
    current: list[Any]
    changed: list[Any]
    entry: dict[str, Any]


def _refs(entry: dict[str, Any]) -> set[str]:
    return {meta["phx_ref"] for meta in entry["metas"]}


def _without(entry: dict[str, Any], refs: set[str]) -> list[Any]:
    return [meta for meta in entry["metas"] if meta["phx_ref"] not in refs]


def _join(current: dict[str, Any] | None, key: str, joined: dict[str, Any]) -> _KeyChange:
    """Returns the change of a join. Metas that are not repeated stay in front of the new ones."""
    if current is None:
        return _KeyChange("join", key, [], joined["metas"], joined)
    metas = _without(current, _refs(joined)) + joined["metas"]
    return _KeyChange("join", key, current["metas"], joined["metas"], {**joined, "metas": metas})


def _leave(current: dict[str, Any], key: str, left: dict[str, Any]) -> _KeyChange:
    metas = _without(current, _refs(left))
    return _KeyChange("leave", key, metas, left["metas"], {**current, "metas": metas})


def _put(state: State, step: _KeyChange) -> None:
    # A join without metas makes a key without metas, as in supabase-js.
    if step.kind == "join" or step.entry["metas"]:
        state[step.key] = step.entry
    else:
        del state[step.key]


def _steps(state: State, joins: State, leaves: State) -> list[_KeyChange]:
    """Returns the changes of a diff without changing the state.

    Joins come before leaves: an update of a meta is both, and its key must not vanish in between.
    """
    steps: list[_KeyChange] = []
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


def _apply(state: State, joins: State, leaves: State) -> tuple[State, list[_KeyChange]]:
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
    """Returns ``state`` replaced by the whole state ``new``, what joined, and what left.

    No argument is changed. Raises ``DecodeError`` if ``new`` is no presence state.
    """
    joins, leaves = _difference(state, _checked_state(new))
    return _apply(state, joins, leaves)[0], joins, leaves


def sync_diff(state: State, diff: dict[str, State]) -> tuple[State, State, State]:
    """Returns ``state`` after a diff ``{"joins", "leaves"}``, what joined, and what left.

    A key that leaves but is not in the state is left out. No argument is changed. Raises
    ``DecodeError`` if ``diff`` is no diff.
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
        # The JSON has a lone surrogate or is nested too deeply to measure, so it counts as the
        # whole limit.
        return PENDING_BYTES


def _weight(state: State) -> int:
    """Returns an estimate of the memory that a state takes."""
    try:
        text = dumps(state)
    except (ValueError, RecursionError):
        return _walked_weight(state)
    return len(text) + OBJECT_BYTES * text.count(b"{") + LIST_BYTES * text.count(b"[")


def _walked_weight(value: Any) -> int:
    """Returns the same estimate for nesting that the encoder refuses."""
    weight, left = 0, [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            weight += OBJECT_BYTES + sum(map(len, found))
            left += found.values()
        elif isinstance(found, list):
            weight += LIST_BYTES
            left += found
        else:
            weight += len(found) if isinstance(found, str) else 8
    return weight


def _too_large() -> DecodeError:
    return DecodeError(
        f"presence of more than {STATE_LIMIT // 2**20} MiB is not kept",
        code="PresenceTooLarge",
        hint="presence_state() stays as it was; let fewer clients track in one channel, or less",
    )


# -- what users see ----------------------------------------------------------------------


def _own(value: Any) -> Any:
    """Returns a copy that a handler may change without changing the state."""
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner) for inner in value]
    return value


def _public_meta(meta: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"presence_ref": meta["phx_ref"]}
    try:
        for name, value in meta.items():
            if name not in _REFS:
                shown[name] = _own(value) if isinstance(value, dict | list) else value
    except RecursionError:
        # Another client tracked a payload of absurd depth. It must not break the reader, so this
        # payload is shared with the state instead of copied.
        shown |= {name: value for name, value in meta.items() if name not in _REFS}
    return shown


def _public(metas: list[Any]) -> list[dict[str, Any]]:
    return [_public_meta(meta) for meta in metas]


def transform(state: State) -> dict[str, list[dict[str, Any]]]:
    """Returns a copy of the state for users: ``{key: [{"presence_ref", ...}]}``."""
    return {key: _public(entry["metas"]) for key, entry in state.items()}


class _Moment:
    """A state and the changes that follow. While this object lives, its state is not changed."""

    __slots__ = ("__weakref__", "state", "steps")

    def __init__(self, state: State, steps: Sequence[_KeyChange] = ()) -> None:
        self.state: State = state
        self.steps: Sequence[_KeyChange] = steps


class PresenceSnapshot:
    """The state at the time of one event, computed only when it is read.

    A copy for each event would cost n times k for a state of n keys and a diff of k. Handlers
    seldom read the state.
    """

    __slots__ = ("_count", "_moment")

    def __init__(self, moment: _Moment, count: int | None = None) -> None:
        self._moment = moment
        self._count = count

    def list(self) -> dict[str, Any]:
        """Returns ``{key: [{"presence_ref", ...}]}``, a new copy at each call."""
        moment, count = self._moment, self._count
        steps = moment.steps if count is None else moment.steps[:count]
        if not steps:
            return transform(moment.state)
        state = dict(moment.state)
        for step in steps:
            _put(state, step)
        if count is not None:
            # During the leave of its last meta a key is still there, with an empty list.
            last = steps[-1]
            state[last.key] = last.entry
        return transform(state)


class PresenceUpdate(NamedTuple):
    """The ``join`` or ``leave`` of one key, or the ``sync`` at the end of each message.

    ``current`` are the presences before a join, or those that remain after a leave. ``changed``
    are those that joined or left. ``presence_state()`` returns ``state.list()`` meanwhile.
    """

    kind: str
    key: str
    current: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    state: PresenceSnapshot


def _event(step: _KeyChange, snapshot: PresenceSnapshot) -> PresenceUpdate:
    return PresenceUpdate(
        step.kind, step.key, _public(step.current), _public(step.changed), snapshot
    )


class PresenceState:
    """The presence of one channel, across its joins.

    The changes of the last diff are put into the state when the next diff comes or when the state
    is read. Until then snapshots combine the old state and the changes. So a diff of k keys costs
    k, however many keys are present.

    The state takes at most about ``STATE_LIMIT`` bytes of memory. The sizes of diffs are summed up,
    and the state is weighed only when their sum could have filled it.
    """

    def __init__(self) -> None:
        self._state: State = {}
        self._steps: Sequence[_KeyChange] = ()
        self._moment: weakref.ref[_Moment] | None = None
        self._join_ref: str | None = None
        self._pending: deque[tuple[int, tuple[State, State]]] | None = None
        self._pending_bytes = 0
        self._pending_ref: str | None = None
        self._received = 0
        """Bytes of diffs applied or refused since the state was weighed."""
        self._weigh_at = STATE_LIMIT // GROWTH
        self._free = self._weigh_at
        """Bytes of diffs that need no closer look; negative if the state is full."""

    def _settled(self) -> State:
        """Returns the state with all changes in it. Only this class may change it."""
        moment = None if self._moment is None else self._moment()
        if moment is not None:
            # A snapshot of the old state is still in use: change a copy.
            self._state = dict(self._state)
        self._moment = None
        steps, self._steps = self._steps, ()
        for step in steps:
            _put(self._state, step)
        return self._state

    def _look(self) -> _Moment:
        """Returns the current state and changes for the snapshots of events."""
        moment = _Moment(self._state, self._steps)
        self._moment = weakref.ref(moment)
        return moment

    def list(self) -> dict[str, Any]:
        """Returns ``{key: [{"presence_ref", ...}]}``, a new copy at each call."""
        return transform(self._settled())

    def receive_state(self, new: Any, join_ref: str | None) -> Sequence[PresenceUpdate]:
        """Apply the whole state of the join ``join_ref``, then the diffs that waited for it.

        Returns the events in the order of supabase-js. Raises ``DecodeError`` before any change,
        also for a state that is too large.
        """
        weight = _weight(_checked_state(new))
        if self._pending and join_ref == self._pending_ref:
            weight += sum(_weight(diff[0]) for _, diff in self._pending)
        if weight > STATE_LIMIT:
            raise _too_large()
        self._weighed(weight)
        before = self._settled()
        joins, leaves = _difference(before, new)
        # As in supabase-js, handlers see the old state until the new one is complete.
        old = PresenceSnapshot(_Moment(before))
        self._state, steps = _apply(before, joins, leaves)
        events = [_event(step, old) for step in steps]
        self._join_ref = join_ref
        for diff in self._pop_pending(join_ref):
            events += self._steps_of_diff(*diff)
        events.append(self._sync())
        return events

    def receive_diff(
        self, diff: Any, join_ref: str | None, size: int | None = None
    ) -> Sequence[PresenceUpdate]:
        """Apply a diff of ``size`` bytes of JSON, or keep it until the state of this join comes.

        Returns the events in the order of supabase-js. Raises ``DecodeError`` before any change,
        also if the state would become too large.
        """
        checked = _checked_diff(diff)
        if size is None:
            size = _size(checked)
        if self._join_ref is None or self._join_ref != join_ref:
            self._keep(checked, join_ref, size)
            return []
        self._received += size
        if self._received > self._free:
            self._make_room(checked[0])
        return [*self._steps_of_diff(*checked), self._sync()]

    def apply_diff(self, diff: Any, join_ref: str | None, size: int) -> bool:
        """Apply a diff without join and leave events. Returns True if ``sync`` is due.

        Raises ``DecodeError`` before any change for a diff that ``receive_diff`` has to look at.
        """
        joins, leaves = _checked_diff(diff)
        if self._join_ref is None or self._join_ref != join_ref:
            self._keep((joins, leaves), join_ref, size)
            return False
        received = self._received + size
        if received > self._free:
            raise _too_large()
        self._received = received
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

    def _make_room(self, joins: State) -> None:
        """Weigh the state if it is time. Raises ``DecodeError`` if ``joins`` do not fit in."""
        if self._received > self._weigh_at:
            held = _weight(self._settled())
            self._weighed(held)
            if joins and held + _weight(joins) > STATE_LIMIT:
                raise _too_large()
        elif joins:
            # Full when it was last weighed. Leaves are still applied.
            raise _too_large()

    def _weighed(self, weight: int) -> None:
        self._received = 0
        self._weigh_at = max(WEIGH_EVERY, (STATE_LIMIT - weight) // GROWTH)
        self._free = self._weigh_at if weight <= STATE_LIMIT else -1

    def _steps_of_diff(self, joins: State, leaves: State) -> Sequence[PresenceUpdate]:
        self._steps = _steps(self._settled(), joins, leaves)
        moment = self._look()
        return [
            _event(step, PresenceSnapshot(moment, count))
            for count, step in enumerate(self._steps, 1)
        ]

    def _sync(self) -> PresenceUpdate:
        moment = None if self._moment is None else self._moment()
        return PresenceUpdate("sync", "", [], [], PresenceSnapshot(moment or self._look()))

    def _keep(self, diff: tuple[State, State], join_ref: str | None, size: int) -> None:
        # Diffs of an earlier join would bring back keys that left between the two joins.
        if self._pending is None or join_ref != self._pending_ref:
            self._pending = deque()
            self._pending_ref = join_ref
            self._pending_bytes = 0
        self._pending.append((size, diff))
        self._pending_bytes += size
        # A full queue drops its oldest diff, which the coming state most likely contains.
        while len(self._pending) > PENDING_LIMIT or self._pending_bytes > PENDING_BYTES:
            self._pending_bytes -= self._pending.popleft()[0]

    def _pop_pending(self, join_ref: str | None) -> Iterable[tuple[State, State]]:
        taken, self._pending = self._pending, None
        if taken is None or join_ref != self._pending_ref:
            return ()
        return [diff for _, diff in taken]
