"""`headrace top`: what each column says, at every width, live, and through an outage."""

import asyncio
import io
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
from rich.console import Console

from headrace import Client
from headrace.cli.top_screen import drawn
from headrace.cli.top_text import HEADINGS, header_lines, table_rows
from headrace.durations import compact
from headrace.top import GpuUse, Looker, ModelRow, View
from headrace.top.gpus import gpu_use
from headrace.top.speed import Speed, Speeds, percentile
from headrace.top.view import Firing, Seen, rows_of, slots_of
from headrace_contracts.alert import Alert, AlertName, AlertState, ScalingDecision
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerPhase, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Lane
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_storage.alerts import publish_alert
from headrace_storage.lanes import LaneState
from headrace_storage.leadership import Leadership
from headrace_storage.lookup import find_job
from headrace_storage.newest_results import MOST_AT_A_LOOK, End, Ends
from headrace_storage.registry import add_model
from headrace_storage.results import commit_result
from headrace_storage.topology import ensure_topology
from headrace_storage.workers import put_status, remove_status

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def alert(model: str, name: AlertName, state: AlertState = AlertState.FIRING, since: datetime = NOW) -> Alert:
    return Alert(name, state, model, NOW, since, "120 jobs wait", 120, 2, 75.0, 2, 2)


def decision(model: str, target: int, blocked: str = "", reason: str = "5 jobs wait") -> ScalingDecision:
    return ScalingDecision(model, NOW, target, 2, 1, reason, blocked)


def worker(
    name: str,
    model: str,
    state: EngineState = EngineState.READY,
    running: int = 0,
    held: int = 0,
    slot: str = "",
    **more: object,
) -> WorkerStatus:
    engine = EngineStatus(model, state, 1, tuple(f"j{n}" for n in range(running)), held)
    return WorkerStatus(name, str(more.get("host", "here")), 1, NOW, NOW, bool(more.get("draining")), (engine,), slot)


# Speed.


def ends(*took: tuple[float, float], model: str = "draw", status: Status = Status.SUCCEEDED, skipped: int = 0) -> Ends:
    """Ends of jobs as (seconds ago, seconds it took)."""
    return Ends(tuple(End(model, status, took_s, ago(seconds)) for seconds, took_s in took), skipped, 1)


def test_the_rate_is_of_the_last_minute_and_latencies_of_ten() -> None:
    speeds = Speeds()
    speeds.take(ends((700, 99.0), (300, 5.0), (59, 1.0), (30, 2.0), (1, 3.0)), NOW)
    assert speeds.by_model(NOW) == {"draw": Speed(3 / 60, 2.0, 5.0)}
    later = NOW + 11 * MINUTE
    speeds.take(ends(), later)
    assert speeds.by_model(later) == {}


def test_ends_that_were_not_read_are_counted_by_those_that_were() -> None:
    speeds = Speeds()
    speeds.take(ends(), NOW)
    looked = Ends((*ends((1, 1.0), (1, 1.0), (1, 1.0)).ends, *ends((1, 4.0), model="hear").ends), 36, 1)
    speeds.take(looked, NOW)
    assert {model: speed.jobs_s for model, speed in speeds.by_model(NOW).items()} == {"draw": 30 / 60, "hear": 10 / 60}


def test_a_first_look_at_its_limit_knows_only_the_time_that_it_covers() -> None:
    speeds = Speeds()
    speeds.take(ends(*[(5.0, 1.0)] * MOST_AT_A_LOOK), NOW)
    assert speeds.by_model(NOW)["draw"].jobs_s == MOST_AT_A_LOOK / 5


def test_only_jobs_that_succeeded_say_how_long_jobs_take() -> None:
    speeds = Speeds()
    speeds.take(ends((3, 0.1), status=Status.CANCELED), NOW)
    assert speeds.by_model(NOW) == {"draw": Speed(1 / 60, None, None)}


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([1.0, 2.0], 0.5, 1.0), ([float(n) for n in range(1, 101)], 0.99, 99.0)],
)
def test_percentiles_are_values_that_occurred(values: list[float], share: float, value: float | None) -> None:
    assert percentile(values, share) == value


# A row of each model.


def seen(**known: object) -> Seen:
    usual: dict[str, object] = {
        "models": frozenset({"draw"}),
        "lanes": {},
        "oldest": {},
        "workers": [],
        "decisions": {},
        "firing": {},
        "speeds": {},
        "gpus": (),
        "host": "here",
    }
    return Seen(**{**usual, **known})  # type: ignore[arg-type]


def lanes(model: str, *counts: tuple[int, int]) -> tuple[LaneState, ...]:
    return tuple(LaneState(model, lane, w, h, 0, 30.0, 100, None) for lane, (w, h) in zip(Lane, counts, strict=False))


def test_what_is_not_known_is_not_zero() -> None:
    [row] = rows_of(seen(), NOW)
    assert (row.oldest_wait_s, row.target, row.speed, row.gpus) == (None, None, Speed(), ())
    assert table_rows(view(row))[0] == ("draw", "0", "0", "-", "0", "-", "-", "-", "-", "-", "-", "-")


def test_a_row_adds_up_lanes_and_workers() -> None:
    workers = [
        worker("a", "draw", EngineState.LOADING),
        worker("b", "draw"),
        worker("c", "draw", running=1),
        worker("d", "draw", held=1, slot="gpu:1"),
        worker("e", "draw", EngineState.UNHEALTHY, slot="gpu:0", host="elsewhere"),
        worker("f", "draw", draining=True),
        worker("g", "hear"),
    ]
    [row] = rows_of(
        seen(
            lanes={"draw": lanes("draw", (1, 2), (3, 4))},
            oldest={"draw": ago(75)},
            workers=workers,
            decisions={"draw": decision("draw", 4)},
            gpus=(GpuUse(0, 0.1, 0, 1), GpuUse(1, 0.5, 0, 1)),
        ),
        NOW,
    )
    assert (row.waiting, row.held, row.oldest_wait_s, row.target) == (4, 6, 75.0, 4)
    assert row.workers == {"starting": 1, "idle": 1, "busy": 2, "draining": 1, "unhealthy": 1}
    assert row.gpus == (1,)  # the other GPU 0 is of another machine
    assert slots_of(workers) == {"gpu:0": 1, "gpu:1": 1}


def test_jobs_for_a_model_that_was_removed_are_shown() -> None:
    rows = rows_of(seen(lanes={"ghost": lanes("ghost", (1, 0)), "gone": lanes("gone", (0, 0))}), NOW)
    assert [(row.name, row.registered) for row in rows] == [("draw", True), ("ghost", False)]
    assert "not in the registry" in table_rows(view(rows[1]))[0][HEADINGS.index("DECISION")]


def test_alerts_fire_until_they_are_resolved() -> None:
    firing = Firing()
    firing.take([alert("draw", AlertName.BACKLOG, since=ago(1)), alert("draw", AlertName.OLDEST_AGE, since=ago(9))])
    firing.take([alert("hear", AlertName.BACKLOG), alert("hear", AlertName.BACKLOG, AlertState.RESOLVED)])
    assert {model: [a.alert for a in alerts] for model, alerts in firing.by_model().items()} == {
        "draw": [AlertName.OLDEST_AGE, AlertName.BACKLOG]
    }
    firing.take([alert("draw", AlertName.OLDEST_AGE, AlertState.RESOLVED)])
    assert [a.alert for a in firing.by_model()["draw"]] == [AlertName.BACKLOG]


# On the screen.


def view(*rows: ModelRow, **changes: object) -> View:
    usual = View(NOW, "nats://127.0.0.1:4222", "2.15.1", "host-1-4711", {"cpu": 2, "gpu:0": 12}, rows)
    return msgspec.structs.replace(usual, **changes)


FULL = ModelRow(
    name="tiny-shapes",
    waiting=123456,
    held=1234,
    oldest_wait_s=75.0,
    workers={WorkerPhase.STARTING: 1, WorkerPhase.IDLE: 1, WorkerPhase.BUSY: 12},
    target=14,
    speed=Speed(123.4, 1.234, 245.6),
    gpus=(0,),
    decision=decision("tiny-shapes", 4, "no_slot", "5 jobs wait for 2 workers, and each takes 6 s " * 3),
    alerts=(alert("tiny-shapes", AlertName.BACKLOG),),
    registered=True,
)
LONG = msgspec.structs.replace(FULL, name="a-model-with-a-name-of-64-characters-" + 27 * "x", workers={}, alerts=())
GPU = GpuUse(0, 0.43, 12 << 30, 80 << 30)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    lines = screen(view(FULL, LONG, gpus=(GPU,), outage="the connection is lost", outage_since=ago(3)), width)
    assert all(len(line) <= width for line in lines)
    [row] = [line for line in lines if line.startswith("tiny-shapes ") and "123456" in line]
    busy = ["1s", "1i", "12b"] if width < 110 else ["1", "starting,", "1", "idle,", "12", "busy"]
    assert row.split() == ["tiny-shapes", "123456", "1234", "1m15s", *busy, "14", "123", "1.2s", "4m06s", "0:43%"]
    text = " ".join(" ".join(lines).split())
    assert "scaler host-1-4711 slots: cpu 2, gpu:0 12" in text
    assert "gpu:0 43% 12.0/80.0 GiB" in text
    assert "NO ANSWER from the broker since 11:59:57 UTC: the connection is lost. What follows is from 12:00:00" in text
    assert "ALERT backlog since 12:00:00 UTC: 120 jobs wait" in text
    assert "[no_slot]" in text


def test_columns_of_gpus_are_absent_where_there_is_none() -> None:
    row = msgspec.structs.replace(FULL, gpus=())
    assert not any("GPU" in line or "gpu:0 43%" in line for line in screen(view(row), 120))


def test_an_empty_registry_and_no_scaler_are_said() -> None:
    text = " ".join(screen(view(leader=None, slots={}), 100))
    assert "no scaler" in text
    assert "the registry is empty" in text


def test_text_has_every_column() -> None:
    [row] = table_rows(view(FULL))
    assert len(row) == len(HEADINGS)
    assert row[-1] == "backlog since 12:00:00 UTC: 120 jobs wait"
    assert list(header_lines(view())) == [
        "12:00:00 UTC   nats://127.0.0.1:4222 (2.15.1)   scaler host-1-4711   slots: cpu 2, gpu:0 12"
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.34, "340ms"),
        (12.34, "12.3s"),
        (59.97, "1m00s"),
        (245.6, "4m06s"),
        (3599.6, "1h00m"),
        (7500.0, "2h05m"),
        (86_399.0, "1d00h"),
        (90_000.0, "1d01h"),
    ],
)
def test_durations_in_a_column(seconds: float, said: str) -> None:
    assert compact(seconds) == said


def screen(shown: View, width: int) -> list[str]:
    into = io.StringIO()
    Console(width=width, file=into).print(drawn(shown, width))
    return [line.rstrip() for line in into.getvalue().splitlines()]


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
