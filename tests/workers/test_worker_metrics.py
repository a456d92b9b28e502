"""What a real worker shows Prometheus is what became of its jobs, at the address that its heartbeat names."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rig import DEADLINE_S, Rig
from scraping import metrics_page

from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.names import Lane
from headrace_contracts.result import Status

pytestmark = pytest.mark.slow

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(address: str) -> Samples:
    """Samples by name and labels."""
    text = await asyncio.to_thread(metrics_page, address)
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset((key, str(one)) for key, one in labels.items())]


async def served_at(rig: Rig) -> str:
    """Start a worker that serves metrics; where."""
    rig.environment["HEADRACE_METRICS_PORT"] = "-1"
    worker = await rig.start_worker()
    status = await rig.until(lambda status: status.pid == worker.pid)
    assert status.metrics
    return status.metrics


async def until_counted(address: str, rig: Rig, status: Status, code: str, lane: Lane = Lane.NORMAL) -> Samples:
    """Wait until a result is counted: its commit can be read a moment before the worker knows of it."""
    async with asyncio.timeout(DEADLINE_S):
        labels = {"model": rig.model, "lane": lane, "status": status, "code": code}
        while value(found := await scraped(address), "headrace_results_total", **labels) < 1:
            await asyncio.sleep(0.02)
    return found


async def test_a_jobs_numbers_are_those_of_its_result(rig: Rig) -> None:
    await rig.add_model()
    address = await served_at(rig)
    before = await scraped(address)
    normal = {"model": rig.model, "lane": Lane.NORMAL}
    result = await rig.run(steps=2, step_s=0.05, output_bytes=1000)
    found = await until_counted(address, rig, Status.SUCCEEDED, "")

    # There before the first job, or the first would be no change.
    assert value(before, "headrace_job_total_seconds_count", **normal) == 0
    assert value(found, "headrace_job_total_seconds_count", **normal) == 1
    assert value(found, "headrace_job_run_seconds_sum", **normal) == pytest.approx(result.timings.run_s)
    assert value(found, "headrace_job_store_seconds_sum", **normal) == pytest.approx(result.timings.store_s)
    waited_s = result.timings.queued_s + result.timings.load_s
    assert value(found, "headrace_job_queue_seconds_sum", **normal) == pytest.approx(waited_s)
    until_done_s = (result.completed_at - result.created_at).total_seconds()
    assert value(found, "headrace_job_total_seconds_sum", **normal) >= until_done_s
    assert value(found, "headrace_job_total_seconds_count", model=rig.model, lane=Lane.HIGH) == 0
    assert value(found, "headrace_broker_connected") == 1
    assert value(found, "headrace_engine_state", model=rig.model, state=EngineState.READY) == 1
    assert value(found, "headrace_engine_state", model=rig.model, state=EngineState.RECOVERING) == 0
    assert value(found, "process_resident_memory_bytes") > 0


async def test_a_failed_a_retried_and_a_canceled_job_are_counted(rig: Rig) -> None:
    await rig.add_model()
    address = await served_at(rig)
    failed = await rig.run(behaviour="error")
    crashed = await rig.run(behaviour="crash_once")
    long = await rig.submit(steps=100, step_s=0.2)
    await rig.until_running(long)
    await rig.cancel(long)
    found = await until_counted(address, rig, Status.CANCELED, ErrorCode.CANCELED)

    assert failed.error is not None
    assert crashed.status is Status.SUCCEEDED
    labels = {"model": rig.model, "lane": Lane.NORMAL}
    code = failed.error.code
    assert value(found, "headrace_results_total", **labels, status=Status.FAILED, code=code) == 1
    assert value(found, "headrace_results_total", **labels, status=Status.SUCCEEDED, code="") == 1
    ended = sum(count for (name, _), count in found.items() if name == "headrace_results_total")
    assert ended == 3
    assert value(found, "headrace_retries_total", model=rig.model, code=ErrorCode.ENGINE_CRASHED) >= 1
    # A canceled job's result is another's: its time is no measure of us.
    assert value(found, "headrace_job_total_seconds_count", **labels) == 2


async def test_a_message_that_is_no_job_is_counted_as_failed(rig: Rig) -> None:
    await rig.add_model()
    address = await served_at(rig)
    await rig.publish(b"{", lane="low")
    await until_counted(address, rig, Status.FAILED, ErrorCode.UNDECODABLE, Lane.LOW)


async def test_without_a_port_a_worker_names_no_address(rig: Rig) -> None:
    await rig.add_model()
    rig.environment.pop("HEADRACE_METRICS_PORT", None)
    worker = await rig.start_worker()

    assert (await rig.until(lambda status: status.pid == worker.pid)).metrics == ""
