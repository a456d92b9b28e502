"""Where the time of a start goes, as far as the supervisor can tell. Pure."""

from collections.abc import Mapping

from headrace_contracts.clock import Clock
from headrace_contracts.heartbeat import ColdStart
from headrace_contracts.zygote import LAUNCHED_AT_VARIABLE
from headrace_workers.frames import Ready


def spawn_s(environment: Mapping[str, str], clock: Clock) -> float:
    """Seconds since this worker was ordered; 0 where whoever started it does not say when, or has another clock."""
    try:
        launched_at = float(environment.get(LAUNCHED_AT_VARIABLE, ""))
    except ValueError:
        return 0.0
    since_s = clock.now().timestamp() - launched_at
    return round(since_s, 4) if 0 <= since_s < float("inf") else 0.0


def phases(before: ColdStart, weights_s: float, ready: Ready, *, forked: bool) -> ColdStart:
    """A start up to the moment when jobs are taken.

    Args:
        before: what came before the engine; nothing in a later life of it.
        weights_s: weights fetched or found.
        ready: what the engine process says of itself.
        forked: whether that process came from a zygote.
    """
    return ColdStart(
        spawn_s=before.spawn_s,
        connect_s=before.connect_s,
        weights_s=round(weights_s, 4),
        engine_s=round(ready.engine_s, 4),
        import_s=round(ready.import_s, 4),
        load_s=round(ready.load_s, 4),
        warm_up_s=round(ready.warm_up_s, 4),
        forked=forked,
    )
