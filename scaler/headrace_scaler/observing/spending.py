"""What the workers of each model have cost since we look, from what they account for. No I/O."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from headrace_contracts.cost import SlotKind, price_per_s
from headrace_contracts.heartbeat import Account, EngineStatus, WorkerStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import ScalerSettings

# Workers whose last account is kept, so that one whose heartbeat comes back is not counted twice.
MOST_KNOWN = 10_000


class Spend(msgspec.Struct, frozen=True):
    """What the workers of a model have cost so far: seconds, jobs and money, which only grow."""

    model: str
    starting_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    jobs: int = 0
    cost: float = 0.0


class Spending:
    """Sums over all workers there have been; they only grow."""

    def __init__(self, prices: ScalerSettings) -> None:
        self._prices = prices
        self._last: OrderedDict[tuple[str, str], Account] = OrderedDict()
        self._spent: dict[str, Spend] = {}

    def update(self, statuses: Iterable[WorkerStatus], specs: Mapping[str, ModelSpec]) -> None:
        """Take in the heartbeats of all workers, and the models of the registry."""
        for status in statuses:
            for engine in status.engines:
                spec = specs.get(engine.model)
                self._take_in(status, engine, 0.0 if spec is None else self._price_per_s(status, spec))
        while len(self._last) > MOST_KNOWN:
            self._last.popitem(last=False)

    @property
    def so_far(self) -> tuple[Spend, ...]:
        """By model."""
        return tuple(self._spent[model] for model in sorted(self._spent))

    def _take_in(self, status: WorkerStatus, engine: EngineStatus, price: float) -> None:
        key = (status.id, engine.model)
        now, before = engine.account, self._last.get(key, Account())
        if now.uptime_s < before.uptime_s:  # a worker that was started anew under the same id
            before = Account()
        self._last[key] = now
        self._last.move_to_end(key)
        known = self._spent.get(engine.model, Spend(engine.model))
        self._spent[engine.model] = Spend(
            engine.model,
            known.starting_s + max(0.0, now.starting_s - before.starting_s),
            known.busy_s + max(0.0, now.busy_s - before.busy_s),
            known.idle_s + max(0.0, now.idle_s - before.idle_s),
            known.jobs + max(0, now.jobs - before.jobs),
            known.cost + (now.uptime_s - before.uptime_s) * price,
        )

    def _price_per_s(self, status: WorkerStatus, spec: ModelSpec) -> float:
        """As the worker itself has it: what it runs on is told by the scaler, else by the model's file."""
        told = status.slot or spec.resources.device
        slot = SlotKind.GPU if told.startswith(("gpu", "cuda")) else SlotKind.CPU
        return price_per_s(spec, slot, self._prices, len(status.engines))
