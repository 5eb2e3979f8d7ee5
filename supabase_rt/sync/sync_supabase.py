"""``create_client`` for blocking programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Never, Self

from .. import SupabaseClient as AsyncSupabaseClient
from .facade import facade
from .loop_thread import call
from .sync_channel import RealtimeChannel
from .sync_client import RealtimeClient, threaded_options

__all__ = ["SupabaseClient", "create_client"]


@facade
class SupabaseClient:
    """A blocking client of a Supabase project: Realtime, and the methods of supabase-js.

    ``auth``, ``from_()``, ``rpc()``, ``storage`` and ``functions`` (``supabase-rt[full]``) are
    the clients of ``supabase_rt``, with blocking calls.
    """

    def __init__(self, url: str, key: str, *wrong: Never, **options: Any) -> None:
        options = threaded_options(options)
        if isinstance(options.get("realtime"), Mapping):
            options["realtime"] = threaded_options(dict(options["realtime"]))
        self._inner = AsyncSupabaseClient(url, key, *wrong, **options)
        self.supabase_url = url
        self.realtime: RealtimeClient = RealtimeClient(self._inner.realtime)

    def channel(
        self,
        name: str,
        opts: Mapping[str, Any] | None = None,
        *,
        resubscribe_after: float | None = None,
        **unknown: Never,
    ) -> RealtimeChannel:
        """See ``RealtimeClient.channel``."""
        return self.realtime.channel(name, opts, resubscribe_after=resubscribe_after, **unknown)

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
        return _Blocking(self._inner.auth)

    @property
    def storage(self) -> Any:
        """Buckets and files."""
        return _Blocking(self._inner.storage)

    @property
    def functions(self) -> Any:
        """Edge functions."""
        return _Blocking(self._inner.functions)

    def from_(self, table: str) -> Any:
        """Returns a query on ``table``: ``supabase.from_("todos").select("*").execute()``."""
        return _Blocking(self._inner.from_(table))

    def table(self, table: str) -> Any:
        """Another name of ``from_``."""
        return self.from_(table)

    def schema(self, name: str) -> Any:
        """Returns a client of another schema, with ``from_`` and ``rpc``."""
        return _Blocking(self._inner.schema(name))

    def rpc(self, fn: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Call a function of the database."""
        return _Blocking(self._inner.rpc(fn, args, **options))

    def close(self) -> None:
        """Leave every channel, disconnect, and close the connections of the other services."""
        call(self._inner.aclose)

    def __enter__(self) -> Self:
        """Returns the client; ``subscribe()`` or the first request opens a connection."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Blocking:
    """A client or a query of another package; its coroutines become blocking calls."""

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
    # In those packages only classes named Async... have coroutines; other objects are results.
    return _Blocking(found) if type(found).__name__.startswith("Async") else found


def create_client(url: str, key: str, *wrong: Never, **options: Any) -> SupabaseClient:
    """Returns a blocking client of the project at ``url``.

    The arguments are those of ``supabase_rt.create_client``. Raises ``ValueError`` or
    ``TypeError`` for an unusable URL or option.
    """
    return SupabaseClient(url, key, *wrong, **options)
