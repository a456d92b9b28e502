"""The dashboard: on one screen, with queries that our own metrics answer."""

import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_feed import Feed
from prometheus_server import needs_prometheus, scraping

GRAFANA = Path(__file__).parents[2] / "compose" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "headrace.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
TARGET_IDS = [f"{panel['title']} {target['refId']}" for panel, target in TARGETS]

# A row of Grafana's grid is 30 pixels high, and 8 are between two; bars above take 88 of 1080.
COLUMNS, MOST_ROWS = 24, (1080 - 88) // 38
CORE = {"stat", "timeseries", "table", "bargauge", "heatmap", "alertlist"}
OF_PROMETHEUS = {"up", "ALERTS"}
# One that fires at once, with the labels of ours.
RULES = "groups: [{name: test, rules: [{alert: Headrace, expr: headrace_blocked == 1, labels: {severity: warning}}]}]"


def chosen(expr: str) -> str:
    """As Grafana sends it with the feed's model chosen: `.*` would match a label that does not exist."""
    values = {"$__rate_interval": "1m", "$__range": "15m", "$model": "m", "$lane": "high|normal|low"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in re.sub(r'"[^"]*"', "", expr), f"nobody fills in a variable of {expr}"
    return expr


def names_in(expr: str) -> set[str]:
    names: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"a selector without a name in {expr}"
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(chosen(expr)), visit)
    return names


def test_the_file_is_what_its_source_says() -> None:
    command = [sys.executable, GRAFANA / "dashboard.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


def test_grafanas_own_types_take_all_of_it() -> None:
    """Whatever they do not know they drop, and whatever they take for something else comes back as that."""
    register_default_plugins()
    taken = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    for variable in DASHBOARD["templating"]["list"]:
        # The one thing that Grafana writes and its types leave out.
        [other] = [one for one in taken["templating"]["list"] if one["name"] == variable["name"]]
        other["definition"] = variable["definition"]

    assert list(differences(DASHBOARD, taken)) == []


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """Where `theirs` lacks or changes something of `ours`; what it adds is what Grafana has by itself."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from differences(value, theirs.get(name), f"{where}/{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{where}/{index}")
    elif ours != theirs:
        yield f"{where}: {ours!r} became {theirs!r}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 40
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["type"] in CORE
    assert panel["targets"]


def test_panels_are_told_apart() -> None:
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_fit_one_screen_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert rows <= MOST_ROWS
    # No holes either.
    assert taken == set(itertools.product(range(COLUMNS), range(rows)))


def test_grafana_finds_the_data_and_the_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "headrace.yml").read_text())["providers"]
    compose = yaml.safe_load((GRAFANA.parent / "docker-compose.yml").read_text())["services"]["grafana"]
    used = [each["datasource"] for each in (*PANELS, *DASHBOARD["templating"]["list"])]
    used += [target["datasource"] for _, target in TARGETS]

    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in used)
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["volumes"]
    assert DASHBOARD["uid"] == "headrace"


@pytest.mark.parametrize(("panel", "target"), TARGETS, ids=TARGET_IDS)
def test_every_query_asks_for_what_we_export(panel: dict[str, Any], target: dict[str, Any]) -> None:
    names = names_in(target["expr"])

    assert names
    assert names - OF_PROMETHEUS <= Feed().names()


def test_choices_are_of_labels_that_there_are() -> None:
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"model", "lane"}
    used = "".join(target["expr"] for _, target in TARGETS)
    for name, variable in variables.items():
        assert f'=~"${name}' in used
        assert variable["multi"]
        assert variable["includeAll"]
        asked = re.fullmatch(rf"label_values\((\w+), {name}\)", variable["query"]["query"])
        assert asked is not None
        assert asked[1] in Feed().names()


@needs_prometheus
async def test_a_real_prometheus_answers_every_query(tmp_path: Path) -> None:
    feed = Feed()
    async with feed.serving() as (scaler, *workers):
        jobs = {"headrace-scaler": [scaler], "headrace-worker": workers}
        async with scraping(jobs, RULES, tmp_path) as prometheus:
            counted = 'headrace_results_total{lane="normal",status="succeeded"}'
            await prometheus.until_found(f"{counted} == 3")
            await prometheus.until_found("headrace_worker_jobs_total == 1")
            feed.go_on()
            await prometheus.until_found(f"{counted} == 6")
            await prometheus.until_found("headrace_worker_cost_total == 2")
            await prometheus.until_found("ALERTS")

            empty = []
            for name, (_, target) in zip(TARGET_IDS, TARGETS, strict=True):
                found = await prometheus.ask(chosen(target["expr"]))
                known = any(math.isfinite(float(line["value"][1])) for line in found)
                if not known:
                    empty.append(name)
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    assert all(label in line["metric"] for line in found), f"{name} has no {label}"
            assert empty == []


@pytest.mark.parametrize("name", ["compose.yml", "fixed.yml", "prometheus.yml"])
def test_prometheus_reads_as_often_as_the_data_source_says(name: str) -> None:
    """Rates are over four scrapes of the data source; of fewer, lines have holes and totals jump."""
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    settings = yaml.safe_load((GRAFANA.parent / "prometheus" / name).read_text())
    usual = settings["global"]["scrape_interval"]
    read = {one["job_name"]: one.get("scrape_interval", usual) for one in settings["scrape_configs"]}
    ours = {every for job, every in read.items() if job.startswith("headrace-")}
    assert ours == {source["jsonData"]["timeInterval"]}
