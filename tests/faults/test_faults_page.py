"""The page on faults lists what there is: every fault, invariant, scenario and planted bug, in the code's own words."""

import re
from pathlib import Path

from scenarios import SCENARIOS
from test_planted_bugs import PLANTED

from headrace_loadgen.check import INVARIANTS
from headrace_loadgen.records import FaultKind

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in re.split(r"\s\|\s", line.strip("| "))] for line in lines[2:]]


def test_faults() -> None:
    assert [row[0] for row in rows("What can break")] == list(FaultKind)


def test_invariants() -> None:
    assert {row[0]: row[1] for row in rows("Invariants")} == {
        name: (invariant.__doc__ or "").strip() for name, invariant in INVARIANTS.items()
    }


def test_scenarios() -> None:
    assert [row[0] for row in rows("Scenarios")] == list(SCENARIOS)


def test_planted_bugs() -> None:
    assert [(row[0], row[2], row[3]) for row in rows("Planted bugs")] == [
        (planted.bug, planted.scenario, planted.breaks) for planted in PLANTED
    ]
