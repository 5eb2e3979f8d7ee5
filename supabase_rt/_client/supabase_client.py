"""``create_client`` and the client of a whole project that it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Never, Self

from .._name_hints import no_attribute
from .._runtime.outcome import Outcome
from .._wire.urls import realtime_endpoint, redact
from ..errors import InvalidState
from ..types import ChannelOptions, RealtimeOptions
from .channel import RealtimeChannel
from .client import RealtimeClient
from .client_options import check_key, check_unknown

if TYPE_CHECKING:
    from postgrest import AsyncPostgrestClient, AsyncRequestBuilder, AsyncRPCFilterRequestBuilder
    from storage3 import AsyncStorageClient
    from supabase_auth import AsyncGoTrueClient
    from supabase_functions import AsyncFunctionsClient

    from .project_services import Services

__all__ = ["SupabaseClient", "create_client"]

AUTH_OPTIONS = {
    "autoRefreshToken": "auto_refresh_token",
    "persistSession": "persist_session",
    "storage": "storage",
    "storageKey": "storage_key",
    "flowType": "flow_type",
}
"""The keys of ``auth=`` as in supabase-js, and the names that the auth client has for them."""


OPTIONS = ("realtime", "access_token", "db", "auth", "global_")


class SupabaseClient:
    """A Supabase project: its Realtime client, and the channel methods of supabase-js.

    The extra ``supabase-rt[full]`` adds ``auth``, ``from_()``/``table()``/``rpc()``, ``storage``
    and ``functions``. Signing in or out changes the token of Realtime.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *wrong: Never,
        realtime: RealtimeOptions | None = None,
        access_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
        db: Mapping[str, Any] | None = None,
        auth: Mapping[str, Any] | None = None,
        global_: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> None:
        check_unknown(unknown, list(OPTIONS), "create_client", wrong)
        check_key({"apikey": key}, "create_client(url, key)")
        for name, given, known in (
            ("db", db, ["schema"]),
            ("auth", auth, list(AUTH_OPTIONS)),
            ("global_", global_, ["headers"]),
        ):
            _check_keys(name, given, known)
        self._headers: dict[str, str] = dict((global_ or {}).get("headers") or {})
        self._schema = (db or {}).get("schema") or "public"
        self._auth_options = {AUTH_OPTIONS[name]: value for name, value in (auth or {}).items()}
        options: Any = {"headers": self._headers or None, **(realtime or {})}
        params = {"apikey": key, **(options.pop("params", None) or {})}
        self._key = key
        self._access_token = options.pop("access_token", access_token)
        self._made: Services | None = None
        self.supabase_url = url
        self.realtime: RealtimeClient = RealtimeClient(
            realtime_endpoint(url), params=params, access_token=self._access_token, **options
        )
        if self._access_token is not None:
            return
        # As in supabase-js, joins carry the key itself while nobody is signed in.
        self.realtime.set_auth(key)
        if "storage" in self._auth_options:
            # The storage may have the session of an earlier run.
            self.realtime.__client_parts__.use_token_source(self._services.token)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        return f"<SupabaseClient {redact(self.supabase_url)}>"

    # -- channels --------------------------------------------------------------------------

    def channel(
        self,
        name: str,
        opts: ChannelOptions | None = None,
        *,
        resubscribe_after: float | None = None,
        **unknown: Never,
    ) -> RealtimeChannel:
        """See ``RealtimeClient.channel``."""
        return self.realtime.channel(name, opts, resubscribe_after=resubscribe_after, **unknown)

    def get_channels(self) -> list[RealtimeChannel]:
        """See ``RealtimeClient.get_channels``."""
        return self.realtime.get_channels()

    def remove_channel(self, channel: RealtimeChannel) -> Outcome[str]:
        """See ``RealtimeClient.remove_channel``."""
        return self.realtime.remove_channel(channel)

    def remove_all_channels(self) -> Outcome[list[str]]:
        """See ``RealtimeClient.remove_all_channels``."""
        return self.realtime.remove_all_channels()

    # -- the other services ----------------------------------------------------------------

    @property
    def auth(self) -> AsyncGoTrueClient:
        """Sign-up, sign-in and sessions: the auth client of ``supabase-auth``.

        Signing in, refreshing and signing out change the token of Realtime and of every request.
        Raises ``InvalidState`` if ``access_token=`` was given, which replaces it.
        """
        if self._access_token is not None:
            raise InvalidState(
                "supabase.auth is not there: create_client() was given access_token=",
                hint="sign in where that function takes its tokens from, or leave it out",
            )
        return self._services.auth

    @property
    def storage(self) -> AsyncStorageClient:
        """Buckets and files: the client of ``storage3``."""
        return self._services.storage

    @property
    def functions(self) -> AsyncFunctionsClient:
        """Edge functions: the client of ``supabase-functions``."""
        return self._services.functions

    def from_(self, table: str) -> AsyncRequestBuilder:
        """Returns a query on ``table``: ``await supabase.from_("todos").select("*").execute()``."""
        return self._services.postgrest.from_(table)

    def table(self, table: str) -> AsyncRequestBuilder:
        """Returns a query on ``table``: another name of ``from_``."""
        return self.from_(table)

    def schema(self, name: str) -> AsyncPostgrestClient:
        """Returns a client of another schema, with ``from_`` and ``rpc``."""
        return self._services.postgrest.schema(name)

    def rpc(
        self, fn: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncRPCFilterRequestBuilder:
        """Calls a function of the database; ``options`` are those of ``postgrest``."""
        return self._services.postgrest.rpc(fn, dict(args or {}), **options)

    @property
    def _services(self) -> Services:
        if self._made is None:
            try:
                from .project_services import Services
            except ModuleNotFoundError as exc:
                raise ModuleNotFoundError(
                    f"auth, from_(), rpc(), storage and functions need the package {exc.name!r}: "
                    "pip install 'supabase-rt[full]'",
                    name=exc.name,
                ) from None
            self._made = Services(
                self.supabase_url,
                self._key,
                headers=self._headers,
                schema=self._schema,
                auth=self._auth_options,
                access_token=self._access_token,
                moved=self._session_moved,
            )
        return self._made

    def _session_moved(self, token: str | None) -> None:
        """Gives Realtime the token of a new or renewed session, or the key at its end."""
        parts = self.realtime.__client_parts__
        parts.use_token_source(None if token is None else self._services.token)
        self.realtime.set_auth(self._key if token is None else token)

    # -- the end ---------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Leaves every channel, disconnects, and closes the connections of the other services."""
        try:
            await self.realtime.__aexit__(None, None, None)
        finally:
            if self._made is not None:
                await self._made.aclose()

    async def __aenter__(self) -> Self:
        """Opens nothing: ``subscribe()`` and the first request open connections."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _check_keys(name: str, given: Any, known: list[str]) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is a dict with the keys {', '.join(known)}")
    check_unknown({key: None for key in given if key not in known}, known, f"{name}=")


def create_client(
    url: str,
    key: str,
    *wrong: Never,
    realtime: RealtimeOptions | None = None,
    access_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
    db: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    global_: Mapping[str, Any] | None = None,
    **unknown: Never,
) -> SupabaseClient:
    """Returns a client of the project at ``url``; does no I/O and needs no event loop.

    Args:
        url: ``https://<ref>.supabase.co``; Realtime is at ``{url}/realtime/v1``.
        key: the anon, publishable or service key.
        realtime: keyword options of ``RealtimeClient``.
        access_token: a function, plain or ``async``, that returns the user's token. Without it
            the key is the token until somebody signs in with ``auth``, as in supabase-js.
        db: ``{"schema": "public"}``, for ``from_()`` and ``rpc()``.
        auth: ``{"autoRefreshToken": True, "persistSession": True, "storage": ..., ...}``.
        global_: ``{"headers": {...}}`` for every request and the socket.

    Raises:
        ValueError, TypeError: no key, an unusable URL, an unknown option.
    """
    check_unknown(unknown, list(OPTIONS), "create_client", wrong)
    return SupabaseClient(
        url, key, realtime=realtime, access_token=access_token, db=db, auth=auth, global_=global_
    )
