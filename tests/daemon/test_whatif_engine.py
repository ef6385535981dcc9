"""A simulated engine takes the time that its cost model says, and lets requests run as vLLM does."""

import msgspec
import pytest
import simpy

from scalesim_daemon.whatif.costs import Costs
from scalesim_daemon.whatif.engine import Engine, Request
from scalesim_daemon.whatif.memory import Device, Host
from scalesim_daemon.whatif.order import ByRecency

COSTS = Costs(
    name="round",
    source="chosen",
    block_tokens=10,
    batch_tokens=100,
    device_tokens=10_000,
    step_seconds=1.0,
    prefill_token_seconds=0.01,
    decode_request_seconds=0.1,
    host_token_seconds=0.001,
)


def engine(costs: Costs = COSTS, blocks: int = 1000, host: int = 0, running: int = 100) -> Engine:
    tier = Host(host, ByRecency(), exclusive=True) if host else None
    return Engine(simpy.Environment(), costs, Device(blocks, ByRecency(), tier), running)


def played(subject: Engine, *requests: Request) -> list[tuple[float, float]]:
    """Return when each had its first token, and its last."""
    ends = {}
    for request in requests:
        request.ended.callbacks.append(lambda event, r=request: ends.setdefault(r, event.env.now))
    requests[0].ended.env.run()
    return [(round(request.first_token, 6), round(ends[request], 6)) for request in requests]


def test_one_request_takes_a_step_for_its_prompt_and_one_for_each_further_token() -> None:
    subject = engine()
    assert played(subject, subject.submit("a", 5, 20, 4)) == [(1.7, 1.7 + 3 * 1.1)]


def test_a_long_prompt_takes_several_steps() -> None:
    subject = engine()
    # 250 tokens in steps of 100, 100 and 50.
    assert played(subject, subject.submit("a", 20, 50, 1)) == [(3 + 2.5, 3 + 2.5)]


def test_a_cached_prefix_costs_nothing() -> None:
    subject = engine()
    played(subject, subject.submit("a", 5, 20, 1))
    again = subject.submit("a", 5, 20, 1)
    assert played(subject, again) == [(1.7 + 1.2, 1.7 + 1.2)]
    assert (again.cached, again.computed(10)) == (5, 20)


def test_requests_share_steps_in_the_order_in_which_they_came() -> None:
    subject = engine()
    first, second = subject.submit("a", 0, 80, 2), subject.submit("b", 0, 40, 1)
    # Step 1 computes 80 and 20 tokens, step 2 the other 20 beside a's second token.
    assert played(subject, first, second) == [(2.0, 2.0 + 1.3), (3.3, 3.3)]


def test_no_more_requests_run_than_may() -> None:
    subject = engine(running=1)
    assert played(subject, subject.submit("a", 0, 10, 1), subject.submit("b", 0, 10, 1)) == [
        (1.1, 1.1),
        (2.2, 2.2),
    ]


def test_a_request_waits_until_there_is_memory() -> None:
    subject = engine(blocks=4)
    assert played(subject, subject.submit("a", 2, 5, 2), subject.submit("b", 2, 5, 1)) == [
        (1.25, 1.25 + 1.1),
        (2.35 + 1.25, 2.35 + 1.25),
    ]


@pytest.mark.parametrize(("beside", "waits"), [(True, 0.05), (False, 0.05)])
def test_loads_from_the_host_take_their_time(beside: bool, waits: float) -> None:
    subject = engine(msgspec.structs.replace(COSTS, host_beside=beside), blocks=7, host=10)
    played(subject, subject.submit("a", 5, 10, 1))
    played(subject, subject.submit("b", 5, 10, 1))
    began = subject.submit("a", 5, 10, 1)
    now = began.ended.env.now
    (first, _) = played(subject, began)[0]
    assert began.loaded == 5
    assert first - now == pytest.approx(waits + 1.1)


@pytest.mark.parametrize(("beside", "other_ends"), [(True, 1.1), (False, 1.2 + 0.05)])
def test_a_load_beside_the_steps_delays_nobody_else(beside: bool, other_ends: float) -> None:
    subject = engine(msgspec.structs.replace(COSTS, host_beside=beside), blocks=13, host=10)
    played(subject, subject.submit("a", 5, 10, 1))
    played(subject, subject.submit("b", 10, 10, 1))
    loaded, other = subject.submit("a", 5, 10, 1), subject.submit("c", 0, 10, 1)
    now = other.ended.env.now
    (_, (_, end)) = played(subject, loaded, other)
    assert loaded.loaded > 0
    assert end - now == pytest.approx(other_ends, abs=0.03)
