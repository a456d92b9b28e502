"""What the workers of each model have cost since we look, from what they account for. No I/O."""

from collections.abc import Iterable, Mapping

from headrace_contracts.cost import SlotKind, price_per_s
from headrace_contracts.heartbeat import Account, WorkerStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.metrics import Spend


class Spending:
    """Sums over all workers there have been; they only grow."""

    def __init__(self, prices: ScalerSettings) -> None:
        self._prices = prices
        self._last: dict[tuple[str, str], Account] = {}
        self._spent: dict[str, Spend] = {}

    def update(self, statuses: Iterable[WorkerStatus], specs: Mapping[str, ModelSpec]) -> None:
        """Take in the heartbeats of all workers, and the models of the registry."""
        present = {}
        for status in statuses:
            for engine in status.engines:
                before = self._last.get((status.id, engine.model), Account())
                now = present[status.id, engine.model] = engine.account
                slot = SlotKind.GPU if status.slot.startswith("gpu") else SlotKind.CPU
                spec = specs.get(engine.model)
                price = price_per_s(spec, slot, self._prices, len(status.engines)) if spec is not None else 0.0
                known = self._spent.get(engine.model, Spend(engine.model))
                self._spent[engine.model] = Spend(
                    engine.model,
                    known.starting_s + max(0.0, now.starting_s - before.starting_s),
                    known.busy_s + max(0.0, now.busy_s - before.busy_s),
                    known.idle_s + max(0.0, now.idle_s - before.idle_s),
                    known.jobs + max(0, now.jobs - before.jobs),
                    known.cost + max(0.0, now.uptime_s - before.uptime_s) * price,
                )
        self._last = present

    @property
    def so_far(self) -> tuple[Spend, ...]:
        """By model."""
        return tuple(self._spent[model] for model in sorted(self._spent))
