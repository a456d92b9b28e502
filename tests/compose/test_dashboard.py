"""The dashboard as Grafana gets it: on one screen, and only of metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest
from test_metrics import busy_scaler

from headrace_contracts.heartbeat import EngineState
from headrace_scaler.metrics import COUNTERS, GAUGES
from headrace_workers.metrics import WorkerMetrics

GRAFANA = Path(__file__).parents[2] / "compose" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "headrace.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
# 1,080 pixels, without the browser's and Grafana's own bars, in steps of the grid.
MOST_ROWS = 26
# Of Prometheus itself.
OWN = {"up", "ALERTS", "time"}
_VARIABLE = {"$__rate_interval": "1m", "$__range": "15m", "$__interval": "15s"}


def expressions() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def plain(expr: str) -> str:
    """As Prometheus gets it."""
    for name, value in _VARIABLE.items():
        expr = expr.replace(name, value)
    return expr.replace("$model", ".*").replace("$lane", ".*")


def exported() -> set[str]:
    worker = WorkerMetrics()
    worker.serves("m", lambda: EngineState.READY)
    text = generate_latest(busy_scaler().registry) + generate_latest(worker.registry)
    shown = set(re.findall(r"^([a-z_]+)", text.decode(), re.MULTILINE))
    described = set(re.findall(r"^# TYPE ([a-z_]+) histogram", text.decode(), re.MULTILINE))
    buckets = {f"{name}_{end}" for name in described for end in ("bucket", "sum", "count")}
    # Of machines with a GPU, of a scaler with a warm parent, and of jobs that have not come yet.
    rare = set(GAUGES) | {f"{name}_total" for name in COUNTERS}
    gpu = {f"headrace_gpu_{what}" for what in ("utilization_ratio", "memory_used_bytes", "memory_total_bytes")}
    return shown | buckets | rare | gpu | OWN


@pytest.mark.parametrize(("title", "expr"), expressions())
def test_a_query_is_promql_of_metrics_that_there_are(title: str, expr: str) -> None:
    promql_parser.parse(plain(expr))
    named = set(re.findall(r"\bheadrace_[a-z_]+", expr))
    assert named <= exported(), f"{title}: nobody shows {named - exported()}"


def test_every_panel_says_what_it_tells_and_in_which_unit() -> None:
    assert len(PANELS) > 10
    for panel in PANELS:
        assert panel["title"], panel["id"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_fill_one_screen_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {x for x, _ in taken} == set(range(24))
    assert max(y for _, y in taken) < MOST_ROWS


def test_its_data_is_that_of_the_source_which_is_provisioned() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    [uid] = [each["uid"] for each in source["datasources"]]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {uid}
