"""The status page at ``/``: sockets, channels, presence and events as they happen.

The page is not a Realtime client: it has routes of its own, for its live view and its forms.
They are open to anyone who has the address that the server printed.
"""

from .memory_tables import MadeUpRows
from .page import EditableRows, StatusPage, new_page_token

__all__ = ["EditableRows", "MadeUpRows", "StatusPage", "new_page_token"]
