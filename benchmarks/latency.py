"""One job at a time to an idle warm worker: when each thing happened, by the clock all processes of a machine share."""

import asyncio
from time import perf_counter

import msgspec

from benchmarks.rig import Options, Rig
from headrace_contracts.clock import Clock
from headrace_contracts.tasks.synthetic import SyntheticInput, SyntheticOutput

# Between a result and the next job, in seconds, drawn anew each time so that no timer of worker or broker keeps step.
# Long enough for a worker to acknowledge, look through its lanes and wait again: else it would not be idle.
GAP_S = (0.015, 0.04)


class Samples(msgspec.Struct):
    """Seconds, one per job, in the order of the jobs."""

    receipt_s: list[float] = []
    """Publish until the broker's receipt."""
    start_s: list[float] = []
    """Submit until the engine began: the overhead of the queue."""
    result_s: list[float] = []
    """Submit until the client has the stored result."""
    stored_s: list[float] = []
    """Of `start_s`: submit until the broker had stored the job ..."""
    taken_s: list[float] = []
    """... until a worker took it ..."""
    begun_s: list[float] = []
    """... until the engine began."""


async def measure_latency(rig: Rig, model: str, jobs: int, into: Samples, options: Options, clock: Clock) -> None:
    """Submit `jobs` no-ops one after the other, waiting for each."""
    for _ in range(jobs):
        await asyncio.sleep(options.rng.uniform(*GAP_S))
        submitted_at = clock.now().timestamp()
        began = perf_counter()
        job = await rig.submit(model, SyntheticInput())
        receipt_s = perf_counter() - began
        result = await rig.result(job)
        ended_at = clock.now().timestamp()
        began_at = msgspec.json.decode(result.output, type=SyntheticOutput).engine_started_at
        stored_at = result.created_at.timestamp()
        taken_at = stored_at + result.timings.queued_s
        into.receipt_s.append(_to_us(receipt_s))
        into.start_s.append(_to_us(began_at - submitted_at))
        into.result_s.append(_to_us(ended_at - submitted_at))
        into.stored_s.append(_to_us(stored_at - submitted_at))
        into.taken_s.append(_to_us(taken_at - stored_at))
        into.begun_s.append(_to_us(began_at - taken_at))


def _to_us(seconds: float) -> float:
    """To the microsecond: more would be noise, and it keeps the file of raw numbers small."""
    return round(seconds, 6)
