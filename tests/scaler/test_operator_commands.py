"""What an operator sees while the real scaler works: from "nobody comes" to the cold start that a job waited for."""

import asyncio
import json
import sys

import pytest
from scaling_stage import DEADLINE_S, QUICK, Stage

from headrace_contracts.result import Status
from headrace_contracts.scaling import Scaling

pytestmark = pytest.mark.slow


async def headrace(stage: Stage, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli", *arguments),
        env={**stage.environment, "HEADRACE_TENANT": "acme"},
        cwd=stage.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_change_of_scaling_is_acted_on_and_a_job_says_what_it_waited_for(stage: Stage) -> None:
    await stage.add_model("m", Scaling(max_workers=0))
    async with stage.scaler():
        first = await stage.submit("m", echo="hello")
        await stage.until_decided("m", lambda decision: decision.waiting > 0)
        assert "`max_workers` of the model is 0" in await headrace(stage, "explain", first)

        changed = (await headrace(stage, "scale", "m", "max=1", "--wait-s", str(DEADLINE_S))).splitlines()
        assert changed[:2] == ["SETTING\tBEFORE\tAFTER", "max_workers\t0\t1"]
        assert "0 workers -> 1: " in changed[-1]

        assert (await stage.result("m", first)).status is Status.SUCCEEDED
        await stage.until(lambda: bool(stage.cold_starts))
        [worker] = stage.seen
        assert f"It waited for a cold start of worker {worker}" in await headrace(stage, "explain", first)

        long = await stage.submit("m", steps=50, step_s=1.0)
        await stage.until(lambda: any(long in engine.running for s in stage.seen.values() for engine in s.engines))
        second = await stage.submit("m", echo="hello")
        assert f"It runs now on worker {worker} since" in await headrace(stage, "explain", long)
        waits = await headrace(stage, "explain", second)
        assert "`headrace scale m max=2` allows one more worker" in waits or "has it in hand" in waits
        top = json.loads(await headrace(stage, "top", "--once", "--json"))
        [row] = top["models"]
        assert (row["workers"], row["target"], row["waiting"] + row["held"]) == ({"busy": 1}, 1, 2)
        assert (top["slots"], top["leader"] is None) == ({"cpu": 1}, False)

        # Or it would stay for a minute.
        quick = [f"{key}={getattr(QUICK, key)}" for key in ("idle_timeout_s", "scale_down_delay_s", "cooldown_s")]
        await headrace(stage, "scale", "m", "priority=3", *quick, "--wait-s", "0")
        await headrace(stage, "cancel", long)
        assert (await stage.result("m", second)).status is Status.SUCCEEDED
        await stage.until_no_worker()
