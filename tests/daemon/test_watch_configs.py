"""What watches the daemon from outside: every metric, label and route that alerts and dashboard name is a real one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.exposition import generate_latest

from scalesim_daemon.api import build_api
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.metrics import build_registry
from scalesim_daemon.settings import ApiSettings
from tests.daemon.metrics_page import busy_sidecar, families, labels_of, names_of

CONFIGS = Path(__file__).parents[2] / "configs"
ALERTS = CONFIGS / "alerts.yml"
ALERT_TESTS = CONFIGS / "alerts_test.yml"
DASHBOARD = CONFIGS / "grafana" / "dashboards" / "scalesim.json"
ROWS = [
    *("Engines", "Residency", "Hit share", "Prefetches used and wasted", "Estimator quality", "Feed", "Loop"),
]
# Added by Prometheus itself, to every series.
SCRAPED_LABELS = {"instance", "job"}
SELECTOR = re.compile(r"\b(scalesim_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    promtool is None, reason="promtool isn't installed: it is part of Debian's package prometheus"
)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def queries() -> dict[str, str]:
    """The dashboard's PromQL by where it stands, with its variables filled in."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    values = {"$__rate_interval": "1m", "$instance": ".*", "$engine": ".*"}
    for variable, value in values.items():
        found = {place: query.replace(variable, value) for place, query in found.items()}
    return found


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that a query names, and the labels that it is selected by."""
    for name, matchers in SELECTOR.findall(query):
        yield name, set(MATCHER.findall(matchers))


@pytest.fixture
def known(tmp_path: Path) -> Mapping[str, set[str]]:
    """The labels of each metric, by its name in a scrape."""
    return {
        name: SCRAPED_LABELS | set(labels_of(family)) | ({"le"} if name.endswith("_bucket") else set())
        for family in families(busy_sidecar(tmp_path))
        for name in names_of(family)
    }


def test_alerts_select_by_metrics_and_labels_that_exist(known: Mapping[str, set[str]]) -> None:
    for rule in rules():
        named = list(selectors(rule["expr"]))
        assert named, rule["alert"]
        for name, labels in named:
            assert labels <= known[name], f"{rule['alert']}: {name}"


def test_the_dashboard_selects_by_metrics_and_labels_that_exist(known: Mapping[str, set[str]]) -> None:
    for place, query in queries().items():
        named = list(selectors(query))
        assert named and "$" not in query, place
        for name, labels in named:
            assert labels <= known[name], f"{place}: {name}"
    for variable in dashboard()["templating"]["list"][1:]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        assert label in known[name]


def test_a_legend_names_labels_that_its_metric_has(known: Mapping[str, set[str]]) -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            common = set.intersection(*(known[name] for name, _ in selectors(target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= common, panel["title"]


def test_every_alert_says_what_it_means_and_what_to_do(sidecar: Sidecar) -> None:
    paths = {getattr(route, "path", "") for route in build_api(sidecar).routes}
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "meaning", "remedy"}
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["alert"]
        assert set(re.findall(r"GET (/[\w/]+)", rule["annotations"]["remedy"])) <= paths
        for name in re.findall(r"\bScalesim\w+", rule["annotations"]["remedy"]):
            assert name in names


def test_every_alert_is_shown_to_fire() -> None:
    cases = ALERT_TESTS.read_text()
    assert [name for name in (rule["alert"] for rule in rules()) if name not in cases] == []


def test_prometheus_scrapes_where_the_daemon_listens() -> None:
    config = yaml.safe_load((CONFIGS / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{ApiSettings().host}:{ApiSettings().port}"]}]
    assert all(f'job="{name}"' in ALERTS.read_text() for name in [job["job_name"]])
    assert [(CONFIGS / name).is_file() for name in config["rule_files"]] == [True]


def test_the_dashboard_has_its_rows_and_no_panel_over_another() -> None:
    panels = dashboard()["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) == 23
    assert all(panel["description"].endswith(".") for panel in panels if panel["type"] != "row")


def test_grafana_is_told_of_the_source_and_the_dashboards() -> None:
    provisioning = CONFIGS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == dashboard()["templating"]["list"][0]["query"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "scalesim.yml").read_text())["providers"]
    assert provider["type"] == "file" and Path(provider["options"]["path"]).name == DASHBOARD.parent.name


def run_promtool(*arguments: str, text: str = "") -> None:
    assert promtool is not None
    done = subprocess.run(
        [promtool, *arguments], cwd=CONFIGS, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_the_config_and_its_rules() -> None:
    run_promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_promtool_sees_alerts_fire_and_be_still() -> None:
    run_promtool("test", "rules", ALERT_TESTS.name)


@needs_promtool
def test_promtool_finds_nothing_against_the_metrics(tmp_path: Path) -> None:
    run_promtool("check", "metrics", text=generate_latest(build_registry(busy_sidecar(tmp_path))).decode())


@needs_promtool
def test_promtool_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    records = [{"record": f"panel{number}", "expr": query} for number, query in enumerate(queries().values())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    run_promtool("check", "rules", str(file))
