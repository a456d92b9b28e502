"""Writes dashboards/headrace.json from panels.py; `--check` only says whether it is what would be written."""

import json
import sys
from pathlib import Path
from typing import Final

from panel import DATASOURCE, Json, panel_json
from panels import ROWS

COLUMNS: Final = 24
DASHBOARD: Final = Path(__file__).parent / "dashboards" / "headrace.json"
# Of Grafana 12. A newer one migrates it, an older one reads what it knows.
_SCHEMA_VERSION: Final = 41


def dashboard() -> Json:
    """The whole of it, as Grafana imports it."""
    return {
        "uid": "headrace",
        "title": "Headrace",
        "description": "Is anything waiting, why, what is slow, what fails, what does it cost. docs/dashboard.md",
        "tags": ["headrace"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_variable("model"), _variable("lane")]},
        "annotations": {"list": []},
        "panels": _panels(),
    }


def text() -> str:
    """As the file has it."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """0 if the file is, or now is, up to date."""
    if "--check" not in sys.argv[1:]:
        DASHBOARD.write_text(text(), encoding="utf-8")
        return 0
    if DASHBOARD.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{DASHBOARD} is not what panels.py says: `make dashboard`\n")
    return 1


def _panels() -> list[Json]:
    """Every row fills the width."""
    placed: list[Json] = []
    y = 0
    for height, row in ROWS:
        width, rest = divmod(COLUMNS, len(row))
        assert not rest, f"a row of {len(row)} panels does not fill {COLUMNS} columns"
        for place, panel in enumerate(row):
            placed.append(panel_json(panel, len(placed) + 1, place * width, y, width, height))
        y += height
    return placed


def _variable(label: str) -> Json:
    """A choice above the panels: some of the values that the label has, or all."""
    query = f"label_values(headrace_jobs_waiting, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


if __name__ == "__main__":
    sys.exit(main())
