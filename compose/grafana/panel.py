"""What a panel is, and how Grafana has it: the JSON of one panel, of a kind that every Grafana comes with. Pure.

A panel says its query, unit and colours; all that makes panels look alike is here.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Json = dict[str, Any]
Kind = Literal["stat", "timeseries", "bargauge", "table"]

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "prometheus"}
"""As compose/grafana/provisioning/datasources/prometheus.yml has it."""

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "#8e8e8e"


@dataclass(frozen=True)
class Query:
    """One expression, and what its lines are called.

    Args:
        expr: PromQL; `$model` and `$lane` are what was chosen above, `$__rate_interval` and `$__range` are Grafana's.
        legend: with `{{label}}` for a label's value.
        dashed: drawn as a dashed line without a fill, as limits and medians are. One that shares its legend with
            another query has the same colour, and no entry of its own.
    """

    expr: str
    legend: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: what it shows, in the words of the docs.
        says: what it tells, and what to do about it; Grafana shows it behind the (i).
        unit: Grafana's name of it, or `suffix:<text>`.
        queries: at least one.
        kind: how it is drawn.
        steps: colours from a value on, the first one for everything below.
        colours: of single lines, by legend.
        names: text in place of a value.
        stacked: areas on top of each other.
        logarithmic: for what spans milliseconds and minutes.
        most: the end of the axis.
        empty: said where there is no row, and nothing is wrong with that.
        columns: of a table, label to heading; all others are hidden.
    """

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    colours: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    stacked: bool = False
    logarithmic: bool = False
    decimals: int | None = None
    most: float | None = None
    empty: str = ""
    columns: dict[str, str] = field(default_factory=dict)


def panel_json(panel: Panel, number: int, x: int, y: int, width: int, height: int) -> Json:
    """A panel at its place; Grafana's grid has 24 columns, and rows of 30 pixels with 8 between them."""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": [_target(panel, query, place) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind],
        **({"transformations": _columns(panel)} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, query: Query, place: int) -> Json:
    at_once = panel.kind in ("bargauge", "table")
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        **({"format": "table"} if panel.kind == "table" else {}),
    }


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic-by-name" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        },
        "mappings": [{"type": "value", "options": {value: {"text": text} for value, text in panel.names.items()}}]
        if panel.names
        else [],
        "noValue": panel.empty or "no data",
    }
    if panel.kind in ("timeseries", "bargauge") and not panel.logarithmic:
        defaults["min"] = 0
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 0 if panel.stacked else 1,
            "fillOpacity": 70 if panel.stacked else 0 if panel.logarithmic else 8,
            "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return defaults


def _overrides(panel: Panel) -> list[Json]:
    overrides = [
        _override({"id": "byName", "options": legend}, {"color": {"mode": "fixed", "fixedColor": colour}})
        for legend, colour in panel.colours.items()
    ]
    for place, query in enumerate(panel.queries):
        if query.dashed:
            line = {"fill": "dash", "dash": [6, 4]}
            look: Json = {"custom.lineStyle": line, "custom.lineWidth": 1, "custom.fillOpacity": 0}
            if panel.stacked:
                look["custom.stacking"] = {"mode": "none", "group": "A"}
            if query.legend in [other.legend for other in panel.queries if other is not query]:
                look["custom.hideFrom"] = {"legend": True, "tooltip": False, "viz": False}
            overrides.append(_override({"id": "byFrameRefID", "options": chr(ord("A") + place)}, look))
    return overrides


def _override(matcher: Json, properties: Json) -> Json:
    return {"matcher": matcher, "properties": [{"id": name, "value": value} for name, value in properties.items()]}


def _columns(panel: Panel) -> list[Json]:
    """Of several queries one table, and of each row only what is named."""
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": list(panel.columns)}}},
        {
            "id": "organize",
            "options": {
                "indexByName": {name: place for place, name in enumerate(panel.columns)},
                "renameByName": panel.columns,
            },
        },
    ]


_OPTIONS: Final[dict[Kind, Json]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "gradient",
        "orientation": "horizontal",
        "showUnfilled": True,
        "minVizHeight": 12,
        "minVizWidth": 8,
        "valueMode": "text",
    },
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
}
