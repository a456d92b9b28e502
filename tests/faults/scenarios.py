"""The scenarios: some seconds of one fault each, with a setting of its own. Tests play them as they are, and broken."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kill_points import PLACES
from stage import LEASE_S, MODEL, Setting, Stage

from headrace_contracts.names import Lane
from headrace_loadgen.nemesis.faults import Proof
from headrace_loadgen.nemesis.processes import send, until_state
from headrace_loadgen.orders import Order
from headrace_loadgen.records import FaultKind
from headrace_storage.topology import StorageLimits


@dataclass(frozen=True)
class Scenario:
    """What happens, on what stage."""

    play: Callable[[Stage], Awaitable[None]]
    setting: Setting
    deadline_s: float = 60.0


async def kill_everywhere(stage: Stage) -> None:
    """A worker is killed before and after every step of a job."""
    with contextlib.suppress(TimeoutError):  # a broken worker may lose a job before it reaches its place
        async with asyncio.timeout(stage.patience_s):
            for place in PLACES:
                # One after the other: killed for another job, a worker may have passed this one's place unseen.
                await stage.submit_all([stage.order(job_id=f"kill-{place}", output_bytes=1000)])
                await stage.until(lambda place=place: (stage.bed.folder / f"killed-{place}").exists())


async def freeze_past_the_lease(stage: Stage) -> None:
    """The worker of a job is frozen until another one runs it too; both finish, and one of them has to yield."""
    order = await stage.submit(behaviour="ignores_cancel", steps=8, step_s=0.5, output_bytes=1000)
    stage.aim_at(await stage.until_running(order))
    await stage.inject(FaultKind.WORKER_STOP)
    await stage.until(lambda: _starts(stage, order) > 1)
    await stage.until_ended(order)


async def zombie_gives_back(stage: Stage) -> None:
    """A worker that was frozen past its lease is told to stop: it must not give back what another one runs by now."""
    order = await stage.submit(steps=30, step_s=0.2)
    zombie = await stage.until_running(order)
    stage.aim_at(zombie)
    await stage.inject(FaultKind.WORKER_STOP)
    await stage.until(lambda: _starts(stage, order) > 1)
    await stage.inject(FaultKind.WORKER_TERM)
    await stage.until_ended(order)


async def step_longer_than_the_lease(stage: Stage) -> None:
    """Nothing is broken: one step just takes longer than a lease."""
    order = await stage.submit(step_s=2.5 * LEASE_S)
    await stage.until_ended(order)


async def store_is_away(stage: Stage) -> None:
    """Nobody gets through to the store while jobs finish; then it is there again."""
    wire = stage.bed.store_wire
    wire.refusing = True
    wire.reset()
    began_s = stage.clock.monotonic()
    orders = [await stage.submit(output_bytes=1000) for _ in range(4)]
    await stage.until(lambda: wire.refused > 4)
    await stage.until(lambda: any(b"excused" in a or b"failures" in a for a in _attempts(stage)))
    wire.heal()
    _noted(stage, FaultKind.STORE_OUTAGE, began_s, wire.refused)
    await stage.until_ended(*orders)


async def cancel_before_anybody_runs_it(stage: Stage) -> None:
    """A job is canceled while no worker is there; then one comes."""
    order = await stage.submit()
    await stage.clients.cancel(order)
    other = await stage.submit()
    await stage.until(lambda: order.job_id in stage.recorder.ended)
    await asyncio.sleep(0.6)  # longer than the checker's slack, so that a start counts
    await stage.start_workers()
    await stage.until_ended(order, other)


async def expire_before_anybody_runs_it(stage: Stage) -> None:
    """A job waits for longer than it wants to while no worker is there; then one comes."""
    order = await stage.submit(ttl_s=0.5)
    await asyncio.sleep(1.5)  # its time, and the checker's slack
    await stage.start_workers()
    await stage.until_ended(order)


async def queue_is_full(stage: Stage) -> None:
    """More jobs than the queue takes, and nobody who runs them; then somebody does."""
    orders = [stage.order() for _ in range(30)]
    sending = asyncio.create_task(stage.submit_all(orders))
    await stage.until(lambda: sending.done() or b"QueueFull" in _client_journal(stage))
    await stage.start_workers()
    await sending
    await stage.until_ended(*orders)


async def cancel_while_it_runs(stage: Stage) -> None:
    """Cancels race with ends."""
    rng = random.Random(5)
    orders = [stage.order(steps=2, step_s=0.01) for _ in range(CANCEL_RACES)]

    async def race(order: Order) -> None:
        await stage.clients.submit(order)
        await asyncio.sleep(rng.uniform(0, 0.06))
        await stage.clients.cancel(order)

    waiting = iter(orders)

    async def racer() -> None:
        for order in waiting:
            await race(order)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(racer())
    await stage.until_ended(*orders)


CANCEL_RACES = 1000


async def poison(stage: Stage) -> None:
    """One job kills every engine it gets, among innocents."""
    orders = [stage.order(step_s=0.01) for _ in range(24)]
    orders.insert(6, stage.order(behaviour="crash"))
    orders.insert(14, stage.order(behaviour="crash_once"))
    await stage.submit_all(orders)
    await stage.until_ended(*orders)


async def backlog_of_a_running_job(stage: Stage) -> None:
    """A client asks how much there is to do while all of it is held by workers."""
    order = await stage.submit(steps=6, step_s=0.5)
    await stage.until_running(order)
    watching = asyncio.create_task(stage.clients.watch_backlog(MODEL))
    await stage.until(lambda: _client_journal(stage).count(b"backlog_read") > 1)
    watching.cancel()
    await stage.until_ended(order)


async def outputs_that_are_none(stage: Stage) -> None:
    """The model computes no number, or no file."""
    orders = [await stage.submit(behaviour="nan"), await stage.submit(behaviour="empty", output_bytes=100)]
    await stage.until_ended(*orders)


async def many_with_files(stage: Stage) -> None:
    """Nothing is broken, and every job makes a file."""
    orders = [stage.order(output_bytes=10_000, seed=n, lane=Lane.HIGH if n % 3 else Lane.LOW) for n in range(40)]
    await stage.submit_all(orders)
    await stage.until_ended(*orders)


async def drain_under_load(stage: Stage) -> None:
    """Workers are told to stop, one after the other, while there is more to do than they can finish."""
    orders = [stage.order(steps=5, step_s=0.05, output_bytes=100) for _ in range(60)]
    sending = asyncio.create_task(stage.submit_all(orders))
    for worker in stage.workers:
        await stage.until(lambda worker=worker: worker.engines())
        await stage.until(lambda: stage.entries())
        stage.aim_at(worker)
        await stage.inject(FaultKind.WORKER_TERM)
        await stage.until(lambda worker=worker: worker.up.is_set())
        await stage.bed.until_ready()
    await sending
    await stage.until_ended(*orders)


async def engine_is_killed(stage: Stage) -> None:
    """The engine of a running job is killed."""
    order = await stage.submit(steps=4, step_s=0.3)
    stage.aim_at(await stage.until_running(order))
    await stage.inject(FaultKind.ENGINE_KILL)
    await stage.until_ended(order)


async def engine_is_frozen(stage: Stage) -> None:
    """The engine of a running job makes no step any more, and holds its interpreter."""
    order = await stage.submit(steps=3, step_s=0.3)
    worker = await stage.until_running(order)
    [engine] = worker.engines()
    began_s = stage.clock.monotonic()
    send(engine, 19)
    assert await until_state(engine, "T") == "T"
    await stage.until(lambda: engine not in worker.engines())
    _noted(stage, FaultKind.ENGINE_STOP, began_s, 1, (engine,))
    await stage.until_ended(order)


async def during_load(stage: Stage, *kinds: FaultKind) -> None:
    """Faults one after the other while jobs come in."""
    over = asyncio.Event()
    sent: list[Order] = []

    async def flow() -> None:
        while not over.is_set():
            orders = [stage.order(step_s=0.01, output_bytes=500 * (n % 2), seed=n) for n in range(10)]
            sent.extend(orders)
            await stage.clients.send(orders)
            await asyncio.sleep(0.2)

    flowing = asyncio.create_task(flow())
    await stage.until(stage.entries)
    for kind in kinds:
        await stage.inject(kind)
    over.set()
    await flowing
    await stage.until_ended(*sent)


async def broker_is_killed(stage: Stage) -> None:
    await during_load(stage, FaultKind.BROKER_KILL, FaultKind.BROKER_KILL)


async def broker_is_frozen(stage: Stage) -> None:
    await during_load(stage, FaultKind.BROKER_STOP)


async def leader_is_killed(stage: Stage) -> None:
    await during_load(stage, FaultKind.LEADER_KILL)


async def wires_break(stage: Stage) -> None:
    await during_load(stage, FaultKind.LINK_RESET, FaultKind.LINK_SILENT, FaultKind.LINK_RESET, FaultKind.LINK_SLOW)


async def store_misbehaves(stage: Stage) -> None:
    await during_load(stage, FaultKind.STORE_ERRORS, FaultKind.STORE_LOST_ANSWERS, FaultKind.STORE_KILL)


def _starts(stage: Stage, order: Order) -> int:
    return sum(entry.echo == order.job_id and entry.moment == "start" for entry in stage.entries())


def _client_journal(stage: Stage) -> bytes:
    return (stage.bed.folder / "client.jsonl").read_bytes()


def _attempts(stage: Stage) -> list[bytes]:
    from headrace_loadgen.journal import read_journal
    from headrace_loadgen.records import AttemptsSeen

    return [seen.data for seen in read_journal(stage.bed.folder / "attempts-as-they-came.jsonl", AttemptsSeen)]


def _noted(stage: Stage, kind: FaultKind, began_s: float, met: int, pids: tuple[int, ...] = ()) -> None:
    """Write down a fault that a scenario did by itself."""
    stage.injector.note(kind, began_s, Proof("by hand", met > 0, f"met {met} times", pids))


SCENARIOS: dict[str, Scenario] = {
    "kill everywhere": Scenario(kill_everywhere, Setting(workers=3, max_attempts=30, broken=("kill_points",))),
    "freeze past the lease": Scenario(freeze_past_the_lease, Setting()),
    "zombie gives back": Scenario(zombie_gives_back, Setting(workers=3, grace_s=0.2)),
    "step longer than the lease": Scenario(step_longer_than_the_lease, Setting()),
    "store is away": Scenario(store_is_away, Setting(broken=("short_outages",))),
    "cancel before anybody runs it": Scenario(
        cancel_before_anybody_runs_it, Setting(come_later=True, broken=("no_reaper",))
    ),
    "expire before anybody runs it": Scenario(
        expire_before_anybody_runs_it, Setting(come_later=True, broken=("no_reaper",))
    ),
    "queue is full": Scenario(queue_is_full, Setting(come_later=True, limits=StorageLimits(jobs_per_subject=10))),
    "cancel while it runs": Scenario(cancel_while_it_runs, Setting(batch=8)),
    "poison": Scenario(poison, Setting(batch=8, isolated=False)),
    "backlog of a running job": Scenario(backlog_of_a_running_job, Setting(workers=1)),
    "outputs that are none": Scenario(outputs_that_are_none, Setting(workers=1)),
    "many with files": Scenario(many_with_files, Setting(batch=4)),
    "drain under load": Scenario(drain_under_load, Setting(grace_s=0.5)),
    "engine is killed": Scenario(engine_is_killed, Setting(workers=1)),
    "engine is frozen": Scenario(engine_is_frozen, Setting(workers=1, step_s=1.0)),
    "broker is killed": Scenario(broker_is_killed, Setting(batch=4)),
    "broker is frozen": Scenario(broker_is_frozen, Setting(batch=4)),
    "leader is killed": Scenario(leader_is_killed, Setting(brokers=3, batch=4)),
    "wires break": Scenario(wires_break, Setting(batch=4)),
    "store misbehaves": Scenario(store_misbehaves, Setting(batch=4)),
}
