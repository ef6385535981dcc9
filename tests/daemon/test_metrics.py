"""Metrics: names and units, one sample per engine and none per agent, read at the moment of the scrape."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.loop import EnginePlan, Sidecar
from scalesim_daemon.metrics import build_registry
from scalesim_daemon.plan import Action, Step
from tests.daemon.still import add_engine, ask, open_stream, say, stored

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")


def scrape(sidecar: Sidecar) -> str:
    answer = asyncio.run(ask(sidecar, lambda client: client.get("/metrics")))[0]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


def samples(sidecar: Sidecar) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(scrape(sidecar))
        for sample in family.samples
    }


def test_state_is_read_when_it_is_asked_for(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    assert samples(sidecar)["scalesim_agents",] == 0
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "agent.activity_started", "agent": "a", "for": 1.0},
        {"type": "invocation.started", "agent": "b"},
    )
    sidecar.admit("sim", None, [{"type": "agent.vanished"}, {"type": "agent.woken"}])
    view.happened(stored("sim/a", 3))
    view.ledger.loaded("sim/b", 64)
    view.ledger.invoked("sim/b", 0)
    sidecar.plans = {"one": EnginePlan(blocks=[STEP, STEP])}
    sidecar.counts["cycles"] += 7
    found = samples(sidecar)
    assert found["scalesim_agents",] == 2
    assert found["scalesim_agents_due",] == 1
    assert found["scalesim_invocations_in_flight",] == 1
    assert found["scalesim_events_total",] == 3
    assert found["scalesim_refused_total", "unknown"] == 1
    assert found["scalesim_refused_total", "malformed"] == 1
    assert found["scalesim_engine_up", "one"] == 1
    assert found["scalesim_blocks_resident", "one"] == 3
    assert found["scalesim_blocks_free", "one"] == 13
    assert found["scalesim_prefetches_total", "one"] == 1
    assert found["scalesim_prefetches_wasted_total", "one"] == 1
    assert found["scalesim_prefetched_tokens_wasted_total", "one"] == 64
    assert found["scalesim_plan_steps", "one", "prefix_kv"] == 2
    assert found["scalesim_cycles_total",] == 7
    assert found["scalesim_mirror_up",] == 0
    assert found["scalesim_mirror_lag_p99_seconds",] == 0


def test_what_is_unknown_has_no_sample(sidecar: Sidecar) -> None:
    view = add_engine(sidecar, info=None).view
    found = samples(sidecar)
    assert found["scalesim_engine_up", "one"] == 0
    assert ("scalesim_blocks_resident", "one") not in found
    assert not any(name == "scalesim_distance_order_accuracy_ratio" for name, *_ in found)
    view.error = None
    assert samples(sidecar)["scalesim_engine_up", "one"] == 0


def test_order_accuracy_has_both_predictors(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(
        sidecar,
        *(
            {"type": "agent.activity_started", "agent": agent, "until": due}
            for agent, due in zip("ab", (1.0, 2.0), strict=True)
        ),
    )
    for now, agent in enumerate("ab", 1):
        say(
            sidecar,
            {"type": "step.advanced", "now": float(now)},
            {"type": "invocation.started", "agent": agent},
        )
    found = samples(sidecar)
    assert found["scalesim_distance_order_accuracy_ratio", "estimates"] == 1.0
    assert found["scalesim_distance_order_accuracy_ratio", "recency"] == 0.5
    assert found["scalesim_distance_order_pairs",] == 1


def test_estimators_are_told_apart_by_name_and_clock(sidecar: Sidecar) -> None:
    for simulation, clock in (("one", "step"), ("two", "step"), ("three", "sim_seconds")):
        open_stream(sidecar, simulation, clock)
        say(sidecar, {"type": "agent.activity_started", "agent": "a", "until": 3.0}, simulation=simulation)
        say(
            sidecar,
            {"type": "step.advanced", "now": 2.0 if simulation == "one" else 3.0},
            {"type": "invocation.started", "agent": "a"},
            simulation=simulation,
        )
    found = samples(sidecar)
    assert found["scalesim_estimator_admitted_streams", "step", "activity"] == 2
    assert found["scalesim_estimator_admitted_streams", "step", "history"] == 0
    assert found["scalesim_estimator_admitted_streams", "sim_seconds", "activity"] == 1
    assert found["scalesim_estimator_coverage_ratio", "step", "activity"] == 1.0
    assert found["scalesim_estimator_lead_error_clock_units", "step", "activity"] == 0.5
    assert found["scalesim_estimator_lead_error_clock_units", "sim_seconds", "activity"] == 0.0
    assert found["scalesim_estimator_hits_ratio", "step", "activity"] == 1.0
    assert found["scalesim_estimator_confidence_ratio", "step", "activity"] == 0.9
    assert ("scalesim_estimator_order_accuracy_ratio", "step", "activity") not in found


def test_no_agent_and_no_source_is_named(sidecar: Sidecar) -> None:
    add_engine(sidecar)
    open_stream(sidecar, "secretsim")
    say(sidecar, {"type": "agent.woken", "agent": "secretagent"}, simulation="secretsim")
    assert "secret" not in scrape(sidecar)


def test_every_metric_is_named_and_described_by_the_rules(sidecar: Sidecar) -> None:
    add_engine(sidecar)
    families = list(build_registry(sidecar).collect())
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("scalesim_")
        assert family.documentation.endswith(".")


def test_openmetrics_is_spoken_where_it_is_asked_for(sidecar: Sidecar) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = asyncio.run(ask(sidecar, lambda client: client.get("/metrics", headers=accept)))[0]
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
