"""The status page at ``/``: sockets, channels, presence and events as they happen.

It is no client of the server: routes of its own tell it what the server sees, and take what it
sends, for whoever has the address that the server printed.
"""

from .memory_tables import MadeUpRows
from .page import EditableRows, StatusPage, new_page_token

__all__ = ["EditableRows", "MadeUpRows", "StatusPage", "new_page_token"]
