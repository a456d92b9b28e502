"""Prometheus' alert rules say what the scaler's own alerts say, and more, in names that are exported."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_feed import Feed
from promtool import needs_promtool, promtool

from headrace_contracts.alert import AlertName
from headrace_scaler.alerting.conditions import NO_PLACE
from headrace_scaler.policy.decision import Blocked

FOLDER = Path(__file__).parents[2] / "compose" / "prometheus"
RULES = FOLDER / "headrace.rules.yml"
TESTS = FOLDER / "headrace.rules.test.yml"

# Prometheus adds them to everything it scrapes.
SCRAPED = {"instance", "job"}

_METRIC = re.compile(r"\b(headrace_\w+|up)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def rules() -> dict[str, dict]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def exported() -> dict[str, dict[str, set[str]]]:
    """Values of each label of each metric that processes show, or that Prometheus adds."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for text in (generate_latest(registry).decode() for registry in Feed().registries):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def jobs() -> set[str]:
    """Every `job_name` of every Prometheus that we set up."""
    settings = [yaml.safe_load((FOLDER / name).read_text()) for name in ("prometheus.yml", "compose.yml", "fixed.yml")]
    return {one["job_name"] for each in settings for one in each["scrape_configs"]}


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    status, said = promtool("check", "rules", RULES)

    assert status == 0, said
    assert f"{len(rules())} rules found" in said


@needs_promtool
@pytest.mark.parametrize("process", ["scaler", "worker", "GPUs"])
def test_prometheus_has_nothing_to_say_against_what_a_process_shows(process: str) -> None:
    registries = dict(zip(("scaler", "worker", "GPUs"), Feed().registries, strict=True))

    assert promtool("check", "metrics", stdin=generate_latest(registries[process]).decode()) == (0, "")


@needs_promtool
def test_prometheus_takes_its_settings() -> None:
    status, said = promtool("check", "config", FOLDER / "prometheus.yml")

    assert status == 0, said


@needs_promtool
def test_the_rules_fire_are_resolved_and_stay_silent_as_they_should() -> None:
    status, said = promtool("test", "rules", TESTS)

    assert status == 0, said


def test_every_rule_is_tested_both_ways() -> None:
    checks = [check for one in yaml.safe_load(TESTS.read_text())["tests"] for check in one["alert_rule_test"]]

    for name in rules():
        mine = [bool(check.get("exp_alerts")) for check in checks if check["alertname"] == name]
        assert True in mine, f"{name} is never seen to fire"
        # Before it fires, and after it is resolved.
        assert mine.count(False) >= 2, f"{name} is not seen to be silent before and after"


def test_every_alert_of_the_scaler_has_a_rule() -> None:
    wanted = {f"Headrace{''.join(word.title() for word in name.split('_'))}" for name in AlertName}

    assert wanted <= rules().keys()


@pytest.mark.parametrize("alert", list(rules()))
def test_every_name_and_label_of_a_rule_is_one_that_is_exported(alert: str) -> None:
    expression = rules()[alert]["expr"]
    known = exported()
    used = _METRIC.findall(expression)
    assert used

    for name, matchers in used:
        assert name in known, name
        for label, operator, value in _MATCHER.findall(matchers):
            if label == "job":
                assert any(re.fullmatch(value, job) for job in jobs()), f"nothing is scraped as {value}"
                continue
            assert label in known[name], f"{name} has no label {label}"
            for one in value.split("|") if "~" in operator else [value]:
                assert one in known[name][label], f'{name} is never shown with {label}="{one}"'
    labels = {label for name, _ in used for label in known[name]} | SCRAPED
    for grouping in _GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels


def test_the_rules_mean_the_same_reasons_as_the_scaler() -> None:
    reasons = {name: re.search(r'reason=~?"([^"]*)"', rule["expr"]) for name, rule in rules().items()}

    assert {name: found[1] for name, found in reasons.items() if found} == {
        "HeadraceCrashLoop": Blocked.CRASH_LOOP,
        "HeadraceSaturation": "|".join(NO_PLACE),
    }


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    for name, rule in rules().items():
        assert rule["annotations"].keys() == {"summary", "description"}, name
        assert rule["labels"]["severity"] in ("warning", "critical"), name
