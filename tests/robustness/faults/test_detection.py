"""The time until a dead link is noticed, and until the client is back, by the figures of its
policy.

Virtual time makes every figure exact: it measures the client and not the machine.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supabase_rt import ReconnectPolicy
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy as Policy

from .hours import live_through
from .laboratory import BOUND, Laboratory
from .pipe import DOWN, UP
from .virtual import run_virtual

HOUR = 3600.0


def last_status(lab: Laboratory) -> tuple[float, str]:
    return lab.rooms[0].statuses[-1][:2]


async def dead_link(lab: Laboratory, ways: Any, phase: float) -> float:
    """Returns the seconds from the silent death of a link until the channels were told."""
    await lab.until(lab.is_joined, 60.0, "joined again")
    await asyncio.sleep(phase)
    before = lab.clock()
    lab.proxy.stall(*ways, new=False)
    await lab.until(lambda: last_status(lab)[0] > before, 200.0, "notice")
    found = lab.rooms[0].statuses
    (told,) = {at for at, status, _ in found if at > before and status == "CHANNEL_ERROR"}
    return told - before


@pytest.mark.parametrize("ways", [(UP, DOWN), (UP,), (DOWN,)], ids="+".join)
@pytest.mark.parametrize(("interval", "timeout"), [(25.0, 25.0), (10.0, 4.0)])
def test_a_dead_link_is_found_within_heartbeat_interval_plus_timeout(
    ways: Any, interval: float, timeout: float
) -> None:
    async def main() -> list[float]:
        options: dict[str, Any] = {"heartbeat_interval": interval, "heartbeat_timeout": timeout}
        async with Laboratory(**options) as lab:
            return [await dead_link(lab, ways, phase) for phase in (0.0, interval / 3, interval)]

    found = run_virtual(main(), debug=False)
    assert all(timeout <= each <= interval + timeout for each in found), found


@pytest.mark.parametrize("fault", ["reset", "fin"])
def test_a_link_that_ends_is_back_at_once_where_it_was_good(fault: str) -> None:
    async def main() -> float:
        async with Laboratory() as lab:
            await asyncio.sleep(60.0)
            before, statuses = lab.clock(), lab.rooms[0].statuses
            getattr(lab.proxy, fault)()
            await lab.until(lambda: len(statuses) == 3 and lab.is_joined(), 5.0, "return")
            return statuses[-1][0] - before

    # The clock is virtual, so no real time passes. The rest is the time of the network itself.
    assert run_virtual(main(), debug=False) == 0.0


@pytest.mark.parametrize("policy", [ReconnectPolicy(), ReconnectPolicy(max_backoff=5.0)])
@pytest.mark.parametrize("outage", [1.0, 30.0, HOUR])
def test_after_an_outage_of_any_length_all_is_joined_within_the_longest_backoff(
    policy: Policy, outage: float
) -> None:
    async def main() -> None:
        async with Laboratory(reconnect=policy) as lab:
            lab.pace = 30.0
            await asyncio.sleep(10.0)
            await lab.proxy.vanish()
            await asyncio.sleep(outage)
            await lab.heal()
            await lab.recover()
            assert lab.report.recovery <= policy.max_backoff
            await lab.probe()
            lab.judge()

    run_virtual(main(), debug=False)


def test_hours_of_losses_leave_no_more_behind_than_the_first_one() -> None:
    run_virtual(live_through(hours=3), debug=False)


def test_the_bound_of_the_schedules_is_that_of_the_default_policy() -> None:
    policy = ReconnectPolicy()
    heartbeat = 25.0 + 25.0 + 30.0
    assert heartbeat + policy.max_backoff + 20.0 + 30.0 + policy.max_backoff + 60.0 == BOUND
