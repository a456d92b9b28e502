"""A job that has ended: where its milliseconds went, and what to do about them. Pure."""

import msgspec

from headrace.durations import duration
from headrace.explaining.cold_start import phases_text
from headrace.explaining.facts import Bar, Explanation, Facts
from headrace.job_status import JobState
from headrace_contracts.alert import WorkerColdStart
from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.result import Result, ResultError, Status

# What is kept in DEAD.
_BURIED = (ErrorCode.POISONED, ErrorCode.UNKNOWN_MODEL, ErrorCode.UNDECODABLE)
# Below this a wait is no reason to change anything.
WORTH_CHANGING_S = 1.0
# What is left of the whole beside the phases is shown from here on: starting, talking to the broker, committing.
REST_SHOWN_S = 0.0005


def ended(facts: Facts, result: Result) -> Explanation:
    """Its end, a bar for each phase, and the cold start that it waited for."""
    total_s = max(0.0, (result.completed_at - result.created_at).total_seconds())
    on = f" on worker {result.worker}" if result.worker else ""
    tries = f"{result.attempts} attempt{'' if result.attempts == 1 else 's'}" if result.attempts else "no attempt"
    said = [f"It {result.status} at {result.completed_at:%H:%M:%S} UTC after {duration(total_s)}, {tries}{on}."]
    if result.error is not None:
        said.append(f"Why: {result.error.message} [{result.error.code}, fault: {result.error.fault}].")
    cold = cold_start_of(result, facts.cold_starts)
    if cold is not None:
        said.append(_cold(cold))
    return Explanation(JobState(result.status.value), tuple(said), _advice(result, cold), bars=bars_of(result, total_s))


def bars_of(result: Result, total_s: float) -> tuple[Bar, ...]:
    """Each phase and its share of the whole; `other` is what no phase explains."""
    phases = {
        name.removesuffix("_s"): max(0.0, seconds) for name, seconds in msgspec.structs.asdict(result.timings).items()
    }
    rest_s = total_s - sum(phases.values())
    if rest_s >= REST_SHOWN_S:
        phases["other"] = rest_s
    # Clocks of two machines: phases may add up to more than the whole.
    whole_s = max(total_s, sum(phases.values()))
    return tuple(Bar(name, took_s, took_s / whole_s if whole_s else 0.0) for name, took_s in phases.items())


def cold_start_of(result: Result, cold_starts: tuple[WorkerColdStart, ...]) -> WorkerColdStart | None:
    """The start of the worker that ran the job, if the job was there before that worker was ready.

    That it was is the worker's own word, `load_s`: a cold start is told up to a second after it, when the job may run.
    """
    if result.timings.load_s <= 0:
        return None
    of_worker = [start for start in cold_starts if start.worker == result.worker and start.at >= result.created_at]
    return of_worker[0] if of_worker else None


def _cold(start: WorkerColdStart) -> str:
    forked = " (forked from the warm parent)" if start.phases.forked else ""
    parts = phases_text(start.phases, decide_s=start.decide_s)
    where = f": {parts}" if parts else ""
    return f"It waited for a cold start of worker {start.worker}{forked}, ready after {duration(start.ready_s)}{where}."


def _advice(result: Result, cold: WorkerColdStart | None) -> str:
    match result.status:
        case Status.SUCCEEDED:
            return _faster(result, cold)
        case Status.EXPIRED:
            return f"give it a longer `ttl_s`, or more workers: `headrace scale {result.model} max=...`"
        case Status.CANCELED:
            return ""
        case Status.FAILED:
            return _mend(result, result.error)


def _faster(result: Result, cold: WorkerColdStart | None) -> str:
    times = result.timings
    waited_s = times.queued_s + times.load_s
    if waited_s < WORTH_CHANGING_S or waited_s < times.fetch_s + times.run_s + times.store_s:
        return ""
    if cold is not None or times.load_s > times.queued_s:
        return f"`headrace scale {result.model} min=1` keeps a worker ready, at its price"
    return f"it mostly waited for its turn: `headrace scale {result.model} max=...` allows more workers"


def _mend(result: Result, error: ResultError | None) -> str:
    if error is None:
        return ""
    if error.code in _BURIED:
        return f"`headrace dead show {result.id}` has the message and why; `headrace dead redrive` runs it again"
    if error.fault is Fault.INPUT:
        return f"`headrace models show {result.model}` says what it takes"
    return "submit it again" if error.retryable else f"the log of worker {result.worker} has more"
