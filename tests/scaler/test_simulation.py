"""The policy over time: traffic that scalers go wrong on, with bounds on what may happen."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_contracts.cost import SlotKind
from headrace_contracts.scaling import Scaling
from headrace_scaler.policy.observation import Need, Slot
from headrace_scaler.simulation.run import simulate
from headrace_scaler.simulation.scenarios import CORES, Scenario, scenarios
from headrace_scaler.simulation.scene import Interval, SimulatedModel
from headrace_scaler.simulation.trace import JobRecord, Trace, WorkerRecord, quantile
from headrace_scaler.simulation.traffic import burst, daily, merged, poisson, trickle

ALL = {scenario.name: scenario for scenario in scenarios()}


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    return {name: scenario.run() for name, scenario in ALL.items()}


def check_promises(trace: Trace, models: tuple[SimulatedModel, ...], slots: tuple[Slot, ...]) -> None:
    """What must hold in every run."""
    assert all(not worker.stopped_busy for worker in trace.workers)
    assert trace.refused == 0
    for slot in slots:
        assert most_of_slot(trace, models, slot) <= slot.size
    for model in models:
        assert trace.most_workers(model.name) <= model.scaling.max_workers
        check_pace(trace, model)


def most_of_slot(trace: Trace, models: tuple[SimulatedModel, ...], slot: Slot) -> int:
    """Most of a slot that was taken at any moment."""
    needs = {model.name: slot.size if model.need.size <= 0 else model.need.size for model in models}
    steps = [(worker.ordered, needs[worker.model]) for worker in trace.workers if worker.slot == slot.id]
    steps += [
        (worker.ended, -needs[worker.model])
        for worker in trace.workers
        if worker.slot == slot.id and worker.ended is not None
    ]
    taken = most = 0
    for _, step in sorted(steps):
        taken += step
        most = max(most, taken)
    return most


def check_pace(trace: Trace, model: SimulatedModel) -> None:
    """A drain comes `cooldown_s` after the start or drain before it: at most one swing up and down in that time."""
    changes = [
        (decision.at, bool(decision.decision.drain))
        for decision in trace.decisions
        if decision.decision.model == model.name and (decision.decision.start or decision.decision.drain)
    ]
    for (before, _), (at, drains) in pairwise(changes):
        assert not drains or at - before >= model.scaling.cooldown_s


def check_all_is_done(trace: Trace) -> None:
    assert all(job.ended is not None for job in trace.jobs)
    assert all(worker.ended is not None for worker in trace.workers)


def starts(trace: Trace, model: str) -> list[float]:
    return [worker.ordered for worker in trace.workers if worker.model == model]


@pytest.mark.parametrize("name", ALL)
def test_every_job_is_served_no_busy_worker_stopped_and_all_go_to_zero(traces, name):
    scenario: Scenario = ALL[name]
    check_promises(traces[name], scenario.models, scenario.slots)
    check_all_is_done(traces[name])


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("crash-loop", "one-gpu")])
def test_the_first_job_waits_for_one_cold_start_and_nothing_else(traces, name):
    """Its worker is ordered when it arrives, not at the next tick."""
    first = traces[name].workers[0]
    job = min(traces[name].jobs, key=lambda job: job.arrived)
    assert first.ordered == job.arrived
    assert job.started == first.ready


def test_a_burst_is_over_as_soon_as_its_workers_can_do_it(traces):
    """List scheduling ends within the mean load and the longest job, after a tick and a cold start."""
    trace, model = traces["burst"], ALL["burst"].models[0]
    jobs = [job.ended - job.started for job in trace.jobs]
    arrived = trace.jobs[0].arrived
    bound = arrived + 1 + model.cold_start_s + sum(jobs) / model.scaling.max_workers + max(jobs)
    assert max(job.ended for job in trace.jobs) <= bound
    assert trace.most_workers() == model.scaling.max_workers


def test_after_a_burst_workers_leave_in_halves(traces):
    drains = [len(decision.decision.drain) for decision in traces["burst"].decisions if decision.decision.drain]
    assert drains == [3, 1, 1, 1] or drains[:2] == [2, 2]


def test_bursts_at_the_pace_of_the_cooldown_start_each_worker_once(traces):
    trace = traces["sawtooth"]
    assert len(trace.workers) == 6
    after_the_first = [job.wait_s for job in trace.jobs if job.arrived > 0]
    assert max(after_the_first) == 0


def test_a_trickle_just_under_the_service_rate_needs_two_at_most(traces):
    trace = traces["trickle"]
    assert trace.most_workers() <= 2
    assert len(trace.workers) <= 4
    assert trace.wait_s(0.95) <= ALL["trickle"].models[0].scaling.target_wait_s


def test_a_day_is_served_in_time_by_workers_that_are_mostly_busy(traces):
    trace, model = traces["diurnal"], ALL["diurnal"].models[0]
    assert trace.wait_s(0.95) <= model.scaling.target_wait_s
    always = model.scaling.max_workers * trace.until
    assert trace.worker_s() < always / 2
    # As docs/scaling.md has it.
    assert (round(trace.utilization(), 2), round(len(trace.jobs), -3)) == (0.62, 26_000)


def test_a_wait_that_is_aimed_at_saves_most_cold_starts():
    """By the number of jobs alone the crew follows every chance of the traffic."""
    arrivals = poisson("painter", lambda _: 0.6, 0.6, 7200, random.Random(3))
    started, busy = [], []
    for target_wait_s in (0.0, 60.0):
        scaling = Scaling(max_workers=16, target_wait_s=target_wait_s, target_utilization=0.8)
        model = SimulatedModel("painter", scaling, cold_start_s=20, service_s=10, service_spread=0.5)
        trace = simulate((model,), CORES, arrivals, seed=1, until=7200)
        assert trace.wait_s(0.95) < 60
        started.append(len(trace.workers))
        busy.append(round(trace.utilization(), 1))
    # As docs/scaling.md has it.
    assert started[1] * 3 < started[0]
    assert busy == [0.5, 0.7]


def test_a_crash_loop_is_tried_ever_more_seldom_and_mended_within_a_minute(traces):
    trace, model = traces["crash-loop"], ALL["crash-loop"].models[0]
    mended = model.crashes[0].end
    tried = [at for at in starts(trace, "painter") if 10 < at < mended]
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    # 4 failed at once, and one was tried after 1 s; then 2, 4 .. 60, after the 3 s that a start takes to fail.
    assert len(gaps) == 6
    assert all(wait <= gap - model.crash_s <= wait + 1 for gap, wait in zip(gaps, (2, 4, 8, 16, 32, 60), strict=True))
    after = min(at for at in starts(trace, "painter") if at >= mended)
    assert after - mended <= 60 + model.crash_s + 2
    assert trace.most_workers() == 4


def test_slow_workers_on_their_way_are_counted(traces):
    """2.5 workers' work; each takes 2 minutes to come, in which many would be started if none were counted."""
    trace = traces["slow-cold-start"]
    assert trace.most_workers() <= 4
    assert trace.wait_s(0.95) <= ALL["slow-cold-start"].models[0].scaling.target_wait_s


def test_two_models_share_a_gpu_and_change_places_once_a_cooldown(traces):
    trace, scenario = traces["one-gpu"], ALL["one-gpu"]
    assert trace.most_workers() == 1
    orders = [(worker.ordered, worker.model) for worker in trace.workers]
    assert {model for _, model in orders} == {"painter", "writer"}
    cooldown_s = scenario.models[0].scaling.cooldown_s
    assert all(later - earlier >= cooldown_s for (earlier, _), (later, _) in pairwise(orders))


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    scenario = ALL["burst"]
    first, same, other = (
        simulate(scenario.models, scenario.slots, scenario.arrivals, seed=seed, until=scenario.until)
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


def test_jobs_between_two_attempts_bring_a_worker_back():
    """It went to zero while they waited for their next attempt."""
    model = SimulatedModel(
        "painter", Scaling(idle_timeout_s=5, scale_down_delay_s=5, cooldown_s=5), retry_share=1.0, retry_after_s=60
    )
    trace = simulate((model,), CORES, burst("painter", 3, 5), seed=1, until=300)
    check_promises(trace, (model,), CORES)
    check_all_is_done(trace)


def test_workers_that_hang_at_their_start_are_ended_and_replaced():
    scaling = Scaling(max_workers=2, start_timeout_s=20)
    model = SimulatedModel("painter", scaling, hangs=(Interval(0, 100),))
    trace = simulate((model,), CORES, burst("painter", 3, 4), seed=1, until=400)
    check_promises(trace, (model,), CORES)
    check_all_is_done(trace)
    hung = [worker for worker in trace.workers if worker.ready is None]
    assert hung
    assert all(20 < worker.uptime_s(400) < 23 for worker in hung)


def test_a_new_entry_replaces_one_worker_after_the_other():
    model = SimulatedModel("painter", Scaling(min_workers=3, max_workers=3, cooldown_s=0), updates=(60.0,))
    trace = simulate((model,), CORES, trickle("painter", 4, 200), seed=1, until=200)
    check_promises(trace, (model,), CORES)
    old = [worker for worker in trace.workers if worker.ordered < 60]
    assert len(old) == 3
    ends = sorted(worker.ended for worker in old)
    # Each waits for the one in the place of the one before it to be ready.
    assert all(later - earlier >= model.cold_start_s for earlier, later in pairwise(ends))
    assert sum(worker.ended is None for worker in trace.workers) == 3


def test_a_model_that_starts_at_once_is_served_at_once():
    model = SimulatedModel("painter", Scaling(idle_timeout_s=1, cooldown_s=0, scale_down_delay_s=0), cold_start_s=0.0)
    trace = simulate((model,), CORES, trickle("painter", 30, 300), seed=1, until=300)
    assert trace.wait_s(1.0) == 0
    assert len(trace.workers) == 10


def test_an_idle_night_is_not_decided_second_by_second():
    model = SimulatedModel("painter", Scaling())
    trace = simulate((model,), CORES, burst("painter", 80_000, 1), seed=1, until=86_400)
    assert trace.decided < 500
    check_all_is_done(trace)


def test_one_worker_waits_as_queueing_theory_says():
    """Poisson arrivals, one server, constant service: the mean wait is r s / (2 (1 - r)) at a load of r."""
    load, service_s, until = 0.7, 1.0, 60_000
    arrivals = poisson("painter", lambda _: load / service_s, load / service_s, until, random.Random(5))
    model = SimulatedModel("painter", Scaling(min_workers=1, max_workers=1), cold_start_s=0, service_s=service_s)
    trace = simulate((model,), CORES, arrivals, seed=1, until=until, tick_s=60)
    waits = [job.wait_s for job in trace.jobs if job.started is not None]
    assert sum(waits) / len(waits) == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.05)
    assert trace.utilization() == pytest.approx(load, rel=0.02)


@given(st.lists(st.floats(0, 200), max_size=40), st.sampled_from([0.0, 2.0, 30.0]), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_with_room_enough_a_job_waits_for_a_cold_start_and_no_queue(times, cold_start_s, seed):
    """There are as many workers as jobs a tick after it came, all of them ready a cold start later. One more tick and
    a heartbeat pass if one of them was told to drain in the second before."""
    scaling = Scaling(max_workers=64, scale_down_delay_s=0, idle_timeout_s=0, cooldown_s=0)
    model = SimulatedModel("painter", scaling, cold_start_s=cold_start_s, service_s=8, service_spread=0.8)
    arrivals = merged(*(burst("painter", at, 1) for at in times))
    cores = (Slot("cpu", SlotKind.CPU, 64, 64),)
    trace = simulate((model,), cores, arrivals, seed=seed, until=2000)
    assert all(job.wait_s <= cold_start_s + 2 + model.heartbeat_lag_s for job in trace.jobs)
    check_all_is_done(trace)


def test_numbers_of_a_trace():
    jobs = tuple(JobRecord("a", at, at + wait, at + 10) for at, wait in ((0.0, 1.0), (1.0, 3.0), (2.0, 2.0)))
    workers = (
        WorkerRecord("w0", "a", "cpu", 0.0, 1.0, 11.0, 5.0, 8.0, 2, 0),
        WorkerRecord("w1", "a", "cpu", 5.0, 8.0, None, 4.0, 4.0, 1, 0),
    )
    trace = Trace(20.0, jobs, workers, (), (), 0, 1)
    assert (trace.wait_s(0.5), trace.wait_s(0.95), trace.wait_s(0.95, "b")) == (2.0, 3.0, 0.0)
    assert (trace.worker_s(), trace.busy_s(), trace.most_workers()) == (26.0, 9.0, 2)
    assert trace.utilization() == pytest.approx(9 / 26)
    assert quantile([1.0], 0.0) == 1.0


def test_a_day_of_traffic_is_as_dense_as_it_was_asked_for():
    arrivals = poisson("a", daily(0.5, 0.9), 1.0, 86_400, random.Random(3))
    assert len(arrivals) == pytest.approx(43_200, rel=0.05)
    noon = sum(36_000 <= arrival.at < 50_400 for arrival in arrivals)
    assert noon > 3 * sum(arrival.at < 7_200 or arrival.at >= 79_200 for arrival in arrivals)
    assert merged(arrivals[5:], arrivals[:5]) == arrivals


@st.composite
def scenes(draw):
    models = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        scaling = Scaling(
            max_workers=draw(st.integers(1, 5)),
            buffer_workers=draw(st.integers(0, 1)),
            target_wait_s=draw(st.sampled_from([0.0, 10.0])),
            target_utilization=draw(st.sampled_from([0.7, 1.0])),
            scale_up_window_s=draw(st.sampled_from([0.0, 5.0])),
            scale_down_delay_s=draw(st.sampled_from([0.0, 20.0])),
            scale_down_step=draw(st.integers(0, 2)),
            idle_timeout_s=draw(st.sampled_from([0.0, 15.0])),
            cooldown_s=draw(st.sampled_from([1.0, 10.0])),
            priority=draw(st.integers(0, 1)),
            start_timeout_s=30.0,
        )
        models.append(
            SimulatedModel(
                name,
                scaling,
                need=Need(SlotKind.GPU, draw(st.sampled_from([0, 8, 16]))),
                jobs_per_worker=draw(st.integers(1, 4)),
                cold_start_s=draw(st.sampled_from([0.0, 3.0, 15.0])),
                cold_start_spread=0.3,
                service_s=draw(st.sampled_from([0.1, 2.0, 9.0])),
                service_spread=0.5,
                crashes=draw(st.sampled_from([(), (Interval(0, 40),)])),
                hangs=draw(st.sampled_from([(), (Interval(20, 50),)])),
                updates=draw(st.sampled_from([(), (45.0,)])),
                retry_share=draw(st.sampled_from([0.0, 0.3])),
            )
        )
    times = st.lists(st.floats(0, 120), max_size=25)
    arrivals = merged(*(burst(model.name, at, 1) for model in models for at in draw(times)))
    return tuple(models), arrivals


@given(scenes(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_is_served_within_the_bounds(scene, seed):
    models, arrivals = scene
    slots = (Slot("gpu:0", SlotKind.GPU, 24, 24), Slot("gpu:1", SlotKind.GPU, 16, 16))
    trace = simulate(models, slots, arrivals, seed=seed, until=2000)
    check_promises(trace, models, slots)
    check_all_is_done(trace)
