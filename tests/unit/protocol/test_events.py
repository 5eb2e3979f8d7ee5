from __future__ import annotations

import dataclasses
import inspect
from typing import Protocol

import pytest

from supabase_rt._protocol import events
from supabase_rt._protocol.events import Delivered, PushEnded, ReconnectScheduled

CLASSES = [
    found
    for found in vars(events).values()
    if inspect.isclass(found)
    and found.__module__ == events.__name__
    and Protocol not in found.__bases__
]
RECEIVERS = {"EventListener", "EventSink", "ChannelOwner"}


def test_every_event_is_exported() -> None:
    named = {found.__name__ for found in CLASSES} | {"Delivery"} | RECEIVERS
    assert named == set(events.__all__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_events_hold_facts_and_do_nothing(kind: type) -> None:
    own = [name for name, found in vars(kind).items() if inspect.isfunction(found)]
    assert all(name.startswith("_") for name in own)
    assert dataclasses.is_dataclass(kind) or kind is Delivered
    assert kind.__doc__


def test_equal_facts_are_equal_events() -> None:
    assert PushEnded("outcome", "ok") == PushEnded("outcome", "ok", None)
    assert ReconnectScheduled(1, 0.5, None) != ReconnectScheduled(2, 0.5, None)


def test_a_delivery_that_waits_is_the_delivery_itself() -> None:
    delivery: events.Delivery = ("channel", (1,), "payload")
    assert Delivered(*delivery) == delivery
