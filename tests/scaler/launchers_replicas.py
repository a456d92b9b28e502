"""A platform that only takes a number of replicas, as Kubernetes' scale subresource does, and a launcher for it.

`Cluster` stands for the platform: it names pods, starts and removes them when its controller comes round, restarts what
crashes, and removes those with the lowest deletion cost first. All that the launcher knows, it keeps there as
annotations, so that another launcher finds it.
"""

import contextlib
import dataclasses
import itertools
import uuid

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.policy.observation import Need, Slot


@dataclasses.dataclass
class Pod:
    """One pod of a deployment."""

    name: str
    deletion_cost: int = 0
    order: Order | None = None
    """Annotation: the order it carries out."""
    ordered_at: float = 0.0
    deleted: bool = False
    """It was sent SIGTERM and has its grace."""
    hangs: bool = False
    grace: int = 5
    """terminationGracePeriodSeconds of its template; here in rounds of the controllers."""
    crash_loop: str = ""
    """Why its container is not started again for a while."""


@dataclasses.dataclass
class Deployment:
    """One model's workers."""

    replicas: int = 0
    orders: dict[str, tuple[Order, float]] = dataclasses.field(default_factory=dict)
    """Annotation: orders by id, with their time, oldest first."""
    pods: list[Pod] = dataclasses.field(default_factory=list)


class Cluster:
    """The platform."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.deployments: dict[str, Deployment] = {}
        self.crashing = {"no-such-model": "exit status 1: error: no model `no-such-model`"}
        self.resource_versions = itertools.count(1)

    def controller(self) -> None:
        """One round of the controllers: as many pods as replicas, and those that were deleted end, but not at once."""
        for model, deployment in self.deployments.items():
            for pod in deployment.pods:
                pod.grace -= pod.deleted
            deployment.pods = [pod for pod in deployment.pods if not (pod.deleted and (pod.grace < 0 or not pod.hangs))]
            present = [pod for pod in deployment.pods if not pod.deleted]
            for _ in range(deployment.replicas - len(present)):
                deployment.pods.append(Pod(f"pod-{uuid.uuid4().hex[:5]}", crash_loop=self.crashing.get(model, "")))
            excess = max(0, len(present) - deployment.replicas)
            for pod in sorted(present, key=lambda pod: pod.deletion_cost)[:excess]:
                pod.deleted = True

    def pod(self, name: str) -> Pod:
        return next(pod for each in self.deployments.values() for pod in each.pods if pod.name == name)


class ReplicasLauncher:
    """One more, one less: the platform does the rest."""

    slot = "cluster"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def slots(self) -> tuple[Slot, ...]:
        given = sum(launched.need.size for launched in await self.running() if launched.ended is None)
        return (
            Slot(self.slot, SlotKind.CPU, self._cluster.cores, self._cluster.cores - given),
            Slot("gpu:0", SlotKind.GPU, 0, 0, "node pool `gpu` has no nodes"),
        )

    async def running(self) -> tuple[Launched, ...]:
        self._bind()
        found = []
        for deployment in self._cluster.deployments.values():
            for pod in deployment.pods:
                if pod.order is not None:
                    order = pod.order
                    ended = pod.crash_loop or None
                    found.append(
                        Launched(pod.name, order.model, order.slot, order.need, pod.ordered_at, ended, order.worker)
                    )
            bound = {pod.order.worker for pod in deployment.pods if pod.order is not None}
            for order, ordered_at in deployment.orders.values():
                if order.worker not in bound:  # the platform has not come round to it: a placeholder
                    found.append(Launched(order.worker, order.model, order.slot, order.need, ordered_at))
        return tuple(found)

    async def start(self, order: Order) -> None:
        deployment = self._cluster.deployments.setdefault(order.model, Deployment())
        if order.worker in deployment.orders:
            return
        slot = next((each for each in await self.slots() if each.id == order.slot), None)
        if slot is None:
            raise LaunchError(f"there is no slot {order.slot}")
        if slot.quarantined:
            raise LaunchError(f"slot {slot.id} is quarantined: {slot.quarantined}")
        if order.need.size > slot.free:
            raise LaunchError(f"slot {slot.id} is full")
        deployment.orders[order.worker] = order, float(next(self._cluster.resource_versions))
        deployment.replicas = len(deployment.orders)

    async def stop(self, worker: str, grace_s: float) -> None:
        # The grace is the pod template's: terminationGracePeriodSeconds.
        self._remove(worker)

    async def forget(self, worker: str) -> None:
        for launched in await self.running():
            if worker in (launched.worker, launched.order) and launched.ended is not None:
                self._remove(worker)

    def _remove(self, worker: str) -> None:
        """First the mark on the pod, then one replica less: the other way round, the platform would choose."""
        self._bind()
        for deployment in self._cluster.deployments.values():
            pod = next((p for p in deployment.pods if p.order and worker in (p.name, p.order.worker)), None)
            if pod is not None:
                pod.deletion_cost = -(2**31)
            order = pod.order.worker if pod is not None and pod.order is not None else worker
            if deployment.orders.pop(order, None) is not None:
                deployment.replicas = len(deployment.orders)

    def _bind(self) -> None:
        """New pods take the oldest orders that have none."""
        for deployment in self._cluster.deployments.values():
            bound = {pod.order.worker for pod in deployment.pods if pod.order is not None and not pod.deleted}
            waiting = [entry for name, entry in deployment.orders.items() if name not in bound]
            unbound = [pod for pod in deployment.pods if pod.order is None and not pod.deleted]
            for pod, (order, ordered_at) in zip(unbound, waiting, strict=False):
                pod.order, pod.ordered_at = order, ordered_at


class ReplicasPlace:
    """A cluster whose controllers come round whenever somebody looks at what runs."""

    slot = ReplicasLauncher.slot
    keeps_stopped = False

    def __init__(self) -> None:
        self.cluster = Cluster(cores=3)

    @contextlib.asynccontextmanager
    async def launcher(self):
        yield _Slow(self.cluster)

    def order(self, worker: str = "", slot: str = "", size: int = 1) -> Order:
        slot = slot or self.slot
        kind = SlotKind.CPU if slot == self.slot else SlotKind.GPU
        return Order(worker or f"w-{uuid.uuid4().hex[:8]}", "tiny", slot, Need(kind, size))

    def failing_order(self) -> Order:
        return msgspec.structs.replace(self.order(), model="no-such-model")

    def crash(self, worker: str) -> None:
        self.cluster.pod(worker).crash_loop = "SIGKILL"

    def hang(self, worker: str) -> None:
        self.cluster.pod(worker).hangs = True

    def processes(self) -> int:
        return sum(not pod.crash_loop for each in self.cluster.deployments.values() for pod in each.pods)

    def clear(self) -> None:
        pass


class _Slow(ReplicasLauncher):
    """What runs is told as it was before the controllers came round: so that placeholders are seen."""

    async def running(self) -> tuple[Launched, ...]:
        found = await super().running()
        self._cluster.controller()
        return found
