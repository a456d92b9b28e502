"""Workers and engines that were forked from a warm parent keep every promise of those started by exec."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from lives import until_ended
from rig import DEADLINE_S, Rig
from zygotes import forking, is_engine, zygote_of

from headrace_contracts import event as events
from headrace_contracts.errors import ErrorCode
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import Retry, Timeouts
from headrace_contracts.result import Status
from headrace_scaler.launchers.zygote_process import ZygoteProcess

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ZygoteProcess]:
    """One that no test ends."""
    async with zygote_of(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


async def test_a_forked_worker_says_where_its_start_went_and_ends_in_good_order(
    rig: Rig, zygote: ZygoteProcess
) -> None:
    await rig.add_model()
    async with forking(rig, zygote) as workers:
        status = await workers.start()
        assert psutil.Process(status.pid).ppid() == workers.zygote.pid
        assert os.getsid(status.pid) == status.pid, "in a session of its own"
        assert f"--model {rig.model}" in " ".join(psutil.Process(status.pid).cmdline())
        assert (await rig.run()).status is Status.SUCCEEDED
        start = (await workers.ready(status.pid, lambda s: s.engines[0].cold_start.first_result_s > 0)).engines[0]
        assert start.cold_start.forked
        assert start.cold_start.spawn_s > 0
        assert start.cold_start.connect_s > 0
        assert start.cold_start.engine_s > 0
        os.kill(status.pid, signal.SIGTERM)
        await until_ended(status.pid)
        assert await workers.status_line() == "exit status 0\n"
        assert '"worker stopped"' in workers.log.read_text()
    assert re.search(r'"forked":true.*"engine ready"', workers.log.read_text()), "one line in the log"


async def test_a_worker_that_cannot_run_leaves_its_status_and_its_last_words(rig: Rig, zygote: ZygoteProcess) -> None:
    async with forking(rig, zygote) as workers:
        await until_ended(await workers.spawn())
        assert await workers.status_line() == "exit status 1\n"
        assert f"error: unknown model '{rig.model}'" in workers.log.read_text()
        killed = await workers.spawn("--no-such-option")
        await until_ended(killed)
        assert "No such option" in workers.log.read_text()


async def test_the_end_of_a_forked_engine_is_known_as_that_of_any_other(rig: Rig, zygote: ZygoteProcess) -> None:
    await rig.add_model(retry=Retry(max_attempts=1))
    async with forking(rig, zygote) as workers:
        await workers.start()
        killed = await rig.submit(steps=100, step_s=0.2)
        await rig.until_running(killed)
        engine = workers.engine()
        engine.send_signal(signal.SIGKILL)
        result = await rig.result(killed)
        assert "[engine_crashed]" in result.error.message
        assert "was ended by SIGKILL" in result.error.message
        result = await rig.run(behaviour="crash")
        assert "was ended by SIGSEGV" in result.error.message
        assert (await rig.run()).status is Status.SUCCEEDED
        assert workers.log.read_text().count('"forked":true') == 3


async def test_a_hung_engine_writes_where_it_hangs_before_it_is_killed(rig: Rig, zygote: ZygoteProcess) -> None:
    await rig.add_model(timeouts=Timeouts(run_s=60, step_s=1.0), retry=Retry(max_attempts=2, base_delay_s=0.01))
    async with forking(rig, zygote) as workers:
        await workers.start()
        job_id = await rig.submit(behaviour="hang")
        seen = await rig.events(job_id, last=events.Retrying)
        assert seen[-1].code is ErrorCode.ENGINE_HUNG
        await rig.cancel(job_id)
        assert (await rig.run()).status is Status.SUCCEEDED


async def test_a_forked_engine_dumps_no_core_and_is_the_first_to_go_when_memory_ends(
    rig: Rig, zygote: ZygoteProcess
) -> None:
    await rig.add_model()
    async with forking(rig, zygote) as workers:
        await workers.start()
        engine = workers.engine()
        assert engine.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert Path(f"/proc/{engine.pid}/oom_score_adj").read_text() == "800\n"
        # Pipes for frames in, frames out and errors, its lifeline, /dev/null twice, and nothing of others.
        open_files = [str(entry.readlink()).partition(":")[0] for entry in Path(f"/proc/{engine.pid}/fd").iterdir()]
        assert sorted(open_files) == ["/dev/null"] * 2 + ["pipe"] * 4


@pytest.mark.parametrize("zygote_lives", [True, False])
async def test_an_engine_ends_with_its_supervisor_though_a_library_holds_the_interpreter(
    rig: Rig, zygote_lives: bool
) -> None:
    await rig.add_model()
    async with forking(rig) as workers:
        status = await workers.start()
        job_id = await rig.submit(behaviour="hang")
        await rig.until_running(job_id)
        engine = workers.engine()
        if not zygote_lives:
            zygote = workers.zygote.pid
            os.kill(zygote, signal.SIGKILL)
            await until_ended(zygote)
        os.kill(status.pid, signal.SIGKILL)
        await until_ended(engine.pid)
        await rig.commit_cancel(job_id)
        await workers.start()


async def test_without_its_zygote_a_worker_runs_on_and_starts_its_next_engine_by_itself(rig: Rig) -> None:
    await rig.add_model(retry=Retry(max_attempts=1))
    async with forking(rig) as workers:
        status = await workers.start()
        job_id = await rig.submit(steps=20, step_s=0.05)
        await rig.until_running(job_id)
        engine = workers.engine()
        os.kill(workers.zygote.pid, signal.SIGKILL)
        result = await rig.result(job_id)
        assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
        # The kernel still tells that it ended; nobody tells how.
        engine.send_signal(signal.SIGKILL)
        await workers.ready(status.pid, lambda s: not s.engines[0].cold_start.forked)
        assert (await rig.run()).status is Status.SUCCEEDED
        [engine] = [child for child in psutil.Process(status.pid).children() if is_engine(child)]
        log = workers.log.read_text()
        assert "nobody was there to see how" in log
        assert "no zygote: the engine is started by exec" in log


async def test_a_zygote_that_stands_still_holds_up_nobody(rig: Rig) -> None:
    await rig.add_model()
    async with forking(rig) as workers:
        await workers.start()
        engine = workers.engine()
        os.kill(workers.zygote.pid, signal.SIGSTOP)
        engine.send_signal(signal.SIGKILL)
        await rig.until(lambda s: s.engines[0].state is EngineState.READY and not s.engines[0].cold_start.forked)
        assert (await rig.run()).status is Status.SUCCEEDED
        before = time.monotonic()
        second = await workers.spawn()
        assert [process.pid for process in workers.otherwise.processes] == [second], "by exec"
        assert time.monotonic() - before < DEADLINE_S
        os.kill(workers.zygote.pid, signal.SIGCONT)
        # What it forks too late for whoever asked ends by itself.
        async with asyncio.timeout(DEADLINE_S):
            while {child.pid for child in psutil.Process(workers.zygote.pid).children()} - {workers.pids[0]}:
                await asyncio.sleep(0.02)


def test_children_of_one_zygote_draw_different_random_numbers() -> None:
    script = """
import os, random, sys
import numpy, torch
from headrace_workers.zygote.offspring import _begin_anew
for _ in range(3):
    read, write = os.pipe()
    if os.fork() == 0:
        _begin_anew({}, output=1, errors=2, kept=(write,))
        for drawn in (random.random(), numpy.random.random(), torch.rand(1).item()):
            os.write(write, f"{drawn} ".encode())
        os._exit(0)
    os.close(write)
    os.wait()
    print(os.read(read, 1000).decode(), flush=True)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    drawn = ran.stdout.split()
    assert len(drawn) == 9
    assert len(set(drawn)) == 9, ran.stdout
