"""``create_client`` for blocking programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .. import SupabaseClient as AsyncSupabaseClient
from .background import call
from .channel import RealtimeChannel
from .client import RealtimeClient, _threaded_options

__all__ = ["SupabaseClient", "create_client"]


class SupabaseClient:
    """A Supabase project, blocking: its Realtime client, and the methods of supabase-js.

    ``auth``, ``from_()``, ``rpc()``, ``storage`` and ``functions`` (``supabase-rt[full]``) are
    the same clients as in ``supabase_rt``, with calls that wait.
    """

    def __init__(self, url: str, key: str, **options: Any) -> None:
        options = _threaded_options(options)
        if isinstance(options.get("realtime"), Mapping):
            options["realtime"] = _threaded_options(dict(options["realtime"]))
        self._supabase = AsyncSupabaseClient(url, key, **options)
        self.supabase_url = url
        self.realtime: RealtimeClient = RealtimeClient._of(self._supabase.realtime)

    def __repr__(self) -> str:
        return f"<sync {self._supabase!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "_supabase":
                raise AttributeError(name)
            getattr(self._supabase, name)
            raise AttributeError(f"{name!r} is not offered by the blocking client")

    def channel(self, name: str, opts: Mapping[str, Any] | None = None) -> RealtimeChannel:
        """See ``RealtimeClient.channel``."""
        return self.realtime.channel(name, opts)

    def get_channels(self) -> list[RealtimeChannel]:
        """See ``RealtimeClient.get_channels``."""
        return self.realtime.get_channels()

    def remove_channel(self, channel: RealtimeChannel) -> str:
        """See ``RealtimeClient.remove_channel``."""
        return self.realtime.remove_channel(channel)

    def remove_all_channels(self) -> list[str]:
        """See ``RealtimeClient.remove_all_channels``."""
        return self.realtime.remove_all_channels()

    @property
    def auth(self) -> Any:
        """Sign-up, sign-in and sessions."""
        return _Blocking(self._supabase.auth)

    @property
    def storage(self) -> Any:
        """Buckets and files."""
        return _Blocking(self._supabase.storage)

    @property
    def functions(self) -> Any:
        """Edge functions."""
        return _Blocking(self._supabase.functions)

    def from_(self, table: str) -> Any:
        """A query on ``table``: ``supabase.from_("todos").select("*").execute()``."""
        return _Blocking(self._supabase.from_(table))

    def table(self, table: str) -> Any:
        """Another name of ``from_``."""
        return self.from_(table)

    def schema(self, name: str) -> Any:
        """A client of another schema, with ``from_`` and ``rpc``."""
        return _Blocking(self._supabase.schema(name))

    def rpc(self, fn: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Call a function of the database."""
        return _Blocking(self._supabase.rpc(fn, args, **options))

    def close(self) -> None:
        """Leave every channel, disconnect, and close the connections of the other services."""
        call(self._supabase.aclose)

    def __enter__(self) -> Self:
        """Nothing is opened here: ``subscribe()`` and the first request do that."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Blocking:
    """A client or a query of another package: what is a coroutine there is waited for here."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return _blocking(getattr(self._target, name))

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


def _blocking(found: Any) -> Any:
    if inspect.isroutine(found):

        def wait(*args: Any, **options: Any) -> Any:
            return _blocking(call(found, *args, **options))

        return wait
    # Those packages name so what leads to coroutines; rows, sessions and the like are results.
    return _Blocking(found) if type(found).__name__.startswith("Async") else found


def create_client(url: str, key: str, **options: Any) -> SupabaseClient:
    """A blocking client of the project at ``url``; the arguments of ``supabase_rt.create_client``.

    Raises ``ValueError`` or ``TypeError`` for an unusable URL or option.
    """
    return SupabaseClient(url, key, **options)
