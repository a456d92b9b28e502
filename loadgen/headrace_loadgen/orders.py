"""What clients will ask for: a seeded mix of jobs, most of them small and innocent. Pure."""

import random
from collections.abc import Iterator

import msgspec

from headrace_contracts.model import Batching, EngineKind, ModelSpec, Retry, Timeouts
from headrace_contracts.names import Lane
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput

KIB, MIB = 1 << 10, 1 << 20


class Order(msgspec.Struct, frozen=True):
    """One job and what its client does with it afterwards."""

    job_id: str
    model: str
    lane: Lane
    asked: SyntheticInput | None
    """None: bytes that are no job."""
    ttl_s: float | None = None
    cancel_after_s: float | None = None
    again_after_s: float | None = None
    """Submit the same once more."""
    other_after_s: float | None = None
    """Submit another job under the same id."""
    reads: bool = False
    """Wait for the result as a client does."""


class Mix(msgspec.Struct, frozen=True):
    """The models of a run and the shares of what is asked of them."""

    steady: ModelSpec
    """Its jobs kill no engine."""
    mixed: ModelSpec
    """Anything goes."""
    mixed_share: float = 0.06


# Shares of what the steady model is asked for.
_STEADY = {Behaviour.OK: 0.955, Behaviour.ERROR: 0.015, Behaviour.NAN: 0.015, Behaviour.EMPTY: 0.015}
_MIXED = {
    Behaviour.OK: 0.60,
    Behaviour.CRASH_ONCE: 0.08,
    Behaviour.CRASH: 0.05,
    Behaviour.OUT_OF_MEMORY: 0.05,
    Behaviour.STICKY: 0.04,
    Behaviour.HANG: 0.03,
    Behaviour.MEMORY_HOG: 0.05,
    Behaviour.LEAK: 0.04,
    Behaviour.IGNORES_CANCEL: 0.04,
    Behaviour.HUGE_OUTPUT: 0.02,
}


def mix_of(journal: str, max_attempts: int = 3) -> Mix:
    """Two models of the synthetic engine that write to `journal`; quick to give up on an engine that hangs."""
    spec = ModelSpec(
        "steady",
        Task.SYNTHETIC,
        EngineKind.SYNTHETIC,
        options={"journal": journal},
        retry=Retry(max_attempts, base_delay_s=0.05, max_delay_s=0.5),
        timeouts=Timeouts(run_s=30, step_s=3),
        batching=Batching(max_size=8),
    )
    return Mix(spec, msgspec.structs.replace(spec, name="mixed", batching=Batching(max_size=4)))


def orders(mix: Mix, rng: random.Random, count: int, prefix: str) -> Iterator[Order]:
    """`count` orders; the same seed asks for the same."""
    for number in range(count):
        job_id = f"{prefix}-{number}"
        lane = rng.choices(list(Lane), [1, 8, 1])[0]
        if rng.random() < 0.004:
            yield Order(job_id, mix.steady.name, lane, None)
            continue
        mixed = rng.random() < mix.mixed_share
        asked = _input(_draw(rng, _MIXED if mixed else _STEADY), rng, job_id)
        yield _with_habits(Order(job_id, (mix.mixed if mixed else mix.steady).name, lane, asked), rng)


def _with_habits(order: Order, rng: random.Random) -> Order:
    """Some clients cancel, repeat themselves, or do not wait for ever."""
    habit, later_s = rng.random(), rng.uniform(0, 2)
    if habit < 0.03:
        # Most while it waits or runs, which is not long.
        return msgspec.structs.replace(order, cancel_after_s=rng.choice([0.0, 0.02, 0.1, later_s]))
    if habit < 0.05:
        return msgspec.structs.replace(order, again_after_s=later_s)
    if habit < 0.055:
        return msgspec.structs.replace(order, other_after_s=later_s)
    if habit < 0.07:
        return msgspec.structs.replace(order, ttl_s=rng.uniform(1, 6))
    return msgspec.structs.replace(order, reads=habit < 0.12)


def _input(behaviour: Behaviour, rng: random.Random, echo: str) -> SyntheticInput:
    seed = rng.getrandbits(32)
    match behaviour:
        case Behaviour.HUGE_OUTPUT:
            return SyntheticInput(behaviour, output_bytes=rng.randrange(4 * MIB, 24 * MIB), seed=seed, echo=echo)
        case Behaviour.MEMORY_HOG | Behaviour.LEAK:
            return SyntheticInput(behaviour, memory_bytes=rng.randrange(4 * MIB, 64 * MIB) // 8, seed=seed, echo=echo)
        case Behaviour.IGNORES_CANCEL:
            return SyntheticInput(behaviour, steps=4, step_s=rng.uniform(0, 0.2), seed=seed, echo=echo)
        case Behaviour.EMPTY:
            return SyntheticInput(behaviour, output_bytes=KIB, seed=seed, echo=echo)
        case _:
            return SyntheticInput(
                behaviour,
                steps=rng.choice([1, 1, 1, 2, 5]),
                step_s=rng.choice([0.0, 0.0, 0.002, 0.01, 0.05]),
                output_bytes=rng.randrange(1, 64 * KIB) if rng.random() < 0.2 else 0,
                seed=seed,
                echo=echo,
            )


def _draw(rng: random.Random, shares: dict[Behaviour, float]) -> Behaviour:
    return rng.choices(list(shares), list(shares.values()))[0]
