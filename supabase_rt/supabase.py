"""``create_client``: the first line of a ported program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .channel import RealtimeChannel
from .client import RealtimeClient
from .options import check_key
from .outcome import Outcome
from .protocol.names import no_attribute
from .protocol.urls import realtime_endpoint, redact

__all__ = ["SupabaseClient", "create_client"]


class SupabaseClient:
    """A Supabase project: its Realtime client, and the channel methods of supabase-js."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        realtime: Mapping[str, Any] | None = None,
        access_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
    ) -> None:
        check_key({"apikey": key})
        options = dict(realtime or {})
        params = {"apikey": key, **(options.pop("params", None) or {})}
        callback = options.pop("access_token", access_token)
        self.supabase_url = url
        self.realtime = RealtimeClient(
            realtime_endpoint(url), params=params, access_token=callback, **options
        )
        if callback is None:
            # As supabase-js does while nobody is signed in: joins carry the key itself.
            self.realtime.set_auth(key)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        return f"<SupabaseClient {redact(self.supabase_url)}>"

    def channel(self, name: str, opts: Mapping[str, Any] | None = None) -> RealtimeChannel:
        """See ``RealtimeClient.channel``."""
        return self.realtime.channel(name, opts)

    def get_channels(self) -> list[RealtimeChannel]:
        """See ``RealtimeClient.get_channels``."""
        return self.realtime.get_channels()

    def remove_channel(self, channel: RealtimeChannel) -> Outcome[str]:
        """See ``RealtimeClient.remove_channel``."""
        return self.realtime.remove_channel(channel)

    def remove_all_channels(self) -> Outcome[list[str]]:
        """See ``RealtimeClient.remove_all_channels``."""
        return self.realtime.remove_all_channels()


def create_client(
    url: str,
    key: str,
    *,
    realtime: Mapping[str, Any] | None = None,
    access_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
) -> SupabaseClient:
    """A client of the project at ``url``; does no I/O and needs no event loop.

    Args:
        url: ``https://<ref>.supabase.co``; Realtime is at ``{url}/realtime/v1``.
        key: the anon, publishable or service key.
        realtime: keyword options of ``RealtimeClient``.
        access_token: a function, plain or ``async``, that returns the user's token. Without it
            the key is the token, as in supabase-js.

    Raises:
        ValueError, TypeError: no key, an unusable URL, an unknown option.
    """
    return SupabaseClient(url, key, realtime=realtime, access_token=access_token)
