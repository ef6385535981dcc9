"""The table of metrics in `docs/metrics.md`.

`python -m tests.daemon.metrics_page` writes it anew from a registry in which every metric has a value; a test says
where it is behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time

from prometheus_client.core import Metric

from bench.results.pages import with_part
from scalesim_adapters.base import MemoryKind, Pressure
from scalesim_daemon.fleet.lease import Lease, Terms
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.metrics import build_registry
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.recording.recorder import Recorder
from scalesim_daemon.records import Record
from scalesim_daemon.settings import EngineSettings, HostTierSettings, ModelSettings, Settings
from tests.daemon.still import INFO, add_engine, open_stream, say, still_sidecar

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
MARKS = ("<!-- metrics: written by `make metrics` -->", "<!-- end of metrics -->")

# By what a name starts with; the first that fits.
SUBJECTS = {
    "Engines": ("scalesim_engine", "scalesim_invocations_total", "scalesim_leases"),
    "Memory and its budgets": (
        *(
            "scalesim_blocks",
            "scalesim_evictions",
            "scalesim_unpredicted",
            "scalesim_host_tier",
            "scalesim_lora",
        ),
        "scalesim_model",
        "scalesim_prefix",
    ),
    "What agents find, and what prefetches come to": (
        *("scalesim_invoked", "scalesim_prefetch", "scalesim_reloads", "scalesim_touches"),
    ),
    "Steps": ("scalesim_plan", "scalesim_step"),
    "Agents and their distances": ("scalesim_agents", "scalesim_invocations", "scalesim_distance"),
    "Estimators": ("scalesim_estimator",),
    "The feed": (
        *("scalesim_messages", "scalesim_events", "scalesim_duplicates", "scalesim_gaps", "scalesim_refused"),
        "scalesim_source",
    ),
    "The gateway": ("scalesim_gateway",),
    "The store": ("scalesim_mirror",),
    "Several daemons": ("scalesim_fleet",),
    "The daemon and its loop": ("scalesim_",),
}
DUES = (("secretagent", 1.0), ("another", 2.0))


def busy_sidecar(folder: Path) -> Sidecar:
    """Return a sidecar of which everything is known that a metric can say, with an engine `one`."""
    sidecar = still_sidecar(folder)
    tier = HostTierSettings(segment=folder / "tier", bytes=1 << 20)
    engine = EngineSettings(name="one", url="http://127.0.0.1:8000", host_tier=tier)
    settings = Settings(engines=(engine,), loras=sidecar.settings.loras, models=ModelSettings(budget_bytes=9))
    sidecar.settings = settings
    sidecar.recorder = Recorder(folder / "recording", content=False, max_bytes=1 << 20)
    sidecar.recorder.close()
    view = add_engine(sidecar, "one", replace(INFO, device_blocks=16)).view
    sidecar.gateway_url = "http://127.0.0.1:8800"
    view.lease = Lease("here/1", Terms.of(5.0))
    view.model_bytes = 5
    view.measured(Pressure(1, 0, 7), 0, 0.0)
    for agent in ("secretagent", "another"):
        step = Step(Action.LOAD, MemoryKind.PREFIX_KV, f"sim/{agent}", 0, 2, 1.0, "due next")
        view.ledger.brought(step)
        sidecar.timings.step(Record(time(), "one", step, "done", 0.1, 8))
    open_stream(sidecar)
    say(sidecar, *({"type": "agent.activity_started", "agent": name, "until": due} for name, due in DUES))
    for agent, due in DUES:
        tick = {"type": "step.advanced", "now": due}
        say(sidecar, tick, {"type": "invocation.started", "agent": agent})
    return sidecar


def families(sidecar: Sidecar) -> list[Metric]:
    """Return all metrics."""
    return list(build_registry(sidecar).collect())


def names_of(family: Metric) -> Sequence[str]:
    """Return the names that the metric's samples have in a scrape."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return [f"{family.name}{suffix}" for suffix in suffixes.get(family.type, ("",))]


def labels_of(family: Metric) -> list[str]:
    """Return the names of the metric's labels; a metric without a sample raises `ValueError`."""
    if not family.samples:
        raise ValueError(f"{family.name} has no sample in the scene")
    return [label for label in family.samples[0].labels if label != "le"]


def table(sidecar: Sidecar) -> str:
    """Return the part of the page that follows from the registry."""
    lines: list[str] = []
    known = families(sidecar)
    for subject, prefixes in SUBJECTS.items():
        mine = [family for family in known if names_of(family)[0].startswith(prefixes)]
        known = [family for family in known if family not in mine]
        lines += [f"## {subject}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        lines += [_row(family) for family in sorted(mine, key=lambda family: family.name)]
        lines.append("")
    return "\n".join(lines)


def _row(family: Metric) -> str:
    name = names_of(family)[0] if family.type == "counter" else family.name
    labels = ", ".join(f"`{label}`" for label in labels_of(family)) or "-"
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


def page() -> str:
    """Return the page with its table renewed."""
    with TemporaryDirectory() as folder:
        return with_part(PAGE.read_text(), MARKS, table(busy_sidecar(Path(folder))))


if __name__ == "__main__":
    PAGE.write_text(page())
