"""`headrace up` from the outside: it starts everything, and whatever ends it, nothing is left and nothing is lost."""

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from lives import command_of
from processes import READY, Up, alive, until

from headrace_contracts.codec import Encoding
from headrace_contracts.event import Started
from headrace_contracts.job import JobBody
from headrace_contracts.names import DEFAULT_TENANT, Lane
from headrace_contracts.result import Result, Status
from headrace_contracts.settings import NatsSettings
from headrace_contracts.tasks.synthetic import SyntheticInput
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.events import follow_events
from headrace_storage.jobs import submit_job
from headrace_storage.lanes import lanes_of_model
from headrace_storage.results import wait_result


def model_file(folder: Path, name: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\ntask = "synthetic"\nengine = "synthetic"\n')
    return str(path)


def workers(up: Up) -> list[psutil.Process]:
    """The worker processes of a system that run."""
    return [p for p in alive(up.descendants()) if {"headrace_workers", "--id"} <= set(command_of(p))]


@asynccontextmanager
async def broker(up: Up) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=up.url)) as connection:
        yield connection


async def submit(connection: Connection, model: str, job: SyntheticInput) -> str:
    body = JobBody(input=msgspec.Raw(msgspec.json.encode(job)))
    return (await submit_job(connection, DEFAULT_TENANT, model, Lane.NORMAL, body, Encoding.JSON)).job_id


async def result(connection: Connection, model: str, job_id: str) -> Result:
    async with asyncio.timeout(60):
        return await wait_result(connection, DEFAULT_TENANT, model, job_id)


async def until_running(connection: Connection, model: str, job_id: str) -> None:
    async with asyncio.timeout(60), aclosing(follow_events(connection, DEFAULT_TENANT, model, job_id)) as events:
        async for event in events:
            if isinstance(event, Started):
                return


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_job_runs_and_a_signal_stops_every_process(tmp_path: Path, how: signal.Signals) -> None:
    async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            done = await result(connection, "a", await submit(connection, "a", SyntheticInput(echo="through")))
            assert done.status is Status.SUCCEEDED, done.error
        children = up.descendants()
        assert {"nats-server"} < {child.name() for child in children}
        assert len(children) >= 3, "nats-server, worker, engine"
        # A terminal's Ctrl-C goes to our whole group: it must reach only us, so that we can stop the others in order.
        assert up.process.pid not in {os.getpgid(child.pid) for child in children}
        assert await up.stop(how) == 0
        assert alive(children) == []
    assert "Stopped." in up.text


async def test_a_kill_leaves_no_process(tmp_path: Path) -> None:
    async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            job_id = await submit(connection, "a", SyntheticInput(step_s=60.0))
            await until_running(connection, "a", job_id)
        children = up.descendants()
        assert len(children) >= 3
        up.process.kill()
        await until(lambda: not alive(children), deadline_s=15)


async def test_what_was_queued_before_a_kill_runs_after_the_next_start(tmp_path: Path) -> None:
    a, b, folder = model_file(tmp_path, "a"), model_file(tmp_path, "b"), str(tmp_path / "d")
    async with Up("--model", a, "--model", b, "--dir", folder, "--port", "-1") as up:
        await up.says(READY)
        assert await up.stop() == 0
    async with Up("--model", a, "--dir", folder, "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            waiting = [await submit(connection, "b", SyntheticInput(echo=str(n))) for n in range(3)]
        up.process.kill()
    async with Up("--model", b, "--dir", folder, "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            for job_id in waiting:
                assert (await result(connection, "b", job_id)).status is Status.SUCCEEDED


async def test_a_server_that_outlives_a_kill_keeps_the_folder_until_its_end(tmp_path: Path) -> None:
    arguments = ("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1")
    async with Up(*arguments) as up:
        await up.says(READY)
        server = next(p for p in up.descendants() if p.name() == "nats-server")
        server.suspend()  # so that it cannot end by itself
        up.process.kill()
        await up.process.wait()
    try:
        with (tmp_path / "d" / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        server.kill()
    async with Up(*arguments) as up:
        await up.says(READY)


async def test_a_stop_hands_the_queue_to_the_next_start(tmp_path: Path) -> None:
    arguments = ("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1")
    async with Up(*arguments) as up:
        await up.says(READY)
        async with broker(up) as connection:
            ids = [await submit(connection, "a", SyntheticInput(steps=20, step_s=0.1)) for _ in range(3)]
            await until_running(connection, "a", ids[0])
        assert await up.stop() == 0
    async with Up(*arguments) as up:
        await up.says(READY)
        async with broker(up) as connection:
            ends = [await result(connection, "a", job_id) for job_id in ids]
            assert {end.status for end in ends} == {Status.SUCCEEDED}
            assert ends[0].worker != ends[2].worker, "the last job must have waited for the second start"
            await until_empty(connection, "a")


async def until_empty(connection: Connection, model: str) -> None:
    async with asyncio.timeout(30):
        while any(lane.waiting or lane.held for lane in await lanes_of_model(connection, model)):
            await asyncio.sleep(0.05)


async def test_a_second_ctrl_c_does_not_wait_for_running_jobs(tmp_path: Path) -> None:
    async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            await until_running(connection, "a", await submit(connection, "a", SyntheticInput(step_s=60.0)))
        children = up.descendants()
        up.process.send_signal(signal.SIGINT)
        await up.says("Stopping")
        async with asyncio.timeout(15):  # the worker alone would give the job 25 s
            assert await up.stop() == 0
        assert alive(children) == []


async def test_ctrl_c_before_anything_is_ready(tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text('name = "slow"\ntask = "synthetic"\nengine = "synthetic"\noptions = { load_s = 60 }\n')
    async with Up("--model", str(slow), "--dir", str(tmp_path / "d"), "--port", "-1", "--no-scaler") as up:
        await up.says("loading")
        children = up.descendants()
        assert children
        assert await up.stop() == 0
        assert alive(children) == []


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    arguments = ("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1", "--no-scaler")
    async with Up(*arguments) as up:
        await up.says(READY)
        worker = next(p for p in up.descendants() if "headrace_workers" in p.cmdline())
        worker.kill()
        await up.says("worker ended (SIGKILL); starting it again")
        async with broker(up) as connection:
            assert (await result(connection, "a", await submit(connection, "a", SyntheticInput()))).worker


async def test_models_start_at_zero_and_a_killed_worker_is_replaced_while_there_is_work(tmp_path: Path) -> None:
    async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1") as up:
        await up.says(READY)
        assert workers(up) == []
        async with broker(up) as connection:
            job_id = await submit(connection, "a", SyntheticInput(steps=20, step_s=0.1))
            await until_running(connection, "a", job_id)
            [worker] = workers(up)
            worker.kill()
            other = await submit(connection, "a", SyntheticInput(echo="to the next one"))
            assert (await result(connection, "a", other)).status is Status.SUCCEEDED
            assert worker.pid not in {other.pid for other in workers(up)}


async def test_a_killed_broker_is_replaced_on_the_same_port(tmp_path: Path) -> None:
    async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1") as up:
        await up.says(READY)
        async with broker(up) as connection:
            await result(connection, "a", await submit(connection, "a", SyntheticInput()))
        next(p for p in up.descendants() if p.name() == "nats-server").kill()
        await up.says("nats-server ended (SIGKILL); starting it again")
        await until(lambda: any(p.name() == "nats-server" for p in up.descendants()))
        async with broker(up) as connection:
            job_id = await submit(connection, "a", SyntheticInput(echo="again"))
            assert (await result(connection, "a", job_id)).status is Status.SUCCEEDED


async def test_two_on_one_folder_the_second_says_so(tmp_path: Path) -> None:
    arguments = ("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", "-1")
    async with Up(*arguments) as first:
        await first.says(READY)
        async with Up(*arguments) as second:
            assert await second.ended() == 1
            assert f"is in use by another `headrace up` (process {first.process.pid})" in second.text
        assert "nats-server" in {process.name() for process in alive(first.descendants())}
        assert await first.stop() == 0


async def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        async with Up("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"), "--port", port) as up:
            assert await up.ended() == 1
            assert up.text.startswith(f"Error: port {port} is taken")
            assert up.text.count("\n") == 1


async def test_an_existing_server_is_used_and_left_running(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "nats") as server:
        arguments = ("--model", model_file(tmp_path, "a"), "--dir", str(tmp_path / "d"))
        async with Up(*arguments, nats_url=server.url) as up:
            await up.says(READY)
            assert up.url == server.url
            assert "nats-server" not in {child.name() for child in up.descendants()}
            assert await up.stop() == 0
        assert server.pid is not None
        assert psutil.pid_exists(server.pid)


def test_what_it_prints_has_no_control_characters(tmp_path: Path) -> None:
    from headrace_contracts.heartbeat import EngineState, EngineStatus
    from headrace_local.up import describe

    bar = "Converting:  0%|   | 0/2\rConverting: 100%|██| 2/2\x1b[0m\n"
    line = describe(EngineStatus("m", EngineState.LOADING, 1, (), 0, detail=bar))
    assert line.isprintable()
    assert "100%" in line
    assert " 0%" not in line
    assert os.linesep not in line
