"""Metrics: names and units, one sample per engine and none per agent, read at the moment of the scrape."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.planning import EnginePlan
from scalesim_daemon.records import Record
from scalesim_daemon.timings import STEP_BOUNDS
from tests.daemon.metrics_page import PAGE, busy_sidecar, families, labels_of, page
from tests.daemon.still import add_engine, ask, open_stream, say, stored, tokens

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")
UNITS = {"seconds", "bytes", "tokens", "ratio"}
NO_UNITS = {
    "ms",
    "milliseconds",
    "minutes",
    "percent",
    "kb",
    "mb",
    "mib",
    "gib",
    "total",
    "count",
    "bucket",
    "sum",
}
# Each has a few values, known when the daemon starts.
BOUNDED_LABELS = {
    *(
        "engine",
        "kind",
        "action",
        "outcome",
        "tier",
        "estimator",
        "clock",
        "why",
        "by",
        "of",
        "mode",
        "version",
    ),
}


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
    assert found["scalesim_prefetched_wasted_tokens_total", "one"] == 64
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


def test_every_metric_is_named_and_described_by_the_rules(tmp_path: Path) -> None:
    known = families(busy_sidecar(tmp_path))
    assert len({family.name for family in known}) == len(known)
    for family in known:
        words = family.name.split("_")
        assert words[0] == "scalesim" and re.fullmatch("[a-z][a-z0-9_]*[a-z0-9]", family.name)
        assert family.documentation.endswith(".")
        assert not NO_UNITS & set(words), f"{family.name} is not in base units"
        # A unit stands last, before _total; what is counted in none is said in the plural, or is a yes or no.
        assert not UNITS & set(words[:-1]), f"{family.name} has its unit in the middle"
        assert family.type in ("counter", "gauge", "histogram")
        assert family.type != "histogram" or words[-1] in UNITS


def test_no_label_may_name_an_agent(tmp_path: Path) -> None:
    sidecar = busy_sidecar(tmp_path)
    for family in families(sidecar):
        assert set(labels_of(family)) <= BOUNDED_LABELS, family.name
    before = len(samples(sidecar))
    say(sidecar, *({"type": "agent.woken", "agent": f"secretagent{number}"} for number in range(50)))
    for number in range(50):
        step = replace(STEP, key=f"sim/secretagent{number}", reason="secretagent is next")
        sidecar.record(Record(0.0, "one", step, "failed: secretagent", 0.1, 0))
    # Failed loads are new to the histogram, however many agents they were for.
    assert len(samples(sidecar)) == before + len(STEP_BOUNDS) + 3
    assert "secret" not in scrape(sidecar)


def test_steps_are_timed_by_what_came_of_them(sidecar: Sidecar) -> None:
    for result, seconds in (("done", 0.02), ("put off: no room", 0.4), ("cancelled: requests wait", 7.0)):
        sidecar.record(Record(0.0, "one", STEP, result, seconds, 0))
    found = {
        (sample.labels["outcome"], sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(scrape(sidecar))
        for sample in family.samples
        if sample.name == "scalesim_step_seconds_bucket"
    }
    assert found["done", "0.01"] == 0 and found["done", "0.025"] == 1
    assert found["put_off", "0.25"] == 0 and found["put_off", "0.5"] == 1
    assert found["cancelled", "2.5"] == 0 and found["cancelled", "10.0"] == 1
    assert "_created" not in scrape(sidecar)


def test_a_cycle_is_counted_and_timed_and_has_an_age(sidecar: Sidecar) -> None:
    sidecar.ticked_at = monotonic() - 60
    assert samples(sidecar)["scalesim_cycle_age_seconds",] > 59
    sidecar.cycle()
    found = samples(sidecar)
    assert found["scalesim_cycle_age_seconds",] < 59
    assert found["scalesim_cycles_total",] == found["scalesim_cycle_seconds_count",] == 1


def test_what_agents_find_is_set_against_what_they_have(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(sidecar, {"type": "agent.registered", "agent": "a"})
    agent = sidecar.population.agents["sim/a"]
    view.happened(stored("sim/a", 3))
    view.tree.declare("sim/a", (None, None), tokens(0, 4))
    view.started(agent)
    found = samples(sidecar)
    assert found["scalesim_invoked_prefix_tokens_total", "one"] == 16
    assert found["scalesim_invoked_found_tokens_total", "one"] == 12


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make metrics`"


def test_openmetrics_is_spoken_where_it_is_asked_for(sidecar: Sidecar) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = asyncio.run(ask(sidecar, lambda client: client.get("/metrics", headers=accept)))[0]
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
