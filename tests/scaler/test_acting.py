"""What the scaler does for one decision, and that it does nothing when it may not."""

import asyncio
import random

import msgspec
import pytest
from scaling_stage import DEADLINE_S, QUICK, Stage
from test_bad_launchers import BadLauncher

from headrace_contracts.cost import SlotKind
from headrace_contracts.heartbeat import WorkerPhase
from headrace_contracts.result import Status
from headrace_scaler.acting import DRAIN_DEADLINE_S, Actor
from headrace_scaler.launchers.port import Order
from headrace_scaler.policy.decision import ModelDecision, Stop
from headrace_scaler.policy.observation import ModelView, Need, WorkerView
from headrace_storage.leadership import Deposed

ONE_CORE = Need(SlotKind.CPU, 1)
NOTHING = ModelDecision("m", 1, reason="as it is")


def view(*workers: WorkerView) -> ModelView:
    return ModelView("m", QUICK, ONE_CORE, 1, 60.0, 0, 0, 0.0, 0.0, None, workers)


def actor(stage: Stage, launcher: BadLauncher, *, leads: bool = True) -> Actor:
    def check() -> None:
        if not leads:
            raise Deposed("scaler")

    return Actor(stage.connection, launcher, check, random.Random(1))


async def test_a_start_is_ordered_on_its_slot_under_a_name_of_its_own(stage: Stage) -> None:
    launcher = BadLauncher()
    done = await actor(stage, launcher).act(view(), msgspec.structs.replace(NOTHING, start=("cpu", "cpu")), now=0)
    assert [(order.model, order.slot, order.need) for order in launcher.orders] == [("m", "cpu", ONE_CORE)] * 2
    assert set(done.started) == {order.worker for order in launcher.orders}
    assert len(set(done.started)) == 2


@pytest.mark.parametrize(
    "decision",
    [
        msgspec.structs.replace(NOTHING, start=("cpu",)),
        msgspec.structs.replace(NOTHING, drain=("w",)),
        msgspec.structs.replace(NOTHING, stop=(Stop("w", "never ready"),)),
    ],
)
async def test_who_may_not_lead_any_more_does_nothing(stage: Stage, decision: ModelDecision) -> None:
    launcher = BadLauncher()
    asked = await stage.connection.nc.subscribe("control.drain.*")
    with pytest.raises(Deposed):
        await actor(stage, launcher, leads=False).act(view(), decision, now=0)
    await stage.connection.nc.flush()
    assert (launcher.orders, launcher.stops, asked.pending_msgs) == ([], [], 0)
    await asked.unsubscribe()


@pytest.mark.parametrize(
    ("worker", "stopped"),
    [
        (WorkerView("w", WorkerPhase.DRAINING, since=0), True),
        (WorkerView("w", WorkerPhase.DRAINING, since=5), False),
        (WorkerView("w", WorkerPhase.DRAINING, since=0, jobs=1), False),
        (WorkerView("w", WorkerPhase.DRAINING, since=0, ours=False), False),
        (WorkerView("w", WorkerPhase.IDLE, since=0), False),
    ],
)
async def test_a_worker_that_drains_without_a_job_and_does_not_end_is_stopped(
    stage: Stage, worker: WorkerView, stopped: bool
) -> None:
    launcher = BadLauncher()
    await actor(stage, launcher).act(view(worker), NOTHING, now=DRAIN_DEADLINE_S + 1)
    assert launcher.stops == (["w"] if stopped else [])


@pytest.mark.slow
async def test_a_worker_that_got_a_job_in_that_moment_is_not_drained(stage: Stage) -> None:
    await stage.add_model("m")
    async with stage.launcher() as launcher:
        await launcher.start(Order("w", "m", "cpu", ONE_CORE))
        job = await stage.submit("m", steps=20, step_s=0.1)
        await stage.until(lambda: any(engine.running for status in stage.seen.values() for engine in status.engines))
        acting = Actor(stage.connection, launcher, lambda: None, random.Random(1))
        busy = await acting.act(view(), msgspec.structs.replace(NOTHING, drain=("w",)), now=0)
        result = await stage.result("m", job)
        await stage.until(lambda: stage.seen["w"].engines[0].idle_since is not None)
        idle = await acting.act(view(), msgspec.structs.replace(NOTHING, drain=("w",)), now=0)
        async with asyncio.timeout(DEADLINE_S):
            while (await launcher.running())[0].ended is None:
                await asyncio.sleep(0.02)
        [ended] = await launcher.running()
    assert (busy.drained, idle.drained) == ((), ("w",))
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    assert ended.ended == "exit status 0"
