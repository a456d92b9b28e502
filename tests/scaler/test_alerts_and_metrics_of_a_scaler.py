"""A scaler that runs tells its alerts and shows its metrics: a real broker, a real worker."""

import asyncio
import socket
import urllib.error
import urllib.request

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scaling_stage import QUICK, Stage
from scraping import metrics_page

from headrace_contracts.alert import Alert, AlertName, AlertState
from headrace_contracts.errors import SettingsError
from headrace_contracts.model import Resources
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_contracts.settings import MetricsSettings, ScalerSettings
from headrace_storage.alert_history import alerts_since
from headrace_storage.registry import remove_model
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import list_workers

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


NO_METRICS = MetricsSettings()


def with_settings(stage: Stage, metrics: MetricsSettings = NO_METRICS, **changes: object) -> None:
    scaler: ScalerSettings = msgspec.structs.replace(stage.settings.scaler, **changes)
    stage.settings = msgspec.structs.replace(stage.settings, scaler=scaler, metrics=metrics)


async def told_of(stage: Stage, model: str, count: int) -> list[Alert]:
    """The alerts of a model, once there are so many."""
    async with asyncio.timeout(30):
        while True:
            told = [one for one in (await alerts_since(stage.connection)).alerts if one.model == model]
            if len(told) >= count:
                return told
            await asyncio.sleep(0.05)


async def test_jobs_that_fit_nowhere_are_alerts_until_the_model_is_removed(stage: Stage) -> None:
    with_settings(stage, alert_after_s=0.2)
    await stage.add_model("huge", QUICK, resources=Resources(device="cuda", memory_bytes=80 << 30))
    async with stage.scaler():
        await stage.submit("huge", echo="never")
        began = await told_of(stage, "huge", 2)
    # Another scaler takes over, and the reason goes.
    await remove_model(stage.connection, "huge")
    async with stage.scaler():
        everything = await told_of(stage, "huge", 4)

    assert (len(began), len(everything)) == (2, 4)
    assert {(one.alert, one.state) for one in began} == {
        (AlertName.NO_WORKER, AlertState.FIRING),
        (AlertName.SATURATION, AlertState.FIRING),
    }
    assert {(one.alert, one.state) for one in everything[2:]} == {
        (AlertName.NO_WORKER, AlertState.RESOLVED),
        (AlertName.SATURATION, AlertState.RESOLVED),
    }
    assert everything[-1].firing == {}


async def test_the_metrics_of_a_scaler_are_those_of_what_it_does(stage: Stage) -> None:
    port = free_port()
    with_settings(stage, MetricsSettings(port), cpu_price_per_s=1.0)
    await stage.add_model("m")
    async with stage.scaler():
        job = await stage.submit("m", echo="hello")
        assert (await stage.result("m", job)).status is Status.SUCCEEDED
        async with asyncio.timeout(30):
            while (found := await asyncio.to_thread(read, port)).get("headrace_worker_jobs_total", 0.0) < 1:
                await asyncio.sleep(0.05)

    assert found["headrace_scaler_leader"] == 1
    assert found["headrace_worker_starts_total"] == 1
    assert found["headrace_cold_start_seconds_count"] == 1
    assert found["headrace_worker_cost_total"] > 0
    assert found["headrace_scaler_loop_seconds_count"] > 0
    assert found["headrace_slot_cores"] == 4
    assert found["headrace_broker_connected"] == 1
    assert found["headrace_broker_healthy"] == 1
    assert found["headrace_dead_letters"] == 0


async def test_workers_are_found_by_the_scaler_and_tell_what_they_did(stage: Stage) -> None:
    port = free_port()
    with_settings(stage, MetricsSettings(port))
    stage.environment["HEADRACE_METRICS_PORT"] = "-1"
    await stage.add_model("m", msgspec.structs.replace(QUICK, idle_timeout_s=600.0))
    async with stage.scaler():
        job = await stage.submit("m", echo="hello")
        assert (await stage.result("m", job)).status is Status.SUCCEEDED
        async with asyncio.timeout(30):
            while not (groups := await asyncio.to_thread(targets, port)):
                await asyncio.sleep(0.05)
        [group] = groups
        [status] = await list_workers(stage.connection)
        assert group == {"targets": [status.metrics], "labels": {"worker": status.id}}
        found = await asyncio.to_thread(read_at, status.metrics)

    assert found["headrace_job_total_seconds_count"] == 1
    assert found["headrace_broker_connected"] == 1


def targets(port: int) -> list[object]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/targets", timeout=10) as answer:
            return list(msgspec.json.decode(answer.read()))
    except urllib.error.HTTPError:  # 503, before the first look
        return []


async def test_alerts_and_numbers_go_on_while_the_broker_takes_nothing(stage: Stage) -> None:
    """A decision that cannot be told must not keep an alert from beginning."""
    port = free_port()
    with_settings(stage, MetricsSettings(port), alert_after_s=0.2)
    await stage.add_model("huge", QUICK, resources=Resources(device="cuda", memory_bytes=80 << 30))
    await stage.connection.js.delete_stream(Stream.ALERTS)
    try:
        async with stage.scaler():
            await stage.submit("huge", echo="never")
            async with asyncio.timeout(30):
                while (await asyncio.to_thread(read, port)).get("headrace_alerts_untold", 0.0) < 2:
                    await asyncio.sleep(0.05)
            await ensure_topology(stage.connection)
            told = await told_of(stage, "huge", 2)
    finally:
        await ensure_topology(stage.connection)

    assert {(one.alert, one.state) for one in told} == {
        (AlertName.NO_WORKER, AlertState.FIRING),
        (AlertName.SATURATION, AlertState.FIRING),
    }


async def test_a_port_that_is_taken_ends_a_scaler_with_one_sentence(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with_settings(stage, MetricsSettings(taken.getsockname()[1]))

        with pytest.raises(SettingsError, match=r"`metrics.port`"):
            async with stage.scaler():
                pass


def read(port: int) -> dict[str, float]:
    """Samples of the one model there is; those of one name are added up."""
    return read_at(f"127.0.0.1:{port}")


def read_at(address: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics_page(address)):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
