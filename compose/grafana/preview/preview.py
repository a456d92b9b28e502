"""Draws the dashboard with what a real Prometheus knows, in Chromium: `preview.py <url of Prometheus> <picture.png>`.

A preview, not Grafana: the JSON is the one that Grafana gets, and places, titles, units, colours and legends are as it
says. Here every query is asked; preview.js draws, with uPlot, which Grafana draws its time series with too.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_DASHBOARD: Final = _HERE.parent / "dashboards" / "headrace.json"
_UPLOT: Final = _HERE / "node_modules" / "uplot" / "dist"
_SIZE: Final = "1920,1080"
_RANGE_S: Final = 15 * 60
# As Grafana makes them of this range and of the data source's `timeInterval`.
_STEP_S: Final = 5
_RATE_INTERVAL_S: Final = 4 * _STEP_S
_DEADLINE_S: Final = 60.0
# Of the page's own clock, which runs as fast as it can.
_DRAWN_AFTER_MS: Final = 3000

Json = dict[str, Any]


def main() -> int:
    """0 if there is a picture."""
    if len(sys.argv) != 3:
        sys.stderr.write("preview.py <url of Prometheus> <picture.png>\n")
        return 2
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not _UPLOT.is_dir():
        sys.stderr.write("it takes Chromium (Debian: apt install chromium) and uPlot (`npm ci` in this folder)\n")
        return 1
    url, picture = sys.argv[1].rstrip("/"), Path(sys.argv[2]).absolute()
    picture.parent.mkdir(parents=True, exist_ok=True)
    try:
        page = _page(json.loads(_DASHBOARD.read_text(encoding="utf-8")), url)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"Prometheus at {url} does not answer: {error}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="headrace-preview-") as folder:
        return _shoot(chromium, page, Path(folder), picture)


def _page(dashboard: Json, url: str) -> str:
    """One file with everything in it: nothing is fetched while it is drawn."""
    end = int(float(_ask(url, "query", query="time()")[1])) // _STEP_S * _STEP_S
    answers = [[_answer(url, target, end) for target in panel["targets"]] for panel in dashboard["panels"]]
    data = {"dashboard": dashboard, "answers": answers, "from": end - _RANGE_S, "to": end, "step": _STEP_S}
    # `</script>` in a text would end the script.
    known = json.dumps(data).replace("</", r"<\/")
    style = (_UPLOT / "uPlot.min.css").read_text(encoding="utf-8") + (_HERE / "preview.css").read_text(encoding="utf-8")
    scripts = [
        (_UPLOT / "uPlot.iife.min.js").read_text(encoding="utf-8"),
        f"const PREVIEW = {known};",
        (_HERE / "preview.js").read_text(encoding="utf-8"),
    ]
    return "\n".join(
        [
            f'<!doctype html><meta charset="utf-8"><title>Headrace</title><style>{style}</style><body>',
            *(f"<script>{script}</script>" for script in scripts),
        ]
    )


def _answer(url: str, target: Json, end: int) -> list[Json]:
    """The lines of one query; everything is chosen above."""
    query = target["expr"]
    for name, value in (
        ("$__rate_interval", f"{_RATE_INTERVAL_S}s"),
        ("$__range", f"{_RANGE_S}s"),
        ("$model", ".*"),
        ("$lane", ".*"),
    ):
        query = query.replace(name, value)
    if target["instant"]:
        found = _ask(url, "query", query=query, time=str(end))
    else:
        found = _ask(url, "query_range", query=query, start=str(end - _RANGE_S), end=str(end), step=str(_STEP_S))
    lines: list[Json] = found
    return lines


def _ask(url: str, path: str, **parameters: str) -> Any:  # noqa: ANN401 - its form depends on the query
    with urllib.request.urlopen(  # noqa: S310 - the operator's own URL
        f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=_DEADLINE_S
    ) as answer:
        return json.load(answer)["data"]["result"]


def _shoot(chromium: str, page: str, folder: Path, picture: Path) -> int:
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={folder / 'profile'}", f"--window-size={_SIZE}"),
            *(f"--virtual-time-budget={_DRAWN_AFTER_MS}", f"--screenshot={picture}", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
    )
    if done.returncode or not picture.is_file():
        sys.stderr.write(f"Chromium made no picture: {done.stderr.strip()[-500:]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
