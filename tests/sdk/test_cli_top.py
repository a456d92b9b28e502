"""`headrace top` live: on a broker, on a terminal, through an outage, and with GPUs."""

import asyncio
import json
import os
import pty
import signal
import socket
import struct
import sys
import termios
import types
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from command_line import Headrace
from top_cases import alert, decision, worker

from headrace import Client
from headrace.cli.top_text import HEADINGS
from headrace.top import GpuUse, Looker, ModelRow, View
from headrace.top.gpus import gpu_use
from headrace_contracts.alert import AlertName, AlertState
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.alerts import publish_alert
from headrace_storage.leadership import Leadership
from headrace_storage.lookup import find_job
from headrace_storage.registry import add_model
from headrace_storage.results import commit_result
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import put_status, remove_status

# GPUs. No test machine need have one, so NVIDIA's library is stood in for.


def nvml(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    class NVMLError(Exception):
        pass

    def shared(handle: int) -> object:
        if handle == 1:
            raise NVMLError
        return types.SimpleNamespace(gpu=43)

    def no_driver() -> None:
        raise NVMLError

    library = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=no_driver if changes.get("no_driver") else lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used=12, total=80),
        nvmlDeviceGetUtilizationRates=shared,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)  # type: ignore[arg-type]


def test_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch)
    assert gpu_use() == (GpuUse(0, 0.43, 12, 80), GpuUse(1, None, 12, 80))


def test_without_a_driver_or_the_library_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, no_driver=True)
    assert gpu_use() == ()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_use() == ()


# On a broker.


@pytest_asyncio.fixture
async def model(client: Client) -> AsyncIterator[str]:
    name = f"m-{uuid.uuid4().hex[:8]}"
    await add_model(client.connection, ModelSpec(name, Task.SYNTHETIC, EngineKind.SYNTHETIC))
    yield name
    await client.connection.js.purge_stream("KV_LEASES")


async def end(client: Client, model: str, took_s: float) -> None:
    created_at = datetime.now(UTC) - timedelta(seconds=took_s)
    result = Result(uuid.uuid4().hex, model, "1", Status.SUCCEEDED, msgspec.Raw(b'"x"'), 1, created_at, created_at)
    await commit_result(client.connection, "acme", result, Encoding.JSON)


def row_of(view: View, model: str) -> ModelRow:
    return next(row for row in view.models if row.name == model)


async def test_looks_see_what_changes(client: Client, model: str) -> None:
    looker = Looker(client.connection, SystemClock())
    first = await looker.look()
    assert (row_of(first, model).waiting, first.leader, first.outage) == (0, None, "")

    older, _ = [await client.submit(model, lane=lane) for lane in ("low", "high")]
    await put_status(client.connection, worker("w-top", model, running=1, slot="cpu", host=socket.gethostname()))
    await publish_alert(client.connection, decision(model, 3))
    await publish_alert(client.connection, alert(model, AlertName.BACKLOG))
    assert await Leadership(client.connection, "scaler", "host-1", SystemClock()).acquire()
    for _ in range(3):
        await end(client, model, 7.0)
    second = await looker.look()

    row = row_of(second, model)
    assert (row.waiting, row.target, row.workers, second.leader) == (2, 3, {"busy": 1}, "host-1")
    job = await find_job(client.connection, "default", older.id)
    assert job is not None
    assert row.oldest_wait_s == pytest.approx((second.at - job.created_at).total_seconds())
    assert [fires.alert for fires in row.alerts] == [AlertName.BACKLOG]
    assert row.speed.jobs_s == pytest.approx(3 / 60)
    assert row.speed.p99_s == pytest.approx(7.0, abs=5.0)

    await publish_alert(client.connection, alert(model, AlertName.BACKLOG, AlertState.RESOLVED))
    await remove_status(client.connection, "w-top")
    third = row_of(await looker.look(), model)
    assert (third.alerts, third.workers, third.speed.jobs_s) == ((), {}, pytest.approx(3 / 60))


async def test_once_prints_text_or_json_and_returns(client: Client, model: str, headrace_command: Headrace) -> None:
    await client.submit(model)
    text = await (await headrace_command("top", "--once")).end()
    assert text.code == 0
    assert "no scaler" in text.out.splitlines()[0]
    rows = [line.split("\t") for line in text.out.splitlines()[1:]]
    assert rows[0] == list(HEADINGS)
    assert next(row for row in rows if row[0] == model)[1:3] == ["1", "0"]
    as_json = json.loads((await (await headrace_command("top", "--once", "--json")).end()).out)
    assert next(row for row in as_json["models"] if row["name"] == model)["waiting"] == 1


async def next_view(stream: asyncio.StreamReader) -> dict[str, object]:
    async with asyncio.timeout(30):
        found: dict[str, object] = json.loads(await stream.readline())
        return found


@pytest.mark.slow
async def test_it_goes_on_through_an_outage_and_ends_at_ctrl_c(tmp_path: Path, headrace_command: Headrace) -> None:
    async with NatsServer(tmp_path / "nats", sync_always=False) as server:
        async with Client(Settings(nats=NatsSettings(url=server.url))) as client:
            await ensure_topology(client.connection)
            await add_model(client.connection, ModelSpec("draw", Task.SYNTHETIC, EngineKind.SYNTHETIC))
            await client.submit("draw")
        running = await headrace_command("top", "--json", "--interval-s", "0.1", NATS_URL=server.url)
        stream = running.process.stdout
        assert stream is not None
        assert (await next_view(stream))["outage"] == ""
        await server.stop()
        async with asyncio.timeout(60):
            while not (shown := await next_view(stream))["outage"]:
                pass
        assert shown["models"][0]["waiting"] == 1  # type: ignore[index]  # what it said before
        assert shown["outage_since"] is not None
        await server.start()
        async with asyncio.timeout(60):
            while (shown := await next_view(stream))["outage"]:
                pass
        assert shown["outage_since"] is None
        running.process.send_signal(signal.SIGINT)
        ended = await running.end()
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.slow
async def test_on_a_terminal_it_is_drawn_in_place_and_the_screen_is_given_back(settings: Settings, model: str) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {**os.environ, "NATS_URL": settings.nats.url, "TERM": "xterm-256color"}
    for variable in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(variable, None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli", "top", "--interval-s", "0.1"),
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    said = b""

    async def until(wanted: bytes) -> None:
        nonlocal said
        async with asyncio.timeout(30):
            while wanted not in said:
                try:
                    said += os.read(ours, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
                except OSError:  # the other end is closed
                    break
        assert wanted in said

    try:
        await until(model.encode())
        process.send_signal(signal.SIGINT)
        await until(b"\x1b[?1049l")  # back to the screen that was there before
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in said
    assert b"Traceback" not in said
