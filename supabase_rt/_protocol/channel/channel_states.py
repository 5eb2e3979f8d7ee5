"""The states of a channel and the table of all transitions.

The inputs:

    SUBSCRIBE   the user asks for the channel        JOIN_OK       the server joined it
    REJOIN      a join is written again              JOIN_REFUSED  the server said no
    LEAVE       the user leaves a join               JOIN_TIMEOUT  no answer in time
    LEAVE_NOW   the user leaves without a join       JOIN_MISMATCH other bindings than requested
    LEFT        the server answered, or never will   LOST          link lost, phx_error, phx_close
    CLOSE       phx_close with rejoin_closed off     GIVE_UP       the client stops for good

GIVE_UP never meets a channel that is leaving or closed. The client lost its link before, which ends
every leave; and it closes only subscribed channels. A pair that is not in the table is a bug of
ours: it raises and changes nothing.
"""

from __future__ import annotations

import enum

from ...enums import ChannelState

__all__ = ["CLOSED", "ERRORED", "JOINED", "JOINING", "LEAVING", "TRANSITIONS", "Input"]

CLOSED, ERRORED = ChannelState.CLOSED, ChannelState.ERRORED
JOINED, JOINING, LEAVING = ChannelState.JOINED, ChannelState.JOINING, ChannelState.LEAVING


class Input(enum.Enum):
    """An input of the state machine of a channel."""

    SUBSCRIBE = enum.auto()
    REJOIN = enum.auto()
    JOIN_OK = enum.auto()
    JOIN_REFUSED = enum.auto()
    JOIN_TIMEOUT = enum.auto()
    JOIN_MISMATCH = enum.auto()
    LOST = enum.auto()
    CLOSE = enum.auto()
    LEAVE = enum.auto()
    LEAVE_NOW = enum.auto()
    LEFT = enum.auto()
    GIVE_UP = enum.auto()


TRANSITIONS: dict[ChannelState, dict[Input, ChannelState]] = {
    CLOSED: {
        Input.SUBSCRIBE: JOINING,
        Input.LEAVE_NOW: CLOSED,
    },
    JOINING: {
        Input.REJOIN: JOINING,
        Input.JOIN_OK: JOINED,
        Input.JOIN_REFUSED: ERRORED,
        Input.JOIN_TIMEOUT: ERRORED,
        Input.JOIN_MISMATCH: ERRORED,
        Input.LOST: ERRORED,
        Input.CLOSE: CLOSED,
        Input.LEAVE: LEAVING,
        Input.LEAVE_NOW: CLOSED,
        Input.GIVE_UP: CLOSED,
    },
    JOINED: {
        Input.LOST: ERRORED,
        Input.CLOSE: CLOSED,
        Input.LEAVE: LEAVING,
        Input.LEAVE_NOW: CLOSED,
        Input.GIVE_UP: CLOSED,
    },
    ERRORED: {
        Input.SUBSCRIBE: JOINING,
        Input.REJOIN: JOINING,
        Input.LEAVE_NOW: CLOSED,
        Input.GIVE_UP: CLOSED,
    },
    LEAVING: {
        Input.LEFT: CLOSED,
    },
}
