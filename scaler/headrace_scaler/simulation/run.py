"""One simulation from beginning to end: `simulate`."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from headrace_contracts.heartbeat import WorkerPhase
from headrace_scaler.policy.decide import decide
from headrace_scaler.policy.decision import ModelDecision
from headrace_scaler.policy.observation import ModelView, Slot
from headrace_scaler.policy.state import State
from headrace_scaler.simulation.scene import Arrival, SimulatedModel
from headrace_scaler.simulation.trace import Decision, Sample, Trace
from headrace_scaler.simulation.world import World

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
"""Midnight of a Monday: where virtual time starts unless told otherwise."""


def simulate(
    models: tuple[SimulatedModel, ...],
    slots: tuple[Slot, ...],
    arrivals: Sequence[Arrival],
    *,
    seed: int,
    until: float,
    tick_s: float = 1.0,
    start: datetime = MONDAY,
) -> Trace:
    """Run the policy on made-up work.

    Args:
        models: with their scaling settings and the behaviour of their workers.
        slots: where workers can run, all of it free.
        arrivals: jobs in the order of time, of these models only.
        seed: of service times, cold starts and failures; the same seed gives the same trace.
        until: end, in seconds from 0.
        tick_s: time between two decisions; 1 as in the scaler, more for long plans.
        start: date at 0, aware, for schedules.

    Returns:
        Everything that happened. Jobs and workers that are not at their end have no end.
    """
    return _Simulation(models, slots, arrivals, random.Random(seed), until, tick_s, start).trace()  # noqa: S311 - nothing secret


class _Simulation:
    def __init__(
        self,
        models: tuple[SimulatedModel, ...],
        slots: tuple[Slot, ...],
        arrivals: Sequence[Arrival],
        generator: random.Random,
        until: float,
        tick_s: float,
        start: datetime,
    ) -> None:
        self._world = World(models, slots, generator)
        self._arrivals = arrivals
        self._until = until
        self._tick_s = tick_s
        self._start = start
        self._state = State()
        self._samples: dict[str, list[Sample]] = {model.name: [] for model in models}
        self._decisions: list[Decision] = []
        self._said: dict[str, ModelDecision] = {}
        self._decided = 0

    def trace(self) -> Trace:
        world, next_tick, index = self._world, 0.0, 0
        while next_tick <= self._until or self._arrives(index) <= self._until:
            if self._arrives(index) <= next_tick:
                world.advance(self._arrivals[index].at)
                if world.arrive(self._arrivals[index].model):
                    self._decide()
                index += 1
                continue
            world.advance(next_tick)
            self._decide()
            next_tick = self._tick_after(next_tick, self._arrives(index))
        world.advance(self._until)
        return Trace(
            until=self._until,
            jobs=world.job_records(),
            workers=tuple(worker.record(self._until) for worker in world.workers()),
            samples=tuple(sample for samples in self._samples.values() for sample in samples),
            decisions=tuple(self._decisions),
            refused=world.refused,
            decided=self._decided,
        )

    def _arrives(self, index: int) -> float:
        at = self._arrivals[index].at if index < len(self._arrivals) else math.inf
        return at if at <= self._until else math.inf

    def _tick_after(self, tick: float, arrival: float) -> float:
        """The next one; while nothing can change, the last one before the next job arrives."""
        following = tick + self._tick_s
        if not self._world.quiet():
            return following
        last = min(arrival, self._until)
        return max(following, tick + math.floor((last - tick) / self._tick_s) * self._tick_s)

    def _decide(self) -> None:
        now = self._world.now
        observation = self._world.observe()
        decided = decide(observation, self._state, now, self._start + timedelta(seconds=now))
        self._state = decided.state
        self._decided += 1
        for view, decision in zip(observation.models, decided.models, strict=True):
            self._keep(view, decision)
        # Drains before starts: what one model leaves is free for another only when it is gone.
        for decision in decided.models:
            self._world.carry_out(decision)

    def _keep(self, view: ModelView, decision: ModelDecision) -> None:
        now = self._world.now
        counts = dict.fromkeys(WorkerPhase, 0)
        for worker in view.workers:
            counts[worker.phase] += 1
        sample = Sample(
            now, view.name, view.waiting, view.held, counts[WorkerPhase.STARTING], counts[WorkerPhase.IDLE],
            counts[WorkerPhase.BUSY], counts[WorkerPhase.DRAINING], decision.target,
        )  # fmt: skip
        samples = self._samples[view.name]
        if not samples or _but_time(samples[-1]) != _but_time(sample):
            samples.append(sample)
        before = self._said.get(view.name)
        acted = decision.start or decision.drain or decision.stop
        if acted or before is None or (before.target, before.blocked) != (decision.target, decision.blocked):
            self._decisions.append(Decision(now, decision))
        self._said[view.name] = decision


def _but_time(sample: Sample) -> tuple[int, ...]:
    return (
        sample.waiting, sample.held, sample.starting, sample.idle, sample.busy, sample.draining, sample.target,
    )  # fmt: skip
