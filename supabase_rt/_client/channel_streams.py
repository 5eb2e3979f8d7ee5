"""The iterating half of a channel: ``stream`` and ``wait_for``."""

from __future__ import annotations

import asyncio
import builtins
import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, overload

from .._backfill.backfill_stream import backfill_stream
from .._backfill.options import Backfill
from .._handlers.event_stream import Stream, wait_for_event, weak_handler
from .._handlers.handler import Handler
from .._handlers.signatures import check_asked
from .._payloads.broadcast import Broadcast, PostgresChange
from .._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from .._payloads.system_message import SystemMessage
from .._protocol.channel_options import MAXBYTES, check_filter, check_listen_type, check_seconds
from .._runtime.event_loop import LoopBound
from .._runtime.outcome import Outcome
from ..errors import InvalidState, TimedOut
from ..types import (
    BroadcastFilter,
    ChangesFilter,
    PresenceFilter,
    PresenceJoinFilter,
    PresenceLeaveFilter,
    PresenceSyncFilter,
    SystemFilter,
    TypesMode,
)
from .channel_listening import (
    AnyPresence,
    Broadcasts,
    Changes,
    Filter,
    Listening,
    Presences,
    Systems,
)

__all__ = ["Iterating"]

Row = TypeVar("Row")


class Iterating(Listening):
    """Events of one channel, iterated over or waited for."""

    @overload
    def stream(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        maxsize: int = ...,
        *,
        model: builtins.type[Row],
        backfill: Backfill | None = ...,
        maxbytes: int = ...,
    ) -> Stream[PostgresChange[Row]]: ...

    @overload
    def stream(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        maxsize: int = ...,
        *,
        types: TypesMode | None = ...,
        backfill: Backfill | None = ...,
        maxbytes: int = ...,
    ) -> Stream[PostgresChange[dict[str, Any]]]: ...

    @overload
    def stream(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[Broadcast]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceSync]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceJoin]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceLeave]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[AnyPresence]: ...

    @overload
    def stream(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[SystemMessage]: ...

    def stream(
        self,
        type: str,
        filter: Any,
        maxsize: int = 1000,
        *,
        types: str | None = None,
        model: builtins.type[Any] | None = None,
        backfill: Backfill | None = None,
        maxbytes: int = MAXBYTES,
    ) -> Stream[Any]:
        """The same events as an async iterator, from this call on. See ``on``.

        At most ``maxsize`` events wait, of frames of ``maxbytes`` bytes in sum; then the oldest
        goes, counted and told by ``gap``. Ends when the channel is closed. Raises as ``on``,
        except that what is bound already may be streamed while joined. With ``backfill`` an event
        counts as handled when the next one is asked for or the loop is left.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._check_options(maxsize, "drop_oldest", types, maxbytes)
        options: dict[str, Any] = {"types": self._reading(listen_type, types, model)}
        self._check_backfill(listen_type, checked, backfill)
        self._require_live()
        self._require_bound(listen_type, checked)
        found: Stream[Any]
        if backfill is None:
            found = Stream(self._core.dispatch, self._machine.topic, maxsize, maxbytes)
            registration = self._register(listen_type, checked, weak_handler(found), **options)
        else:
            found, function = backfill_stream(self._core.dispatch, self._machine.topic)
            options |= {"backfill": backfill, "maxsize": maxsize, "maxbytes": maxbytes}
            registration = self._register(listen_type, checked, function, **options)
        found.attach(registration, self._core.connection)
        self._streams.add(found)
        if self._machine.rest is not None:
            found.end(self._machine.rest)
        return found

    @overload
    def wait_for(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        check: Callable[[PostgresChange[Row]], Any] | None = ...,
        timeout: float | None = ...,
        *,
        model: builtins.type[Row],
    ) -> Outcome[PostgresChange[Row]]: ...

    @overload
    def wait_for(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        check: Callable[[PostgresChange[dict[str, Any]]], Any] | None = ...,
        timeout: float | None = ...,
        *,
        types: TypesMode | None = ...,
    ) -> Outcome[PostgresChange[dict[str, Any]]]: ...

    @overload
    def wait_for(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        check: Callable[[Broadcast], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[Broadcast]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        check: Callable[[PresenceSync], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceSync]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        check: Callable[[PresenceJoin], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceJoin]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        check: Callable[[PresenceLeave], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceLeave]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        check: Callable[[AnyPresence], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[AnyPresence]: ...

    @overload
    def wait_for(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        check: Callable[[SystemMessage], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[SystemMessage]: ...

    def wait_for(
        self,
        type: str,
        filter: Any,
        check: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
        *,
        types: str | None = None,
        model: builtins.type[Any] | None = None,
    ) -> Outcome[Any]:
        """The next event that fits and passes ``check``, from this call on; await the result.

        ``timeout`` in seconds, None to wait for ever. Raises as ``stream`` at the call; when
        awaited ``TimedOut``, what ``check`` raised, or the error that ended the channel.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        if check is not None:
            check_asked("check", check)
        self._check_options(1, "drop_oldest", types)
        reading = self._reading(listen_type, types, model)
        self._require_live()
        self._require_bound(listen_type, checked)
        self._core.connection.enter_loop(required="wait_for")
        outcome = _Wait(self._core.connection)
        outcome.registration = self._register(
            listen_type, checked, wait_for_event(outcome, check), types=reading
        )
        self._waits.add(outcome)
        if seconds is not None:
            error = TimedOut(f"no such {listen_type} event within {seconds:g} s")
            loop = asyncio.get_running_loop()
            outcome.timer = loop.call_later(seconds, _fail, weakref.ref(outcome), error)
        if self._machine.rest is not None:
            outcome.fail(self._machine.rest)
        return outcome

    def _end_listening(self, error: BaseException | None) -> None:
        """The channel is over, or rests with an error: iterators and waits end with it."""
        for stream in list(self._streams):
            stream.end(error)
        reason = error or InvalidState(f"{self._machine.topic} was closed")
        for outcome in list(self._waits):
            outcome.fail(reason)


class _Wait(Outcome[Any]):
    """An outcome that lets go of its registration when it is settled, or dropped.

    The channel holds it weakly, as a stream: an await that is cancelled drops it without a word.
    """

    __slots__ = ("_owner", "registration", "timer")

    def __init__(self, owner: LoopBound) -> None:
        super().__init__()
        self._owner = owner
        self.registration: Handler | None = None
        self.timer: asyncio.TimerHandle | None = None

    def _wake(self) -> None:
        super()._wake()
        _release(self.registration, self.timer)

    def __del__(self) -> None:
        if not self._settled:
            self._owner.in_loop(functools.partial(_release, self.registration, self.timer))


def _release(registration: Handler | None, timer: asyncio.TimerHandle | None) -> None:
    if registration is not None:
        registration.end()
    if timer is not None:
        timer.cancel()


def _fail(wait: weakref.ref[_Wait], error: BaseException) -> None:
    outcome = wait()
    if outcome is not None:
        outcome.fail(error)
