"""The parts of one client, which its channels share with it.

Neither ``client`` nor the parts of a channel import each other: both are given this object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._backfill.postgrest import TableAccess
from .._connection.connection import Connection
from .._handlers.dispatcher import Dispatcher
from .._handlers.middleware import Chain
from .._http.broadcast_api import BroadcastApi
from .._http.http_client import HttpClient
from .._protocol.client_machine import ClientMachine
from .send_limit import SendLimiter

__all__ = ["ClientParts"]


@dataclass(slots=True)
class ClientParts:
    """The parts of one client; ``RealtimeClient`` is the only place that puts them together."""

    client_machine: ClientMachine
    connection: Connection
    dispatcher: Dispatcher
    http_client: HttpClient
    broadcast_api: BroadcastApi
    timeout: float
    types: str
    vsn: str
    snapshots: bool
    """True if payloads are encoded at the call; False if the user gave an ``encode``."""
    logger: Any = None
    send_limiter: SendLimiter | None = None
    """The limiter of broadcasts, if the user gave a ``send_limit``."""
    middleware: Chain = field(default_factory=Chain)
    """The functions that run around every handler."""
    fast_path_allowed: bool = field(init=False)
    """True if ``send`` may write frames by the fast path: protocol 2.0.0 without ``encode``,
    ``logger`` and ``send_limit``.
    """

    def __post_init__(self) -> None:
        given = (self.logger, self.send_limiter)
        self.fast_path_allowed = self.snapshots and self.vsn == "2.0.0" and given == (None, None)

    def use_token_source(self, source: Callable[[], Any] | None) -> None:
        """Asks ``source`` before every connect and rejoin from now on; None removes it."""
        self.connection.tokens.callback = source
        self.client_machine.context.has_token_source = source is not None

    def table_access(self) -> TableAccess:
        """Returns the objects that a backfill needs to read tables."""
        return TableAccess(self.http_client, self.timeout, self._refresh_token)

    def _refresh_token(self) -> asyncio.Task[None] | None:
        return self.connection.tokens.refresh(anew=True)

    def log(self, kind: str, message: str, data: Any = None) -> None:
        """Tells the user's ``logger``, if any, in the form of supabase-js."""
        if self.logger is not None:
            self.logger(kind, message, data)
