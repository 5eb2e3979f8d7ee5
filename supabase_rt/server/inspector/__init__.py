"""The status page at ``/``: sockets, channels, presence and events as they happen.

The page is a client like any other. It joins a private topic that only the service may hear,
on which the server tells it what it sees.
"""

from .page import Rows, StatusPage
from .rows import MadeUpRows
from .watch import Inspector

__all__ = ["Inspector", "MadeUpRows", "Rows", "StatusPage"]
