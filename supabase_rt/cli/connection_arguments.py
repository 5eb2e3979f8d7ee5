"""The options that select a project, and the client made from them."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from .command import CommandFailed

if TYPE_CHECKING:
    from .. import ReconnectPolicy, SupabaseClient
    from ..types import (
        BroadcastOptions,
        ChannelConfigOptions,
        ChannelOptions,
        PresenceOptions,
        RealtimeOptions,
    )

__all__ = ["add_target_options", "channel_options", "make_client", "seconds", "target_of"]

ABOUT = "SUPABASE_URL and SUPABASE_KEY in the environment do the same as --url and --key."


def seconds(text: str) -> float:
    """Parse a number of seconds above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def add_target_options(parser: argparse.ArgumentParser, *, timeout: float = 10.0) -> None:
    """Add ``--url``, ``--key``, ``--token`` and ``--timeout``."""
    group = parser.add_argument_group("the project", ABOUT)
    group.add_argument("--url", help="such as https://<ref>.supabase.co or http://127.0.0.1:54321")
    group.add_argument("--key", help="an API key of the project")
    group.add_argument("--token", help="the token of a user (SUPABASE_TOKEN); default: the key")
    group.add_argument(
        "--timeout", type=seconds, default=timeout, metavar="S", help="(%(default)g s)"
    )


def target_of(options: argparse.Namespace) -> tuple[str, str, str | None]:
    """Returns URL, key and token; raises ``CommandFailed`` if URL or key is missing."""
    url = options.url or os.environ.get("SUPABASE_URL")
    key = options.key or os.environ.get("SUPABASE_KEY")
    if not url:
        raise CommandFailed("which project? Give --url, or set SUPABASE_URL", code=2)
    if not key:
        raise CommandFailed("an API key is needed: give --key, or set SUPABASE_KEY", code=2)
    return url, key, options.token or os.environ.get("SUPABASE_TOKEN") or None


def make_client(
    options: argparse.Namespace, reconnect: ReconnectPolicy | None = None
) -> SupabaseClient:
    """Returns a client of the project; raises ``CommandFailed`` for an invalid URL or key."""
    from .. import create_client

    url, key, token = target_of(options)
    settings: RealtimeOptions = {"timeout": options.timeout}
    if reconnect is not None:
        settings["reconnect"] = reconnect
    # The commands print errors themselves, so the client's log is not shown.
    logging.getLogger("supabase_rt").addHandler(logging.NullHandler())
    try:
        client = create_client(url, key, realtime=settings)
        if token is not None:
            client.realtime.set_auth(token)
    except (ValueError, TypeError) as exc:
        raise CommandFailed(str(exc), code=2) from None
    return client


def channel_options(
    *,
    private: bool,
    broadcast: BroadcastOptions | None = None,
    presence: PresenceOptions | None = None,
) -> ChannelOptions:
    """Returns the options for ``channel()``, without those that are off."""
    config: ChannelConfigOptions = {}
    if private:
        config["private"] = True
    if broadcast:
        config["broadcast"] = broadcast
    if presence:
        config["presence"] = presence
    return {"config": config}
