"""Metrics over HTTP: where they are served, and what a port that cannot be had says."""

import asyncio
import contextlib
import http.client
import socket

import pytest
from prometheus_client import CollectorRegistry, Gauge
from scraping import metrics_page

from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import MetricsSettings
from headrace_telemetry.metrics_endpoint import serving_metrics


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("answer", "Of everything.", registry=made).set(42)
    return made


def answered(address: str, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, type and body."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, str(answer.headers["Content-Type"]), answer.read().decode()


async def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SettingsError) as raised:
            async with serving_metrics(registry(), MetricsSettings(port)):
                pass

    assert str(raised.value) == (
        f"`metrics.port`: 127.0.0.1:{port} cannot be opened (Address already in use): "
        "choose a port that no other program has, -1 for any that is free, or 0 for no metrics"
    )


async def test_the_port_is_free_again_at_once_and_was_open_on_loopback_only() -> None:
    async with serving_metrics(registry(), MetricsSettings(-1)) as address:
        assert "answer 42.0" in await asyncio.to_thread(metrics_page, address)
        port = int(address.rpartition(":")[2])
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(metrics_page, address)
    async with serving_metrics(registry(), MetricsSettings(port)) as again:
        assert again == address


async def test_without_a_port_nothing_is_served() -> None:
    async with serving_metrics(registry(), MetricsSettings()) as address:
        assert address == ""


async def test_on_every_address_others_reach_it_by_the_name_of_the_machine() -> None:
    async with serving_metrics(registry(), MetricsSettings(-1, "0.0.0.0")) as address:
        name, _, port = address.rpartition(":")
        assert name == socket.gethostname()
        assert "answer 42.0" in await asyncio.to_thread(metrics_page, f"127.0.0.1:{port}")


async def test_a_page_is_served_beside_the_metrics_once_there_is_one() -> None:
    known: list[bytes] = []
    pages = {"/targets": lambda: known[-1] if known else None}
    async with serving_metrics(registry(), MetricsSettings(-1), pages) as address:
        before = await asyncio.to_thread(answered, address, "/targets")
        known.append(b"[]")
        after = await asyncio.to_thread(answered, address, "/targets")

    assert before == (503, "text/plain; charset=utf-8", "not known yet\n")
    assert after == (200, "application/json", "[]")


@pytest.mark.parametrize("path", ["/", "/targets", "/metrics/", "/metrics2"])
async def test_what_is_not_there_is_not_found(path: str) -> None:
    async with serving_metrics(registry(), MetricsSettings(-1)) as address:
        assert (await asyncio.to_thread(answered, address, path))[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/targets"])
async def test_everything_is_for_reading(path: str) -> None:
    async with serving_metrics(registry(), MetricsSettings(-1), {"/targets": lambda: b"[]"}) as address:
        for method in ("POST", "PUT", "DELETE"):
            assert (await asyncio.to_thread(answered, address, path, method))[0] == 405


async def test_a_reader_that_says_nothing_keeps_nobody_waiting() -> None:
    async with serving_metrics(registry(), MetricsSettings(-1)) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))):
            assert "answer 42.0" in await asyncio.to_thread(metrics_page, address)
