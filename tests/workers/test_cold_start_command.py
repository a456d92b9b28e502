"""`headrace coldstart`, with real workers and without."""

import asyncio
import sys

import pytest
from rig import DEADLINE_S, Rig

from headrace_contracts.clock import SystemClock
from headrace_contracts.scaling import Scaling
from headrace_storage.leadership import Leadership, LeaseName

pytestmark = pytest.mark.slow


async def command(rig: Rig, *arguments: str) -> tuple[int, str, str]:
    """Exit code, and what it wrote to standard output and error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli", "coldstart", *arguments),
        env={**rig.environment, "HEADRACE_TENANT": "acme"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_wrong_name_is_told_with_the_right_one(rig: Rig) -> None:
    await rig.add_model()
    code, _, err = await command(rig, f"{rig.model}x")
    assert code == 2
    assert f"did you mean '{rig.model}'?" in err


async def test_without_worker_and_scaler_nothing_is_submitted(rig: Rig) -> None:
    await rig.add_model()
    code, out, err = await command(rig, rig.model)
    assert (code, out) == (3, "")
    assert err == (
        f"no worker serves {rig.model}, and no scaler runs that would start one: `headrace scaler`, "
        f"or `headrace worker --model {rig.model}`\n"
    )


async def test_a_model_that_is_never_cold_is_not_waited_for(rig: Rig) -> None:
    await rig.add_model(scaling=Scaling(min_workers=1))
    code, _, err = await command(rig, rig.model, "--runs", "2")
    assert code == 2
    assert "has `min_workers = 1` and is never cold" in err


async def test_a_warm_model_has_no_start_to_measure(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    code, out, err = await command(rig, rig.model)
    assert code == 0, err
    assert f"{rig.model} was warm: a worker was ready; the job took " in out
    assert "a scaler stops its workers 60 s after the last job" in err


async def test_the_phases_of_a_start_add_up_to_the_job(rig: Rig) -> None:
    await rig.add_model()
    scaler = Leadership(rig.connection, LeaseName.SCALER, "scaler-1", SystemClock())
    assert await scaler.acquire()
    asking = asyncio.create_task(command(rig, rig.model))
    async with asyncio.timeout(DEADLINE_S):
        while not (await rig.connection.js.stream_info("JOBS")).state.messages:
            await asyncio.sleep(0.01)
    await rig.spawn_worker()
    code, out, err = await asking
    assert code == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["PHASE", "SECONDS", "SHARE"]
    spent = {phase: float(seconds) for phase, seconds, _ in rows[1:]}
    total_s = spent.pop("job, submit to result")
    assert sum(spent.values()) == pytest.approx(total_s, abs=0.01)
    assert min(spent["engine process started"], spent["broker found, model read"]) > 0
    assert "engine started by exec on" in err
