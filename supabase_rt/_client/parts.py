"""What a client and its channels share, so that neither imports the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._backfill.postgrest import TableAccess
from .._connection.connection import Connection
from .._handlers.dispatcher import Dispatcher
from .._handlers.middleware import Chain
from .._http.http_client import Rest
from .._protocol.client_machine import Session
from .send_limit import Pacer

__all__ = ["Core"]


@dataclass(slots=True)
class Core:
    """The parts of one client."""

    session: Session
    connection: Connection
    dispatch: Dispatcher
    rest: Rest
    timeout: float
    types: str
    vsn: str
    snapshots: bool
    """Whether payloads are encoded at the call: not with an ``encode`` of the user's."""
    logger: Any = None
    pacer: Pacer | None = None
    """Where the user limited how fast broadcasts may go."""
    middleware: Chain = field(default_factory=Chain)
    """What runs around every handler."""
    is_plain: bool = field(init=False)
    """Whether the session's word and ours are all it takes to write a frame: protocol 2.0.0,
    no ``encode`` or ``logger`` to ask, and no pace to keep."""

    def __post_init__(self) -> None:
        given = (self.logger, self.pacer)
        self.is_plain = self.snapshots and self.vsn == "2.0.0" and given == (None, None)

    @property
    def tables(self) -> TableAccess:
        """The means of this client to read tables of its project."""
        refresh = functools.partial(self.connection.tokens.refresh, anew=True)
        return TableAccess(self.rest, self.timeout, refresh)

    def use_token_source(self, source: Callable[[], Any] | None) -> None:
        """From now on ask ``source`` before every connect and rejoin; None for nobody."""
        self.connection.tokens.callback = source
        self.session.context.has_token_source = source is not None

    def log(self, kind: str, message: str, data: Any = None) -> None:
        """Tell the user's ``logger``, if any, in the form of supabase-js."""
        if self.logger is not None:
            self.logger(kind, message, data)
