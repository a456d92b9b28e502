"""A month of a load under some settings, from simulations of its stretches: workers, waits, seconds and money."""

import math

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_contracts.scaling import Scaling
from headrace_scaler.plan.stretches import Stretch, stretches_of
from headrace_scaler.plan.workload import Batch, Workload
from headrace_scaler.policy.observation import Need, Slot
from headrace_scaler.simulation.run import simulate
from headrace_scaler.simulation.scene import SimulatedModel
from headrace_scaler.simulation.trace import Trace

MODEL = "plan"
SEED = 7
# The scaler decides once a second. Where waits are long, fewer decisions give the same, sooner.
SHORTEST_TICK_S, LONGEST_TICK_S = 1.0, 10.0
# For the last jobs of a day to end in: else their seconds would be missing.
TAIL_SERVICES, TAIL_STARTS = 50.0, 5.0


class Forecast(msgspec.Struct, frozen=True):
    """A month of 30 days."""

    scaling: Scaling
    jobs: float
    busy_s: float
    """Seconds in which workers have at least one job."""
    worker_s: float
    """Seconds of workers, cold starts and idling included: what is paid for."""
    mean_workers: float
    most_workers: int
    p50_wait_s: float
    p95_wait_s: float
    p95_total_s: float
    """From a job's arrival to its end."""
    unfinished: int
    """Jobs of the simulated days that never ended."""
    price_per_s: float
    asked_p95_wait_s: float

    @property
    def utilization(self) -> float:
        """Share of the workers' seconds in which they have a job."""
        return min(1.0, self.busy_s / self.worker_s) if self.worker_s > 0 else 0.0

    @property
    def cost(self) -> float:
        """Money a month."""
        return self.worker_s * self.price_per_s

    @property
    def cost_per_job(self) -> float:
        """Money a job, idling and cold starts included."""
        return self.cost / self.jobs

    @property
    def holds(self) -> bool:
        """Whether the load is served as it was asked for."""
        return self.p95_wait_s <= self.asked_p95_wait_s and not self.unfinished


def forecast(workload: Workload, price_per_s: float, seed: int = SEED) -> Forecast:
    """Simulate a load.

    A stretch begins without any worker. Of a load that never pauses, each simulated day so has a cold start that a real
    one has not, and lacks the end of the day before.
    """
    stretches = stretches_of(workload, MODEL, seed)
    traces = [(stretch, _simulate(workload, stretch, seed)) for stretch in stretches]
    worker_s = sum(_worker_s(trace, stretch) * stretch.times_a_month for stretch, trace in traces)
    month_s = sum(stretch.length_s * stretch.times_a_month for stretch in stretches)
    jobs = [(job, stretch.times_a_month) for stretch, trace in traces for job in trace.jobs]
    waits = sorted((job.wait_s, times) for job, times in jobs)
    totals = sorted((math.inf if job.ended is None else job.ended - job.arrived, times) for job, times in jobs)
    return Forecast(
        scaling=workload.scaling,
        jobs=sum(stretch.jobs * stretch.times_a_month for stretch in stretches),
        busy_s=sum(trace.busy_s() * stretch.times_a_month for stretch, trace in traces),
        worker_s=worker_s,
        mean_workers=worker_s / month_s,
        most_workers=max(trace.most_workers() for _, trace in traces),
        p50_wait_s=_quantile(waits, 0.5),
        p95_wait_s=_quantile(waits, 0.95),
        p95_total_s=_quantile(totals, 0.95),
        unfinished=sum(job.ended is None for job, _ in jobs),
        price_per_s=price_per_s,
        asked_p95_wait_s=workload.p95_wait_s,
    )


def _simulate(workload: Workload, stretch: Stretch, seed: int) -> Trace:
    model = SimulatedModel(
        MODEL,
        workload.scaling,
        need=Need(SlotKind.CPU, 1),
        jobs_per_worker=workload.jobs_per_worker,
        cold_start_s=workload.cold_start_s,
        service_s=workload.service_s,
        service_spread=workload.service_spread,
        load_timeout_s=max(300.0, 10 * workload.cold_start_s),
    )
    # One place for each worker that may be: what is planned is the number of places.
    most = max(workload.scaling.max_workers, *(window.max_workers or 0 for window in workload.scaling.schedule), 1)
    slot = Slot("plan", SlotKind.CPU, most, most)
    # A batch has its own days to end in.
    tail_s = TAIL_SERVICES * workload.service_s + TAIL_STARTS * workload.cold_start_s
    until = stretch.length_s + (0.0 if isinstance(workload.arrivals, Batch) or not stretch.jobs else tail_s)
    tick_s = min(LONGEST_TICK_S, max(SHORTEST_TICK_S, workload.p95_wait_s / 10))
    return simulate((model,), (slot,), stretch.arrivals, seed=seed, until=until, tick_s=tick_s, start=stretch.start)


def _worker_s(trace: Trace, stretch: Stretch) -> float:
    """Seconds of workers within the stretch; those that outlive it belong to the next one."""
    return sum(worker.uptime_s(stretch.length_s) for worker in trace.workers if worker.ordered < stretch.length_s)


def _quantile(ordered: list[tuple[float, float]], share: float) -> float:
    """The smallest value that this share of the weight does not exceed; 0 of none."""
    left = share * sum(weight for _, weight in ordered)
    for value, weight in ordered:
        left -= weight
        if left <= 1e-9:
            return value
    return 0.0
