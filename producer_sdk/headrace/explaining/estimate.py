"""When a waiting job will probably begin: arithmetic on what the workers of its model say. Pure."""

from collections.abc import Sequence

from headrace_contracts.heartbeat import EngineStatus


def service_s(engines: Sequence[EngineStatus]) -> float | None:
    """Seconds of a worker's time that one job took so far; None if none has run since the workers began."""
    jobs = sum(engine.account.jobs for engine in engines)
    return sum(engine.account.busy_s for engine in engines) / jobs if jobs else None


def start_in_s(before: int, ready: Sequence[EngineStatus], each_s: float | None) -> float | None:
    """Seconds until a job begins that has `before` waiting jobs before it; None if nobody can say.

    Args:
        before: jobs that no worker holds yet and that are served first.
        ready: engines that take jobs.
        each_s: seconds of a worker's time that one job takes.

    What is before it is shared by the workers. A job that runs now is half done, on average; one that a worker holds
    for later is not begun.
    """
    if not ready:
        return None
    in_hand = sum(len(engine.running) + engine.held for engine in ready)
    if before + in_hand < sum(engine.slots for engine in ready):
        return 0.0
    if each_s is None:
        return None
    work = before + sum(engine.held + len(engine.running) / 2 for engine in ready)
    return work * each_s / len(ready)
