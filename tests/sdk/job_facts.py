"""Jobs, workers and decisions as `headrace explain` finds them, for tests of what it says."""

from datetime import UTC, datetime, timedelta

import msgspec

from headrace.explaining import Facts
from headrace.explaining.facts import InQueue
from headrace_contracts.alert import ScalingDecision
from headrace_contracts.errors import ErrorCode
from headrace_contracts.event import Retrying, Started
from headrace_contracts.heartbeat import Account, ColdStart, EngineState, EngineStatus, WorkerStatus
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.names import Lane
from headrace_contracts.scaling import Scaling
from headrace_contracts.tasks.registry import Task
from headrace_storage.lanes import LaneState

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
SPEC = ModelSpec("draw", Task.SYNTHETIC, EngineKind.SYNTHETIC)
LANES = tuple(
    LaneState("draw", lane, waiting, 0, 100, 30.0, 10_000, None) for lane, waiting in zip(Lane, (2, 4, 0), strict=True)
)
WAITS = InQueue(Lane.NORMAL, NOW - timedelta(seconds=12), None, 3)
HAD = InQueue(Lane.NORMAL, NOW - timedelta(seconds=12), None, None)
PLACE = "It waits in lane normal of draw since 12 s, behind 3 jobs of its lane and 2 of higher lanes."


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def facts(queued: InQueue | None = WAITS, **known: object) -> Facts:
    rest = {"model": "draw", "spec": SPEC, "lanes": LANES, **known}
    return Facts("j-1", "acme", NOW, queued=queued, **rest)  # type: ignore[arg-type]


def worker(
    name: str = "w-1",
    state: EngineState = EngineState.READY,
    running: tuple[str, ...] = (),
    held: int = 0,
    account: Account | None = None,
    slots: int = 1,
    **more: object,
) -> WorkerStatus:
    model, slot, draining, detail = (
        more.get(k, d) for k, d in (("model", "draw"), ("slot", ""), ("draining", False), ("detail", ""))
    )
    engine = EngineStatus(str(model), state, slots, running, held, str(detail), account=account or Account())
    engine = msgspec.structs.replace(engine, cold_start=more.get("cold_start", ColdStart()))
    return WorkerStatus(name, "host", 1, ago(10), ago(1), bool(draining), (engine,), str(slot))


def busy(name: str = "w-1", held: int = 0, busy_s: float = 60.0, jobs: int = 10) -> WorkerStatus:
    return worker(name, running=(f"other-{name}",), held=held, account=Account(busy_s=busy_s, jobs=jobs))


def decided(blocked: str = "", target: int = 0, reason: str = "because") -> ScalingDecision:
    return ScalingDecision("draw", ago(4), target, 0, 0, reason, blocked)


def lane(**changes: object) -> tuple[LaneState, ...]:
    return tuple(msgspec.structs.replace(one, **changes) if one.lane is Lane.NORMAL else one for one in LANES)


def spec(**scaling: int) -> ModelSpec:
    return msgspec.structs.replace(SPEC, scaling=Scaling(**scaling))


STARTED = Started("j-1", ago(7), 2, "w-1", 2)
RETRYING = Retrying("j-1", ago(3), 1, ErrorCode.MODEL_ERROR, "no ink", 5.0)
