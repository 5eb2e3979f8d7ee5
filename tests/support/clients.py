"""The ways in which tests make clients."""

from __future__ import annotations

from collections.abc import Callable

from supabase_rt import RealtimeClient, ReconnectPolicy

__all__ = ["QUICK", "MakeClient"]

MakeClient = Callable[..., RealtimeClient]
"""The fixture ``make_client``: keyword options of ``RealtimeClient``, the URL first."""

QUICK = ReconnectPolicy(initial_backoff=0.01, max_backoff=0.1, jitter=0.0, stable_after=0.1)
"""Reconnects at once, so that a test need not wait."""
