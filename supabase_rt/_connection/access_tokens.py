"""Where the access token comes from.

The callback is awaited before every connect and every rejoin. It is asked once at a time, for at
most ``timeout`` seconds, and whatever it does (raise, hang, return nonsense) the last token that
worked stays in use: a token service that is down must not take the socket with it.

A callback may call the client. ``set_auth()`` within it asks nobody: it would ask for ever.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from .._printable import get_logger
from .._runtime.background_tasks import TooLong, in_time
from .._runtime.log_fields import facts
from .._wire.jwt_claims import check_token
from ..errors import AuthError

__all__ = ["AccessTokens"]

log: Final = get_logger("supabase_rt.auth")


class _Asking:
    """One call of a callback, as everything that it calls knows it."""

    __slots__ = ("is_over", "source", "within")

    def __init__(self, source: AccessTokens, within: _Asking | None) -> None:
        self.source = source
        self.within = within
        """The callback of another client may be what asks."""
        self.is_over = False


_asking: ContextVar[_Asking | None] = ContextVar("supabase_rt_asking", default=None)


class AccessTokens:
    """Asks the callback; only the newest answer counts."""

    def __init__(
        self,
        callback: Callable[[], Any] | None,
        timeout: float,
        use: Callable[[str | None], None],
        report: Callable[[BaseException], None],
    ) -> None:
        self.callback = callback
        self._timeout = timeout
        self._use = use
        self._report = report
        self._generation = 0
        self._flight: asyncio.Task[None] | None = None
        self._flights: dict[asyncio.Task[None], int] = {}
        """All that are alive, with their generation: those that were overtaken too."""

    def set(self, token: str) -> None:
        """A token given by hand; answers still under way are out of date from now on."""
        check_token(token)
        self._generation += 1
        self._use(token)

    @property
    def is_asked_here(self) -> bool:
        """Whether whoever runs now was called by the callback, which has not answered yet."""
        asking = _asking.get()
        while asking is not None:
            if asking.source is self and not asking.is_over:
                return True
            asking = asking.within
        return False

    def refresh(self, *, anew: bool = False) -> asyncio.Task[None] | None:
        """Ask the callback, or join the asking under way. ``anew`` makes a new asking of it.

        The task never raises; it is None where there is no callback.
        """
        if self.callback is None:
            return None
        if self._flight is None or self._flight.done() or anew:
            self._generation += 1
            generation = self._generation
            self._flight = asyncio.get_running_loop().create_task(
                self._fly(self.callback, generation), name="supabase_rt:token"
            )
            self._flights[self._flight] = generation
            self._flight.add_done_callback(self._flights.pop)
        return self._flight

    async def _fly(self, callback: Callable[[], Any], generation: int) -> None:
        """Ask, and end no sooner than who overtook: whoever waits wants a token in use."""
        await self._ask(callback, generation)
        newer = [task for task, number in self._flights.items() if number > generation]
        if newer:
            await asyncio.wait(newer)

    async def _ask(self, callback: Callable[[], Any], generation: int) -> None:
        asking = _Asking(self, _asking.get())
        # In the context of this task, which is its own.
        _asking.set(asking)
        try:
            problem = await self._answer(callback, generation)
            if problem:
                error = AuthError(
                    problem,
                    code="TokenCallbackFailed",
                    retryable=True,
                    hint="the last token stays in use; make the callback return a token",
                )
                log.error("%s", problem, extra=facts(error))
                # Within the asking: a listener that asks again at once would do so for ever.
                self._report(error)
        finally:
            asking.is_over = True

    async def _answer(self, callback: Callable[[], Any], generation: int) -> str:
        """Use what the callback returns; returns what is wrong with it."""
        task = asyncio.current_task()
        try:
            found = callback()
            if inspect.isawaitable(found):
                found = (await in_time(found, self._timeout, "token-callback")).result()
        except TooLong:
            return f"the access_token callback did not return within {self._timeout:g} s"
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            return "the access_token callback was cancelled"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) and not _is_current(task):
                # Collected, with the loop it ran in.
                raise
            return _raised(exc)
        return self._take(found, generation)

    def _take(self, token: Any, generation: int) -> str:
        if generation != self._generation:
            return ""
        if token is None:
            self._use(None)
            return ""
        try:
            check_token(token)
        except (TypeError, ValueError) as exc:
            return f"the access_token callback returned no token: {exc}"
        self._use(token)
        return ""

    async def aclose(self) -> None:
        """Stop asking and wait until the asking has stopped."""
        self._flight = None
        flights = list(self._flights)
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def forget_loop(self) -> None:
        """Drop the calls under way: their loop is gone."""
        self._flight = None
        self._flights.clear()


def _raised(error: BaseException) -> str:
    log.error("Error fetching access token from callback", exc_info=error, extra=facts(error))
    return f"the access_token callback raised {type(error).__name__}"


def _is_current(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
