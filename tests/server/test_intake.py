"""Unfinished frames and the turns of clients, as machines whose time the test moves."""

from __future__ import annotations

import asyncio

import pytest

from supabase_rt.server._http.turns import ALLOWANCE, AT_ONCE, QUIET, Slices, Turns, Usage
from supabase_rt.server._machine.intake import PATIENCE, SMALL, Inflow, Intake
from supabase_rt.server._machine.memory_bounds import Outgoing
from supabase_rt.server.settings import Settings

KIB = 1024


class Port:
    def __init__(self) -> None:
        self.held = False
        self.gone = False

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False

    def abort(self) -> None:
        self.gone = True


def opened(intake: Intake, now: float = 0.0, *, upgraded: bool = True) -> tuple[Port, Inflow]:
    port = Port()
    flow = intake.open(port, now)
    assert flow is not None
    if upgraded:
        intake.upgrade(flow, lambda: False, now)
    return port, flow


def test_beyond_the_bound_large_unfinished_messages_are_not_read_and_the_oldest_ends() -> None:
    intake = Intake(Settings(), most=1000 * KIB)
    found = [opened(intake) for _ in range(11)]
    small_port, small = opened(intake)
    for at, (port, flow) in enumerate(found):
        intake.receive(flow, 100 * KIB, now=float(at))
        assert not port.held or at == 10
    # Only the client that exceeds it waits, and after it each one that sends more.
    intake.receive(found[0][1], KIB, now=11.0)
    intake.receive(small, SMALL, now=11.0)
    assert [port.held for port, _ in found] == [True, *[False] * 9, True]
    assert not small_port.held
    intake.sweep(PATIENCE - 0.1)
    assert not any(port.gone for port, _ in found)
    intake.sweep(PATIENCE + 0.1)
    assert [port.gone for port, _ in found] == [True, *[False] * 10]
    assert [found[10][0].held] == [True]
    intake.sweep(PATIENCE + 1.1)
    assert [port.gone for port, _ in found] == [True, True, *[False] * 9]
    # The memory of the two ended connections is free for the others.
    assert [found[10][0].held] == [False]
    assert intake.total == 900 * KIB + SMALL


def test_fragments_count_until_their_message_is_complete() -> None:
    intake = Intake(Settings(), most=1000 * KIB)
    _, flow = opened(intake)
    for _ in range(10):
        intake.receive(flow, 100, now=1.0)
    # A ping between two fragments completes nothing.
    assert intake.total == 1000
    intake.complete(flow, 930, now=2.0, waited=True)
    assert intake.total == 62 <= 100
    intake.receive(flow, 20, now=3.0)
    intake.complete(flow, 14, now=3.0, waited=True)
    assert intake.total <= 20


def test_messages_that_wait_to_be_taken_still_count() -> None:
    intake = Intake(Settings(), most=1000 * KIB)
    _, flow = opened(intake)
    intake.receive(flow, 3 * 106, now=1.0)
    intake.receive(flow, 50, now=1.0)
    intake.complete(flow, 100, now=1.0, waited=False)
    intake.complete(flow, 100, now=1.0, waited=False)
    assert intake.total == 106 + 50
    intake.close(flow)
    intake.close(flow)
    assert intake.total == 0


def test_what_comes_while_a_message_waits_for_its_turn_counts() -> None:
    intake = Intake(Settings(), most=1000 * KIB)
    _, flow = opened(intake)
    intake.receive(flow, 114, now=1.0)
    for _ in range(5):
        intake.receive(flow, 100, now=2.0)
    intake.complete(flow, 100, now=3.0, waited=True, later=500)
    assert intake.total == 508


@pytest.mark.parametrize(
    ("state", "ends"), [("new", 5.0), ("body", 15.0), ("answer", 60.0), ("idle", 60.0)]
)
def test_what_takes_too_long_ends_after_the_times_of_the_real_server(
    state: str, ends: float
) -> None:
    intake = Intake(Settings())
    port, flow = opened(intake, upgraded=False)
    if state != "new":
        intake.ask(flow, lambda: state != "body", now=0.0)
    if state == "idle":
        intake.answer(flow, now=0.0)
    intake.sweep(ends - 0.1)
    assert [port.gone] == [False]
    intake.sweep(ends + 0.1)
    assert port.gone
    assert len(intake) == 0


def test_the_head_of_a_later_request_has_its_own_time() -> None:
    intake = Intake(Settings())
    port, flow = opened(intake, upgraded=False)
    intake.ask(flow, lambda: True, now=0.0)
    intake.answer(flow, now=0.0)
    intake.receive(flow, 10, now=50.0)
    intake.sweep(54.9)
    assert [port.gone] == [False]
    intake.sweep(55.1)
    assert port.gone


@pytest.mark.parametrize(("piece", "ends"), [(100, 60.0), (101, 5.0)])
def test_the_head_of_a_second_request_may_begin_in_the_piece_of_the_first(
    piece: int, ends: float
) -> None:
    intake = Intake(Settings())
    port, flow = opened(intake, upgraded=False)
    intake.receive(flow, piece, now=0.0)
    intake.ask(flow, lambda: True, now=0.0)
    intake.answer(flow, now=0.0, size=100)
    intake.sweep(ends - 0.1)
    assert [port.gone] == [False]
    intake.sweep(ends + 0.1)
    assert port.gone


def test_the_rest_of_a_refused_body_counts_for_nothing_and_has_three_seconds() -> None:
    intake, done = Intake(Settings()), False
    port, flow = opened(intake, upgraded=False)
    other_port, other = opened(intake, upgraded=False)
    for each in (flow, other):
        intake.receive(each, 1000, now=0.0)
        intake.ask(each, (lambda: done) if each is other else (lambda: False), now=0.0)
        intake.answer(each, now=1.0, size=1000)
        for _ in range(100):
            intake.receive(each, 64 * KIB, now=1.0)
    assert intake.total == 0
    done = True
    intake.sweep(3.9)
    assert [port.gone, other_port.gone] == [False, False]
    intake.sweep(4.1)
    assert [port.gone, other_port.gone] == [True, False]
    # A client whose body came completely may send another request.
    intake.sweep(60.0)
    assert [other_port.gone] == [False]


def test_a_head_without_an_end_is_not_kept() -> None:
    intake = Intake(Settings())
    port, flow = opened(intake, upgraded=False)
    for _ in range(8):
        intake.receive(flow, 16 * KIB, now=0.0)
    assert [port.gone] == [False]
    intake.receive(flow, 1, now=0.0)
    assert port.gone
    assert intake.total == 0


def test_a_socket_may_stay_as_long_as_it_likes() -> None:
    intake = Intake(Settings())
    port, _ = opened(intake)
    intake.sweep(1e9)
    assert [port.gone] == [False]


def test_a_full_server_makes_room_by_the_oldest_without_a_channel() -> None:
    intake = Intake(Settings(max_connections=3))
    joined, flow = opened(intake)
    intake.upgrade(flow, lambda: True, 0.0)
    first, second = opened(intake)[0], opened(intake)[0]
    third, flow = opened(intake)
    assert [port.gone for port in (joined, first, second, third)] == [False, True, False, False]
    for _port, flow in (opened(intake), opened(intake)):
        intake.upgrade(flow, lambda: True, 0.0)
    assert second.gone
    assert third.gone
    assert intake.open(Port(), 0.0) is None


# -- what waits to be read -----------------------------------------------------------------


class Reader:
    def __init__(self, outgoing: list[Outgoing]) -> None:
        self.frames: list[str | bytes] = []
        self.gone = False
        self._outgoing = outgoing

    @property
    def waiting(self) -> int:
        return sum(map(len, self.frames))

    def unread(self) -> list[str | bytes]:
        return self.frames

    def cut(self) -> None:
        self.gone = True
        size, self.frames = self.waiting, []
        self._outgoing[0].take(size)

    def put(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        self._outgoing[0].add(len(frame))


def test_a_frame_for_many_counts_once_and_whoever_reads_least_is_cut() -> None:
    found: list[Outgoing] = []
    readers = [Reader(found) for _ in range(100)]
    found.append(Outgoing(lambda: readers, most=1000 * KIB))
    frame = b"x" * (100 * KIB)
    for reader in readers:
        reader.put(frame)
    assert not any(reader.gone for reader in readers)
    for number in range(30):
        readers[0].put(bytes([number]) * (100 * KIB))
        readers[1].put(bytes([number]) * (50 * KIB))
    assert readers[0].gone
    assert not any(reader.gone for reader in readers[2:])
    kept = {id(each): len(each) for reader in readers for each in reader.frames}
    assert sum(kept.values()) < 3500 * KIB


# -- turns ---------------------------------------------------------------------------------


def test_work_is_forgotten_by_half_in_a_second() -> None:
    turns, usage = Turns(), Usage()
    assert turns.is_light(usage, 0.0)
    turns.count(usage, ALLOWANCE * 3, 0.0)
    # With little work, no client waits.
    assert turns.is_light(usage, 0.0)
    turns.count(Usage(), 10 * QUIET, 0.0)
    assert not turns.is_light(usage, 1.0)
    assert turns.is_light(usage, 2.0)
    turns.clients = 1000
    assert not turns.is_light(usage, 2.0)


async def test_the_next_turn_is_that_of_the_client_with_the_least_share() -> None:
    turns, order = Turns(), list[str]()
    greedy, modest = Usage(), Usage()

    async def work(name: str, usage: Usage, seconds: float) -> None:
        await turns.wait(usage)
        order.append(name)
        usage.count(seconds, 0.0)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            await work("greedy", greedy, 1.0)
        for name, usage in (("greedy", greedy), ("modest", modest), ("modest", modest)):
            group.create_task(work(name, usage, 0.1))
    assert order == ["greedy"] * 3 + ["modest", "modest", "greedy"]
    # An idle client saves up no turns.
    newcomer = Usage()
    await turns.wait(newcomer)
    assert newcomer.share >= 1.9


async def order_of(turns: Turns, *clients: tuple[str, Usage]) -> list[str]:
    """The order in which clients get turns that they request at the same time."""
    order = list[str]()

    async def work(name: str, usage: Usage) -> None:
        await turns.wait(usage)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, usage in clients:
            group.create_task(work(name, usage))
    return order


async def test_of_a_crowd_the_newest_goes_first_and_whoever_was_there_before_ahead_of_it() -> None:
    turns, old = Turns(), Usage()
    turns.count(old, 0.5, 1.0)
    crowd = [(f"{number}", Usage()) for number in range(3)]
    assert await order_of(turns, *crowd, ("old", old)) == ["old", "2", "1", "0"]


async def test_the_newest_request_goes_first_and_all_requests_leave_room_for_clients() -> None:
    turns, requests, client = Turns(), Usage(weight=8), Usage()
    asked = [(f"{number}", requests) for number in range(3)]
    assert await order_of(turns, *asked) == ["2", "1", "0"]
    requests.count(8.0, 1.0)
    client.count(0.9, 1.0)
    assert await order_of(turns, *asked, ("client", client)) == ["client", "2", "1", "0"]


async def test_little_work_waits_too_when_a_turn_of_the_loop_has_taken_long() -> None:
    turns, usage = Turns(), Usage()
    turns.spend(0.1)
    assert not turns.is_light(usage, 0.0)
    await asyncio.sleep(0)
    assert turns.is_light(usage, 0.0)


async def test_others_are_heard_between_two_turns() -> None:
    turns, order = Turns(), list[str]()

    async def heavy(usage: Usage) -> None:
        for _ in range(3):
            await turns.wait(usage)
            order.append("heavy")

    async def light() -> None:
        for _ in range(60):
            await asyncio.sleep(0)
            order.append("light")

    await asyncio.gather(heavy(Usage()), heavy(Usage()), light())
    assert "heavyheavy" not in "".join(order)


async def test_few_slices_are_written_in_one_turn_of_the_loop_and_in_order() -> None:
    slices, written, passes = Slices(), list[int](), list[int]()

    async def write(number: int) -> None:
        for _ in range(2):
            await slices.wait()
            written.append(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(number)) for number in range(50)]
        tasks[20].cancel()
        while len(written) < 98:
            before = len(written)
            await asyncio.sleep(0)
            passes.append(len(written) - before)
    assert max(passes) <= 2 * AT_ONCE
    assert sorted(written) == sorted([*range(20), *range(21, 50)] * 2)
    assert written[:AT_ONCE] == [number for number in range(AT_ONCE // 2) for _ in range(2)]


async def test_a_client_that_leaves_keeps_nobody_waiting() -> None:
    turns = Turns()
    gone = asyncio.ensure_future(turns.wait(Usage()))
    rest = asyncio.ensure_future(turns.wait(Usage()))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(1):
        await rest
