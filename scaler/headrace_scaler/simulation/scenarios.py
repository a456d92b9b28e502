"""Traffic that scalers go wrong on, each with what it is meant to show; the tests assert it, the pictures show it."""

import random

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.observation import Need, Slot
from headrace_scaler.simulation.run import simulate
from headrace_scaler.simulation.scene import Arrival, Interval, SimulatedModel
from headrace_scaler.simulation.trace import Trace
from headrace_scaler.simulation.traffic import burst, daily, merged, poisson, sawtooth, trickle

SEED = 7
GPU_BYTES = 24_000_000_000
ONE_GPU = (Slot("gpu:0", SlotKind.GPU, GPU_BYTES, GPU_BYTES),)
CORES = (Slot("cpu", SlotKind.CPU, 16, 16),)
WHOLE_GPU = Need(SlotKind.GPU, 0)


class Scenario(msgspec.Struct, frozen=True):
    """One run."""

    name: str
    shows: str
    """A sentence, for the title of its picture."""
    models: tuple[SimulatedModel, ...]
    slots: tuple[Slot, ...]
    arrivals: tuple[Arrival, ...]
    until: float
    tick_s: float = 1.0

    def run(self) -> Trace:
        """Simulate it."""
        return simulate(self.models, self.slots, self.arrivals, seed=SEED, until=self.until, tick_s=self.tick_s)


def _burst() -> Scenario:
    model = SimulatedModel("painter", Scaling(max_workers=6), cold_start_s=6, service_s=8, service_spread=0.3)
    return Scenario(
        "burst",
        "40 jobs at once: from zero to the most workers, and back in steps",
        (model,), CORES, burst("painter", 10, 40), 160,
    )  # fmt: skip


def _sawtooth() -> Scenario:
    scaling = Scaling(max_workers=6, cooldown_s=15, scale_down_delay_s=30)
    model = SimulatedModel("painter", scaling, cold_start_s=4, service_s=3)
    return Scenario(
        "sawtooth",
        "6 jobs every 15 s, the cooldown: the workers of the first burst stay for the others",
        (model,), CORES, sawtooth("painter", 15, 6, 240), 330,
    )  # fmt: skip


def _trickle() -> Scenario:
    scaling = Scaling(max_workers=6, target_wait_s=20, target_utilization=0.9)
    model = SimulatedModel("writer", scaling, cold_start_s=5, service_s=2, service_spread=0.4)
    return Scenario(
        "trickle",
        "a 2 s job every 2.1 s, just under the rate of one worker",
        (model,), CORES, trickle("writer", 2.1, 420, start=10), 510,
    )  # fmt: skip


def _diurnal() -> Scenario:
    scaling = Scaling(
        max_workers=12,
        target_wait_s=30,
        target_utilization=0.8,
        scale_down_delay_s=300,
        idle_timeout_s=300,
        cooldown_s=60,
    )
    model = SimulatedModel("painter", scaling, cold_start_s=40, cold_start_spread=0.3, service_s=10, service_spread=0.5)
    generator = random.Random(SEED)  # noqa: S311 - traffic, nothing secret
    return Scenario(
        "diurnal",
        "a day: from next to nothing at midnight to 0.6 jobs of 10 s a second at noon",
        (model,), CORES, poisson("painter", daily(0.3, 0.99), 0.6, 86_400, generator), 90_000, 5,
    )  # fmt: skip


def _crash_loop() -> Scenario:
    scaling = Scaling(max_workers=4)
    model = SimulatedModel("painter", scaling, cold_start_s=5, service_s=6, crashes=(Interval(0, 200),), crash_s=3)
    return Scenario(
        "crash-loop",
        "every start fails until 200 s: tried ever more seldom, one at a time, then all is served",
        (model,), CORES, burst("painter", 10, 12), 320,
    )  # fmt: skip


def _slow_cold_start() -> Scenario:
    scaling = Scaling(max_workers=8, target_wait_s=180, scale_down_delay_s=60, idle_timeout_s=120)
    model = SimulatedModel("mixer", scaling, cold_start_s=120, cold_start_spread=0.15, service_s=15, service_spread=0.3)
    arrivals = merged(burst("mixer", 10, 1), trickle("mixer", 6, 900, start=200))
    return Scenario(
        "slow-cold-start",
        "workers that need 2 minutes to start, for 15 s jobs every 6 s: what is on its way is counted",
        (model,), CORES, arrivals, 1150,
    )  # fmt: skip


def _one_gpu() -> Scenario:
    scaling = Scaling(max_workers=1, cooldown_s=20, idle_timeout_s=60)
    painter = SimulatedModel("painter", scaling, need=WHOLE_GPU, cold_start_s=8, service_s=5, service_spread=0.2)
    writer = SimulatedModel("writer", scaling, need=WHOLE_GPU, cold_start_s=8, service_s=4, service_spread=0.2)
    arrivals = merged(
        *(burst("painter", at, 4) for at in range(10, 370, 60)), *(burst("writer", at, 3) for at in range(25, 385, 60))
    )
    return Scenario(
        "one-gpu",
        "two models, one GPU: an idle worker makes room for the other model's jobs, at most once a cooldown",
        (painter, writer), ONE_GPU, arrivals, 450,
    )  # fmt: skip


def scenarios() -> tuple[Scenario, ...]:
    """All of them."""
    return (
        _burst(), _sawtooth(), _trickle(), _diurnal(), _crash_loop(), _slow_cold_start(), _one_gpu(),
    )  # fmt: skip
