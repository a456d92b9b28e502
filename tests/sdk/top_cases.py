"""Workers, alerts and decisions as `headrace top` finds them."""

from datetime import UTC, datetime, timedelta

from headrace_contracts.alert import Alert, AlertName, AlertState, ScalingDecision
from headrace_contracts.heartbeat import EngineState, EngineStatus, WorkerStatus

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def alert(model: str, name: AlertName, state: AlertState = AlertState.FIRING, since: datetime = NOW) -> Alert:
    return Alert(name, state, model, NOW, since, "120 jobs wait", 120, 2, 75.0, 2, 2)


def decision(model: str, target: int, blocked: str = "", reason: str = "5 jobs wait") -> ScalingDecision:
    return ScalingDecision(model, NOW, target, 2, 1, reason, blocked)


def worker(
    name: str,
    model: str,
    state: EngineState = EngineState.READY,
    running: int = 0,
    held: int = 0,
    slot: str = "",
    **more: object,
) -> WorkerStatus:
    engine = EngineStatus(model, state, 1, tuple(f"j{n}" for n in range(running)), held)
    return WorkerStatus(name, str(more.get("host", "here")), 1, NOW, NOW, bool(more.get("draining")), (engine,), slot)
