"""A simulated device and its host tier: nothing is lost, made up or held twice, and the right one goes first."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.dues import DueTable
from scalesim_daemon.whatif.memory import Device, Host
from scalesim_daemon.whatif.order import ByDue, ByRecency, Order

PREFIX = 4


def table(**dues: float) -> DueTable:
    known = DueTable()
    said = {agent: ("clock", due) for agent, due in dues.items()}
    known.apply({"type": "snapshot", "clocks": {"clock": (0.0, 1.0)}, "dues": said}, 0.0)
    return known


def serve(device: Device, agent: str, prefix: int = PREFIX, rest: int = 0, full: int = 0) -> tuple[int, int]:
    assert device.can_begin(agent, prefix, rest)
    found = device.begin(agent, prefix, rest)
    device.end(agent, rest, full)
    return found


def test_what_was_used_longest_ago_goes_first_its_tail_before_its_head() -> None:
    device = Device(2 * PREFIX, ByRecency())
    for agent in "aba":
        serve(device, agent)
    assert serve(device, "c", prefix=1) == (0, 0)
    assert (device.resident("a"), device.resident("b"), device.resident("c")) == (PREFIX, PREFIX - 1, 1)
    assert serve(device, "b") == (PREFIX - 1, 0)


def test_by_due_the_farthest_goes_first_and_before_it_what_nobody_will_ask_for() -> None:
    device = Device(3 * PREFIX, ByDue(table(a=9, b=1, c=5)))
    serve(device, "a", rest=2, full=1)
    serve(device, "b")
    assert [blocks for agent, blocks in device.idle() if agent is None] == [1]
    serve(device, "c")
    assert [blocks for agent, blocks in device.idle() if agent is None] == []
    serve(device, "d", prefix=2)
    assert [device.resident(agent) for agent in "abcd"] == [2, PREFIX, PREFIX, 2]


def test_what_a_request_uses_stays() -> None:
    device = Device(2 * PREFIX, ByRecency())
    device.begin("a", PREFIX, 1)
    assert not device.can_begin("b", PREFIX, 0)
    assert device.can_begin("b", PREFIX - 1, 0)
    device.end("a", 1, 0)
    assert device.can_begin("b", PREFIX, 1)


def test_two_requests_of_one_agent_share_its_blocks() -> None:
    device = Device(2 * PREFIX, ByRecency())
    assert device.begin("a", PREFIX, 1) == (0, 0)
    assert device.begin("a", PREFIX, 1) == (PREFIX, 0)
    device.end("a", 1, 0)
    assert list(device.idle()) == []
    device.end("a", 1, 0)
    assert list(device.idle()) == [("a", PREFIX)]
    assert device.free == PREFIX


def test_a_tier_of_copies_has_what_was_used_last() -> None:
    host = Host(PREFIX, ByRecency(), exclusive=False)
    device = Device(PREFIX, ByRecency(), host)
    serve(device, "a")
    assert serve(device, "b") == (0, 0)
    # The device holds b, and so does the tier: a is gone from both.
    assert serve(device, "a") == (0, 0)


def test_an_exclusive_tier_exchanges_what_it_has_for_what_the_device_gives_up() -> None:
    host = Host(PREFIX, ByRecency(), exclusive=True)
    device = Device(PREFIX, ByRecency(), host)
    serve(device, "a")
    assert serve(device, "b") == (0, 0)
    for agent in "abab":
        assert serve(device, agent) == (0, PREFIX)
    assert host.used == PREFIX


def test_by_due_a_full_tier_keeps_the_nearer() -> None:
    host = Host(PREFIX, ByDue(known := table(near=1, far=9, now=0)), exclusive=True)
    device = Device(PREFIX, ByDue(known), host)
    for agent in ("near", "far", "now"):
        serve(device, agent)
    assert serve(device, "near") == (0, PREFIX)


ORDERS: dict[str, Callable[[], Order]] = {
    "recency": ByRecency,
    "due": lambda: ByDue(table(a0=3, a1=1, a2=7, a3=2)),
}
CALLS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, PREFIX), st.integers(0, 3), st.booleans()), max_size=60
)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@given(calls=CALLS)
def test_blocks_are_conserved(order: str, exclusive: bool, calls: list[tuple[int, int, int, bool]]) -> None:
    host = Host(6, ORDERS[order](), exclusive=exclusive)
    device = Device(12, ORDERS[order](), host)
    running: list[tuple[str, int]] = []
    names = [f"a{number}" for number in range(6)]
    for number, prefix, rest, ends in calls:
        agent = names[number]
        if device.can_begin(agent, prefix, rest):
            there, beyond = device.resident(agent), host.beyond(agent, device.resident(agent))
            cached, loaded = device.begin(agent, prefix, rest)
            assert (cached, loaded) == (min(there, prefix), min(prefix - min(there, prefix), beyond))
            running.append((agent, rest))
        if ends and running:
            done, its_rest = running.pop(0)
            device.end(done, its_rest, its_rest // 2)
        nobodys = sum(blocks for agent, blocks in device.idle() if agent is None)
        held = sum(map(device.resident, names)) + nobodys + sum(rest for _, rest in running)
        assert held + device.free == device.capacity
        assert device.free >= 0
        in_host = sum(host.beyond(agent, 0) for agent in names)
        assert in_host == host.used <= host.capacity
