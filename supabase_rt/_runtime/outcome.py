"""The result of work that has already begun.

``send``, ``connect`` and the like start at the call and return an ``Outcome``. It may be awaited
many times, by several tasks, through ``gather`` and ``wait_for``, or never.

It is neither a coroutine nor a future. An un-awaited coroutine does nothing and warns. Cancelling
an await of a future cancels the future, while here the work goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .._name_hints import no_attribute
from .event_loop import wake

__all__ = ["DeferredOutcome", "Outcome", "Reply", "Waiters", "settle"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """A result that is settled once, by the code that does the work.

    ``on_unawaited_failure`` is called with a failure that nobody awaits when it happens.
    """

    _moved: ClassVar[dict[str, str]] = dict.fromkeys(
        ("then", "catch"), "an await: result = await channel.send(...)"
    )

    __slots__ = (
        "__weakref__",
        "_error",
        "_on_unawaited_failure",
        "_result",
        "_settled",
        "_waiters",
    )

    def __init__(self, on_unawaited_failure: Callable[[BaseException], None] | None = None) -> None:
        self._result: T | None = None
        self._error: BaseException | None = None
        self._settled = False
        self._waiters: list[asyncio.Future[None]] = []
        self._on_unawaited_failure = on_unawaited_failure

    @classmethod
    def of(cls, result: T) -> Outcome[T]:
        """Returns an outcome that is settled already."""
        outcome: Outcome[T] = cls()
        outcome.succeed(result)
        return outcome

    def done(self) -> bool:
        """Returns True if the work is over."""
        return self._settled

    @property
    def is_awaited(self) -> bool:
        """True if a task is awaiting the result right now."""
        return any(not waiter.done() for waiter in self._waiters)

    def succeed(self, result: T) -> None:
        """Settle with a result; only the first call counts."""
        if not self._settled:
            self._settled = True
            self._result = result
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Settle with an exception, which every await raises; only the first call counts."""
        if self._settled:
            return
        self._settled = True
        self._error = error
        was_awaited = self.is_awaited
        self._wake()
        if not was_awaited and self._on_unawaited_failure is not None:
            self._on_unawaited_failure(error)

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
                # After a cancelled await, too: its waiter must not count as awaiting.
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self._error is not None:
            # Each await would add its frames to the traceback of the shared exception.
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        if not self._settled:
            return "<Outcome pending>"
        return f"<Outcome {self._error!r}>" if self._error else f"<Outcome {self._result!r}>"


def settle(outcome: Any, result: str) -> None:
    """Settle the outcome of a frame, if it has one."""
    if isinstance(outcome, Outcome):
        outcome.succeed(result)


class DeferredOutcome(Outcome[T]):
    """The outcome of a call made before a loop ran: the first await calls ``start``."""

    __slots__ = ("_start",)

    def __init__(self, start: Callable[[], object]) -> None:
        super().__init__()
        self._start = start

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            self._start()
        return super().__await__()


class Waiters:
    """The outcomes of all callers that wait for the same thing."""

    def __init__(
        self,
        outcomes: Iterable[Outcome[None]] = (),
        callbacks: Iterable[Callable[[], object]] = (),
    ) -> None:
        self._outcomes = list(outcomes)
        self._callbacks = list(callbacks)

    def add(
        self,
        start: Callable[[], object] | None = None,
        on_settled: Callable[[], object] | None = None,
    ) -> Outcome[None]:
        """Returns the outcome of one more caller.

        ``start`` is for a call made before a loop ran: the first await calls it.
        ``on_settled`` is called after all outcomes are settled.
        """
        # No ``on_unawaited_failure`` here: the code that fails these outcomes has reported the
        # error.
        outcome: Outcome[None] = Outcome() if start is None else DeferredOutcome(start)
        self._outcomes.append(outcome)
        if on_settled is not None:
            self._callbacks.append(on_settled)
        return outcome

    def remove(self, outcome: Outcome[None]) -> None:
        """Forget a caller that gave up waiting."""
        if outcome in self._outcomes:
            self._outcomes.remove(outcome)

    @property
    def is_awaited(self) -> bool:
        """True if a task is awaiting one of the outcomes right now."""
        return any(outcome.is_awaited for outcome in self._outcomes)

    def detach(self) -> Waiters:
        """Returns the present waiters; later callers wait for the next time."""
        detached = Waiters(self._outcomes, self._callbacks)
        self._outcomes, self._callbacks = [], []
        return detached

    def succeed(self) -> None:
        """Settle all outcomes: it has happened."""
        self._settle(lambda outcome: outcome.succeed(None))

    def fail(self, error: BaseException) -> None:
        """Fail all outcomes: it will not happen."""
        self._settle(lambda outcome: outcome.fail(error))

    def _settle(self, settle_one: Callable[[Outcome[None]], None]) -> None:
        outcomes, self._outcomes = self._outcomes, []
        callbacks, self._callbacks = self._callbacks, []
        for outcome in outcomes:
            settle_one(outcome)
        for callback in callbacks:
            callback()


class Reply(Outcome[str]):
    """The result of a request that the server answers: ``ok``, ``error`` or ``timed out``."""

    __slots__ = ("persisted",)

    def __init__(self, persisted: bool = False) -> None:
        super().__init__()
        self.persisted: bool = persisted

    def push_ended(self, result: str, response: Any) -> None:
        """Settle with the result; a refused ``persist`` gives the server's reason instead."""
        if self.persisted and result == "error" and isinstance(response, dict):
            reason = response.get("error")
            result = reason if isinstance(reason, str) else result
        self.succeed(result)
