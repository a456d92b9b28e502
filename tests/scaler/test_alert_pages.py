"""The pages say which alerts and metrics there are: all of them, and no other."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_metrics import busy_scaler
from test_rules import rules

from headrace_contracts.alert import Alert, AlertName
from headrace_contracts.heartbeat import WorkerPhase

DOCS = Path(__file__).parents[2] / "docs"
SCALING = (DOCS / "scaling.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: what stands in backticks in its first cell, and in its second."""
    table = text.split(f"\n{heading}\n", 1)[1].split("\n| --- ", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    words = [[re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:3]] for row in table]
    return {name: second for first, second in words for name in first}


def test_every_alert_is_explained() -> None:
    assert set(rows(SCALING, "## Alerts")) == set(AlertName)


def test_it_is_said_what_to_do_about_each_alert() -> None:
    beyond = set(rules()) - {f"Headrace{name.title().replace('_', '')}" for name in AlertName}

    assert set(rows(OPERATIONS, "## Alerts")) == {*AlertName, *beyond}


def test_every_metric_is_explained_with_its_labels() -> None:
    shown = {}
    for family in text_string_to_metric_families(generate_latest(busy_scaler().registry).decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[f"{family.name}_total" if family.type == "counter" else family.name] = labels
    # When each counter began: the client library adds it.
    shown = {name: labels for name, labels in shown.items() if not name.endswith("_created")}

    assert {name: set(labels) for name, labels in rows(SCALING, "## Metrics").items()} == shown


@pytest.mark.parametrize("phase", WorkerPhase)
def test_every_phase_of_a_worker_is_named(phase: WorkerPhase) -> None:
    [row] = [line for line in SCALING.splitlines() if line.startswith("| `headrace_workers` |")]

    assert f"`{phase}`" in row


def test_the_message_shown_is_an_alert_with_every_field() -> None:
    [shown] = re.findall(r"^```json\n(.*?)^```$", SCALING, re.MULTILINE | re.DOTALL)

    alert = msgspec.json.decode(shown, type=Alert)

    assert json.loads(shown).keys() == set(Alert.__struct_fields__)
    assert alert.firing == {alert.alert: alert.since}
