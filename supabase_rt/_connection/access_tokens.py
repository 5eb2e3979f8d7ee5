"""The access token: given by hand, or asked from the user's callback.

The callback is called before every connect and every rejoin, one call at a time, for at most
``timeout`` seconds. If it raises, hangs or returns no token, the last token that worked stays in
use. So a token service that is down does not cost the socket.

A callback may call the client. ``set_auth()`` without a token, called by the callback itself, does
not call it again: that would never end.
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


class _CallbackCall:
    """A call of a callback, known to all code that runs in its context."""

    __slots__ = ("is_over", "outer", "owner")

    def __init__(self, owner: AccessTokens, outer: _CallbackCall | None) -> None:
        self.owner = owner
        self.outer = outer
        """The call of another client's callback that led to this one."""
        self.is_over = False


_current_call: ContextVar[_CallbackCall | None] = ContextVar("supabase_rt_asking", default=None)


class AccessTokens:
    """Calls the callback for tokens; only the newest answer counts.

    Args:
        use: called with each token that is to be used from now on.
        report: called with an error of the callback.
    """

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
        self._task: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[None], int] = {}
        """Every task that is alive, with its generation; only the newest one's answer counts."""

    def set(self, token: str) -> None:
        """Use a token given by hand; answers still under way no longer count."""
        check_token(token)
        self._generation += 1
        self._use(token)

    @property
    def is_asked_here(self) -> bool:
        """True if the caller runs inside the callback, which has not returned yet."""
        call = _current_call.get()
        while call is not None:
            if call.owner is self and not call.is_over:
                return True
            call = call.outer
        return False

    def refresh(self, *, anew: bool = False) -> asyncio.Task[None] | None:
        """Call the callback, or join the call under way; ``anew`` always starts a new call.

        Returns the task, which never raises, or None if there is no callback.
        """
        if self.callback is None:
            return None
        if self._task is None or self._task.done() or anew:
            self._generation += 1
            generation = self._generation
            self._task = asyncio.get_running_loop().create_task(
                self._run(self.callback, generation), name="supabase_rt:token"
            )
            self._tasks[self._task] = generation
            self._task.add_done_callback(self._tasks.pop)
        return self._task

    async def _run(self, callback: Callable[[], Any], generation: int) -> None:
        await self._ask(callback, generation)
        # The awaiting caller wants a token in use, and a newer call now decides which one.
        newer = [task for task, number in self._tasks.items() if number > generation]
        if newer:
            await asyncio.wait(newer)

    async def _ask(self, callback: Callable[[], Any], generation: int) -> None:
        call = _CallbackCall(self, _current_call.get())
        # This task has a context of its own, so nothing has to be reset.
        _current_call.set(call)
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
                # This must come before the call counts as over. Otherwise a listener of ``error``
                # that calls set_auth() would ask a failing callback again and again.
                self._report(error)
        finally:
            call.is_over = True

    async def _answer(self, callback: Callable[[], Any], generation: int) -> str:
        """Use the token that the callback returns; returns the problem, or an empty text."""
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
                # The coroutine is garbage-collected, together with its loop.
                raise
            return _raised(exc)
        return self._use_answer(found, generation)

    def _use_answer(self, token: Any, generation: int) -> str:
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
        """Cancel the calls under way and wait until they have ended."""
        self._task = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def forget_loop(self) -> None:
        """Drop the calls under way: their loop is gone."""
        self._task = None
        self._tasks.clear()


def _raised(error: BaseException) -> str:
    log.error("Error fetching access token from callback", exc_info=error, extra=facts(error))
    return f"the access_token callback raised {type(error).__name__}"


def _is_current(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
