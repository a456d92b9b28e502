"""`docs/scaling.md` says what the policy does: its table is complete, its example is true, its pictures are there."""

import re
from pathlib import Path

import msgspec
from policy_views import model

from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.demand import demand_of
from headrace_scaler.policy.state import ModelState
from headrace_scaler.simulation.scenarios import scenarios

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_setting_has_its_row_of_equivalents():
    table = TEXT.split("### Settings, and what others call them")[1].split("###")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [
        field.name for field in msgspec.structs.fields(Scaling)
    ]


def test_every_reason_to_be_blocked_is_named():
    table = TEXT.split("| `blocked` |")[1].split("###")[0]
    assert {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"\w+", row)} == {
        blocked.value for blocked in Blocked if blocked
    }


def test_the_example_is_true():
    assert "124 workers" in TEXT
    by_jobs = model(scaling=Scaling(max_workers=200), waiting=120, held=4)
    assert demand_of(by_jobs, ModelState("painter")).workers == 124

    assert "catch_up = ceil(120 x 8 / 60) = 16 and keep_up = ceil(0.5 x 8 / 0.8) = 5" in TEXT
    scaling = Scaling(max_workers=200, target_wait_s=60, target_utilization=0.8)
    by_wait = model(scaling=scaling, waiting=120, held=4, service_s=8.0)
    assert demand_of(by_wait, ModelState("painter", arrival_rate=0.5)).workers == 16
    short = model(scaling=scaling, waiting=1, held=4, service_s=8.0)
    assert demand_of(short, ModelState("painter", arrival_rate=0.5)).workers == 5


def test_every_scenario_has_its_picture():
    for scenario in scenarios():
        assert f"(scaling/{scenario.name}.png)" in TEXT
        assert (PAGE.parent / "scaling" / f"{scenario.name}.png").stat().st_size < 60_000
