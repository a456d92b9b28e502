"""Lines about jobs are kept in a bounded place; others are none of its business."""

import io
import json

import pytest
import structlog

from headrace_telemetry.job_lines import LONGEST_TEXT, JobLines
from headrace_telemetry.logs import configure_logs

ABOUT = {"job_id": "j", "tenant": "t", "model": "m"}


@pytest.fixture(autouse=True)
def _as_before() -> object:
    yield
    structlog.reset_defaults()


def test_a_line_about_a_job_is_kept_whole_and_written_as_ever() -> None:
    lines, file = JobLines(), io.StringIO()
    configure_logs("info", file, component="worker", lines=lines)
    structlog.get_logger().bind(**ABOUT, worker="w", attempt=2).warning("attempt ended", delay_s=0.5, of=[1, 2])
    [kept] = lines.take()
    assert (kept.tenant, kept.model, kept.job_id) == ("t", "m", "j")
    line = kept.line
    assert (line.event, line.level, line.worker, line.attempt) == ("attempt ended", "warning", "w", 2)
    assert line.fields == {"delay_s": 0.5, "of": "[1, 2]"}
    assert json.loads(file.getvalue())["component"] == "worker"
    assert lines.take() == []


@pytest.mark.parametrize("left_out", ["job_id", "tenant", "model"])
def test_a_line_that_is_about_no_job_is_not_kept(left_out: str) -> None:
    lines = JobLines()
    configure_logs("info", io.StringIO(), lines=lines)
    structlog.get_logger().info("x", **{key: value for key, value in ABOUT.items() if key != left_out})
    assert lines.take() == []


def test_debug_lines_stay_here() -> None:
    lines = JobLines()
    configure_logs("debug", io.StringIO(), lines=lines)
    structlog.get_logger().debug("x", **ABOUT)
    structlog.get_logger().info("y", **ABOUT)
    assert [kept.line.event for kept in lines.take()] == ["y"]


def test_what_does_not_fit_is_dropped_and_counted_once() -> None:
    lines = JobLines(most_lines=3)
    configure_logs("info", io.StringIO(), lines=lines)
    for number in range(5):
        structlog.get_logger().info(str(number), **ABOUT)
    assert lines.take_dropped() == 2
    assert lines.take_dropped() == 0
    assert [kept.line.event for kept in lines.take()] == ["0", "1", "2"]


def test_long_text_is_cut() -> None:
    lines = JobLines()
    configure_logs("info", io.StringIO(), lines=lines)
    structlog.get_logger().info("x", **ABOUT, error="e" * 10_000)
    [kept] = lines.take()
    assert kept.line.fields["error"] == "e" * LONGEST_TEXT


def test_nothing_is_kept_while_nobody_sends() -> None:
    lines = JobLines()
    configure_logs("info", io.StringIO(), lines=lines)
    structlog.get_logger().info("x", **ABOUT)
    lines.close()
    structlog.get_logger().info("x", **ABOUT)
    assert lines.take() == []
    lines.open()
    structlog.get_logger().info("y", **ABOUT)
    assert [kept.line.event for kept in lines.take()] == ["y"]
