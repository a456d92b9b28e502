"""Which fault comes when: two hands that strike independently, each at one thing at a time."""

import asyncio
import random
from collections.abc import Mapping

from headrace_loadgen.nemesis.faults import Injector
from headrace_loadgen.records import FaultKind

# How often each comes, beside the others of the same hand.
PROCESSES: Mapping[FaultKind, float] = {
    FaultKind.WORKER_KILL: 3,
    FaultKind.WORKER_STOP: 2,
    FaultKind.WORKER_TERM: 2,
    FaultKind.ENGINE_KILL: 3,
    FaultKind.ENGINE_STOP: 1,
}
SURROUNDINGS: Mapping[FaultKind, float] = {
    FaultKind.BROKER_KILL: 2,
    FaultKind.BROKER_STOP: 1,
    FaultKind.LINK_RESET: 3,
    FaultKind.LINK_SILENT: 2,
    FaultKind.LINK_SLOW: 1,
    FaultKind.STORE_KILL: 1,
    FaultKind.STORE_OUTAGE: 1,
    FaultKind.STORE_ERRORS: 2,
    FaultKind.STORE_LOST_ANSWERS: 2,
}
MEAN_PAUSE_S = 2.5


class Nemesis:
    """Strikes until it is told to stop; a fault that has begun is brought to its end."""

    def __init__(self, injector: Injector, seed: int) -> None:
        self._injector = injector
        self._seed = seed
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """No more faults after those that have begun."""
        self._stop.set()

    async def strike(self) -> None:
        """Run both hands until `stop`."""
        surroundings = dict(SURROUNDINGS)
        if len(self._injector.bed.brokers) > 1:
            surroundings[FaultKind.LEADER_KILL] = surroundings.pop(FaultKind.BROKER_KILL)
        async with asyncio.TaskGroup() as hands:
            hands.create_task(self._hand(PROCESSES, random.Random(f"{self._seed}/processes")))  # noqa: S311
            hands.create_task(self._hand(surroundings, random.Random(f"{self._seed}/surroundings")))  # noqa: S311

    async def _hand(self, kinds: Mapping[FaultKind, float], rng: random.Random) -> None:
        # Each once first, in some order, so that a short run is no run without them.
        waiting = rng.sample(list(kinds), len(kinds))
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(rng.expovariate(1 / MEAN_PAUSE_S)):
                    await self._stop.wait()
            except TimeoutError:
                kind = waiting.pop() if waiting else rng.choices(list(kinds), list(kinds.values()))[0]
                await self._injector.inject(kind)
