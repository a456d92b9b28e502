"""Launchers that hang, refuse, or lie: the scaler says so, tries ever more seldom, and goes on with the rest."""

import asyncio

import msgspec
import pytest
from scaling_stage import QUICK, Stage

from headrace_contracts.cost import SlotKind
from headrace_scaler import acting
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.observing import observe
from headrace_scaler.policy.observation import Slot

SLOTS = (Slot("cpu", SlotKind.CPU, 4, 4),)


class BadLauncher:
    """Plenty of room, and something wrong with it."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.stops: list[str] = []
        self.launched: dict[str, Launched] = {}

    async def slots(self) -> tuple[Slot, ...]:
        return SLOTS

    async def running(self) -> tuple[Launched, ...]:
        return tuple(self.launched.values())

    async def start(self, order: Order) -> None:
        self.orders.append(order)

    async def stop(self, worker: str, grace_s: float) -> None:
        self.stops.append(worker)

    async def forget(self, worker: str) -> None:
        self.launched.pop(worker, None)


class Refuses(BadLauncher):
    async def start(self, order: Order) -> None:
        await super().start(order)
        raise LaunchError("the platform has no more machines")


class HangsInStart(BadLauncher):
    async def start(self, order: Order) -> None:
        await super().start(order)
        await asyncio.Event().wait()


class HangsInSlots(BadLauncher):
    hung = True

    async def slots(self) -> tuple[Slot, ...]:
        if self.hung:
            await asyncio.Event().wait()
        return SLOTS


class Lies(BadLauncher):
    """Says that it runs every worker it was asked for; none is there."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    async def start(self, order: Order) -> None:
        await super().start(order)
        now = self._stage.now().timestamp()
        self.launched[order.worker] = Launched(order.worker, order.model, order.slot, order.need, now)

    async def stop(self, worker: str, grace_s: float) -> None:
        await super().stop(worker, grace_s)
        if worker in self.launched:
            self.launched[worker] = msgspec.structs.replace(self.launched[worker], ended="SIGKILL")


@pytest.mark.parametrize("kind", [Refuses, HangsInStart])
async def test_starts_that_are_refused_or_hang_are_few_and_said(
    stage: Stage, kind: type[BadLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "LAUNCHER_DEADLINE_S", 0.2)
    launcher = kind()
    await stage.add_model("m")
    async with stage.scaler(launcher):
        await stage.submit("m", echo="waits")
        decision = await stage.until_decided("m", lambda decision: decision.blocked == "crash_loop")
    assert ("no more machines" if kind is Refuses else "did not answer within") in decision.reason
    assert len(launcher.orders) <= 4, "a hot loop"
    assert len({order.worker for order in launcher.orders}) == len(launcher.orders)


async def test_nothing_is_decided_while_the_launcher_does_not_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "LAUNCHER_DEADLINE_S", 0.2)
    launcher = HangsInSlots()
    await stage.add_model("m")
    async with stage.scaler(launcher):
        await stage.submit("m", echo="waits")
        await asyncio.sleep(1.0)
        assert launcher.orders == []
        assert stage.of("m") == []
        launcher.hung = False
        await stage.until_decided("m", lambda decision: decision.started == 1)


async def test_a_worker_that_never_registers_is_ended_and_counts_as_a_failed_start(stage: Stage) -> None:
    launcher = Lies(stage)
    await stage.add_model("m", msgspec.structs.replace(QUICK, start_timeout_s=0.5))
    async with stage.scaler(launcher):
        await stage.submit("m", echo="waits")
        stopped = await stage.until_decided("m", lambda decision: bool(decision.stopped))
        await stage.until_decided("m", lambda decision: decision.blocked == "crash_loop")
    assert stopped.stopped == (launcher.orders[0].worker,)
    assert launcher.stops[0] == launcher.orders[0].worker
    assert len(launcher.orders) <= 4, "a hot loop"


async def test_a_model_without_room_for_any_worker_takes_no_start(stage: Stage) -> None:
    launcher = BadLauncher()
    await stage.add_model("m", msgspec.structs.replace(QUICK, max_workers=0))
    async with stage.scaler(launcher):
        await stage.submit("m", echo="waits")
        decision = await stage.until_decided("m", lambda decision: decision.blocked != "")
    assert (decision.blocked, launcher.orders) == ("max_workers", [])
