"""A quick run of the queue's benchmark: every row is there and follows from the raw numbers beside it."""

import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MEASURES = {
    "submit to engine start": "start_s",
    "submit to stored result": "result_s",
    "publish to receipt": "receipt_s",
    "  submit to stored": "stored_s",
    "  stored to taken by the worker": "taken_s",
    "  taken to engine start": "begun_s",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The Markdown and the JSON of one run."""
    out = tmp_path_factory.mktemp("reports")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "queue", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [markdown] = out.glob("*.md")
    return markdown.read_text(), markdown.with_suffix(".json").read_text()


@pytest.fixture(scope="module")
def report(written: tuple[str, str]) -> dict[str, Any]:
    return json.loads(written[1])


def raw_of(report: dict[str, Any], system: str, sync: str) -> dict[str, Any]:
    [cell] = [c for c in report["queue"]["raw"] if (c["system"], c["sync"]) == (system, sync)]
    return cell


def nearest_rank(samples: list[float], share: float) -> float:
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def combinations() -> Iterator[tuple[str, str]]:
    yield from ((system, sync) for sync in ("always", "off") for system in ("headrace", "bare"))


def test_latency_rows_follow_from_the_raw_numbers(report: dict[str, Any]) -> None:
    rows = {(row["measure"], row["system"], row["sync"]): row for row in report["queue"]["latency"]}
    assert set(rows) == {(measure, *combination) for measure in MEASURES for combination in combinations()}
    for (measure, system, sync), row in rows.items():
        samples = raw_of(report, system, sync)["latency"][MEASURES[measure]]
        bare = raw_of(report, "bare", sync)["latency"][MEASURES[measure]]
        assert len(samples) == row["jobs"] == 10
        assert row["p50_ms"] == pytest.approx(nearest_rank(samples, 0.5) * 1e3, abs=1e-3)
        assert row["p99_ms"] == pytest.approx(nearest_rank(samples, 0.99) * 1e3, abs=1e-3)
        assert row["p50_to_bare"] == pytest.approx(nearest_rank(samples, 0.5) / nearest_rank(bare, 0.5), abs=0.01)


def test_the_stages_of_the_start_add_up(report: dict[str, Any]) -> None:
    for combination in combinations():
        samples = raw_of(report, *combination)["latency"]
        stages = zip(samples["stored_s"], samples["taken_s"], samples["begun_s"], strict=True)
        assert [sum(stage) for stage in stages] == pytest.approx(samples["start_s"], abs=1e-5)
        assert all(start < result for start, result in zip(samples["start_s"], samples["result_s"], strict=True)), (
            "an engine began after the client had its result"
        )


def test_throughput_rows_follow_from_the_raw_numbers(report: dict[str, Any]) -> None:
    rows = {(row["system"], row["sync"], row["slots"]): row for row in report["queue"]["throughput"]}
    assert set(rows) == {(*combination, slots) for combination in combinations() for slots in (1, 8)}
    jobs = report["queue"]["burst_jobs"]
    for (system, sync, slots), row in rows.items():
        took_s = nearest_rank(raw_of(report, system, sync)["burst_s"][str(slots)], 0.5)
        bare_s = nearest_rank(raw_of(report, "bare", sync)["burst_s"][str(slots)], 0.5)
        assert row["jobs_per_s"] == pytest.approx(jobs / took_s, abs=0.1)
        assert row["to_bare"] == pytest.approx(bare_s / took_s, abs=1e-3)


def test_every_process_of_both_workers_has_a_peak(report: dict[str, Any]) -> None:
    processes = [(row["after"], row["process"]) for row in report["memory"]]
    each = ["supervisor", "engine", "engine"]
    assert processes == [(f"no-op jobs, sync {sync}", process) for sync in ("always", "off") for process in each]
    assert all(row["peak_rss_mib"] > 1 for row in report["memory"])


def test_the_report_says_what_it_was_made_on_and_names_no_machine(
    written: tuple[str, str], report: dict[str, Any]
) -> None:
    assert report["machine"]["cores"] >= 1
    assert {"python", "nats-server", "nats-py", "torch", "diffusers"} <= set(report["versions"])
    for text in written:
        assert "python -m benchmarks --only queue --quick" in text
        for secret in (socket.gethostname(), str(ROOT), str(Path.home())):
            assert secret not in text.split(), f"the report names {secret}"
            assert "/" not in secret or f"{secret}/" not in text


def test_the_markdown_has_all_rows(written: tuple[str, str], report: dict[str, Any]) -> None:
    markdown = written[0]
    lines = [line for line in markdown.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    rows = len(report["queue"]["latency"]) + len(report["queue"]["throughput"]) + len(report["memory"])
    assert len(lines) == rows + 3, "a heading for each of three tables"
    assert "no figures to quote" in markdown
