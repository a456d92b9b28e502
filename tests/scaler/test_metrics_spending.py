"""What workers cost, added up from their heartbeats: every second once, whatever comes and goes."""

import pytest
from alert_cases import wall

from headrace_contracts.heartbeat import Account, EngineState, EngineStatus, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import ScalerSettings
from headrace_contracts.tasks.registry import Task
from headrace_scaler.observing.spending import Spend, Spending

PRICES = ScalerSettings(cpu_price_per_s=0.01, gpu_price_per_s=1.0)
SPECS = {
    "m": ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC),
    "dear": ModelSpec("dear", Task.SYNTHETIC, EngineKind.SYNTHETIC, price_per_s=5.0),
}


def heartbeat(worker: str, slot: str = "cpu", **accounts: Account) -> WorkerStatus:
    engines = tuple(EngineStatus(model, EngineState.READY, 1, (), 0, account=its) for model, its in accounts.items())
    return WorkerStatus(worker, "host", 1, wall(0.0), wall(0.0), draining=False, engines=engines, slot=slot)


def spent(spending: Spending, *statuses: WorkerStatus) -> tuple[Spend, ...]:
    spending.update(statuses, SPECS)
    return spending.so_far


def test_every_second_is_counted_once() -> None:
    spending = Spending(PRICES)
    for busy_s in (1.0, 3.0, 3.0):
        found = spent(spending, heartbeat("w", m=Account(2.0, busy_s, 0.5, jobs=int(busy_s))))

    assert found == (Spend("m", 2.0, 3.0, 0.5, 3, cost=pytest.approx(5.5 * 0.01)),)


def test_a_worker_that_is_gone_stays_counted_and_is_not_counted_twice_when_it_is_back() -> None:
    spending = Spending(PRICES)
    here = heartbeat("w", m=Account(1.0, 2.0, 0.0, 2))
    spent(spending, here)
    gone = spent(spending)
    back = spent(spending, here)

    assert gone == back == (Spend("m", 1.0, 2.0, 0.0, 2, 0.03),)


def test_a_worker_that_began_anew_under_its_id_is_another_one() -> None:
    spending = Spending(PRICES)
    spent(spending, heartbeat("w", m=Account(10.0, 10.0, 0.0, 4)))
    [found] = spent(spending, heartbeat("w", m=Account(1.0, 0.5, 0.0, 1)))

    assert (found.starting_s, found.busy_s, found.jobs) == (11.0, 10.5, 5)


def test_the_price_is_the_models_own_or_the_slots_shared_by_its_models() -> None:
    ten = Account(0.0, 10.0, 0.0)

    def cost(status: WorkerStatus) -> dict[str, float]:
        return {one.model: one.cost for one in spent(Spending(PRICES), status)}

    assert cost(heartbeat("w", "gpu:0", m=ten)) == {"m": 10.0}
    assert cost(heartbeat("w", "gpu:0", m=ten, dear=ten)) == {"m": 5.0, "dear": 50.0}
    assert cost(heartbeat("w", "", m=ten)) == {"m": 0.1}
    assert cost(heartbeat("w", "cpu", unknown=ten)) == {"unknown": 0.0}
