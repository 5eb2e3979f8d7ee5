"""The result of work that has already begun.

``send``, ``connect`` and the like start at the call and return an ``Outcome``: it may be awaited
many times, by several tasks, through ``gather`` and ``wait_for``, or never. It is no coroutine
and no future: an un-awaited coroutine would do nothing and warn, and cancelling an await of a
future cancels the future, while here the work goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .._name_hints import no_attribute
from .event_loop import wake

__all__ = ["Outcome", "Recorded", "Reply", "Waiting"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """A result that is settled once, by whoever does the work.

    ``unheard`` is called with a failure that nobody is waiting for when it happens.
    """

    _moved: ClassVar[dict[str, str]] = dict.fromkeys(
        ("then", "catch"), "an await: result = await channel.send(...)"
    )

    __slots__ = ("__weakref__", "_error", "_result", "_settled", "_unheard", "_waiters")

    def __init__(self, unheard: Callable[[BaseException], None] | None = None) -> None:
        self._result: T | None = None
        self._error: BaseException | None = None
        self._settled = False
        self._waiters: list[asyncio.Future[None]] = []
        self._unheard = unheard

    @classmethod
    def of(cls, result: T) -> Outcome[T]:
        """An outcome that is settled already."""
        outcome: Outcome[T] = cls()
        outcome.succeed(result)
        return outcome

    def done(self) -> bool:
        """Whether the work is over."""
        return self._settled

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is waiting right now."""
        return any(not waiter.done() for waiter in self._waiters)

    def succeed(self, result: T) -> None:
        """Settle with a result; the first settling counts."""
        if not self._settled:
            self._settled = True
            self._result = result
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Settle with an exception, which every await raises; the first settling counts."""
        if self._settled:
            return
        self._settled = True
        self._error = error
        heard = self.is_awaited
        self._wake()
        if not heard and self._unheard is not None:
            self._unheard(error)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            wake(waiter)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            finally:
                # Cancelled, or woken: a cancelled waiter must not count as somebody waiting.
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self._error is not None:
            # Raised at every await: without this it would grow by a trace each time.
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        if not self._settled:
            return "<Outcome pending>"
        return f"<Outcome {self._error!r}>" if self._error else f"<Outcome {self._result!r}>"


class Recorded(Outcome[T]):
    """Of a call before there was a loop, which only wrote it down: to await it is to begin."""

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[], object]) -> None:
        super().__init__()
        self._begin = begin

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            self._begin()
        return super().__await__()


class Waiting:
    """The outcomes of everybody who waits for one and the same thing."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome[None]] = []
        self._then: list[Callable[[], object]] = []

    def add(
        self,
        begin: Callable[[], object] | None = None,
        then: Callable[[], object] | None = None,
    ) -> Outcome[None]:
        """One more who waits. A failure is told where it happens, so none is ``unheard``.

        ``begin``, where there is no loop yet, is called by whoever waits first; ``then`` when
        there is nothing to wait for any more.
        """
        outcome: Outcome[None] = Outcome() if begin is None else Recorded(begin)
        self._outcomes.append(outcome)
        if then is not None:
            self._then.append(then)
        return outcome

    def remove(self, outcome: Outcome[None]) -> None:
        """Somebody gave up waiting."""
        if outcome in self._outcomes:
            self._outcomes.remove(outcome)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is waiting right now."""
        return any(outcome.is_awaited for outcome in self._outcomes)

    def take(self) -> Waiting:
        """Those who wait now; who comes later waits for the next time."""
        taken = Waiting()
        taken._outcomes, self._outcomes = self._outcomes, []
        taken._then, self._then = self._then, []
        return taken

    def succeed(self) -> None:
        """It has happened."""
        self._settle(lambda outcome: outcome.succeed(None))

    def fail(self, error: BaseException) -> None:
        """It will not happen."""
        self._settle(lambda outcome: outcome.fail(error))

    def _settle(self, settle: Callable[[Outcome[None]], None]) -> None:
        taken = self.take()
        for outcome in taken._outcomes:
            settle(outcome)
        for then in taken._then:
            then()


class Reply(Outcome[str]):
    """The result of a request that the server answers: ``ok``, ``error`` or ``timed out``."""

    __slots__ = ("persisted",)

    def __init__(self, persisted: bool = False) -> None:
        super().__init__()
        self.persisted: bool = persisted

    def push_ended(self, result: str, response: Any) -> None:
        """Called with the machine's verdict."""
        if self.persisted and result == "error" and isinstance(response, dict):
            reason = response.get("error")
            result = reason if isinstance(reason, str) else result
        self.succeed(result)
