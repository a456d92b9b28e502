"""A chaos run: load and faults on a real system, then peace, then judgement."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headrace import Client
from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Stream
from headrace_loadgen import evidence
from headrace_loadgen.check import Verdict, check
from headrace_loadgen.clients import Clients
from headrace_loadgen.collector import collect
from headrace_loadgen.evidence import Evidence, load_evidence
from headrace_loadgen.journal import Journal
from headrace_loadgen.nemesis import Injector, Nemesis
from headrace_loadgen.observers import ResultsRecorder, overhear_attempts, sample_workers
from headrace_loadgen.orders import mix_of, orders
from headrace_loadgen.records import Fault, Plan
from headrace_loadgen.streams import stream_state
from headrace_loadgen.system.s3_server import S3Kind
from headrace_loadgen.system.testbed import Layout, Testbed
from headrace_storage.topology import StorageLimits
from headrace_workers.outcome import OUTAGE_DELAY_S

HABITS_DEADLINE_S = 30.0
LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Options:
    """One run."""

    seed: int
    minutes: float
    jobs: int
    workers: int
    brokers: int
    store: S3Kind
    lease_s: float
    folder: Path

    @property
    def drain_deadline_s(self) -> float:
        """Generous: it tells a job that hangs from one that is late."""
        return 120.0 + 20 * self.lease_s + self.jobs / 20


@dataclass
class Progress:
    """What a run has come to so far."""

    phase: str = "starting"
    sent: int = 0
    accepted: int = 0
    ended: int = 0
    faults: int = 0


async def run(options: Options, clock: Clock, say: Callable[[Progress], None]) -> tuple[Evidence, list[Verdict]]:
    """Run, heal, wait, collect, check."""
    mix = mix_of(str(options.folder / evidence.ENGINE))
    plan = Plan(
        seed=options.seed,
        lease_s=options.lease_s,
        max_attempts=mix.steady.retry.max_attempts,
        outage_delay_s=OUTAGE_DELAY_S,
        start_slack_s=options.lease_s,
        isolated_models=(mix.steady.name,),
    )
    layout = Layout(
        (mix.steady, mix.mixed),
        options.lease_s,
        workers=options.workers,
        brokers=options.brokers,
        sync_always=True,
        store=options.store,
        limits=StorageLimits(replicas=options.brokers),
    )
    (options.folder / evidence.PLAN).write_bytes(msgspec.json.encode(plan))
    progress = Progress()
    rng = random.Random(f"{options.seed}/system")  # noqa: S311
    async with Testbed(layout, options.folder, rng) as bed:
        await bed.start_workers()
        await bed.until_ready()
        async with (
            watching(bed, clock) as recorder,
            Client(bed.for_clients) as client,
            Clients(client, options.folder, clock) as clients,
        ):
            with Journal[Fault](options.folder / evidence.FAULTS) as journal:
                injector = Injector(bed, journal, rng, clock)

                def tell(phase: str) -> None:
                    progress.phase = phase
                    progress.sent, progress.accepted = clients.submitted, len(clients.accepted)
                    progress.ended, progress.faults = len(recorder.ended), len(injector.done)
                    say(progress)

                async with _told(lambda: tell(progress.phase)):
                    tell("faults")
                    await _load_and_strike(options, clients, injector, clock)
                    tell("drain")
                    await clients.finish(HABITS_DEADLINE_S)
                    clients.stop_trying()
                    drain_s = await until_drained(bed, clients, recorder, clock, options.drain_deadline_s)
                    tell("quiet")
                    await asyncio.sleep(2 * options.lease_s)
                    await bed.fleet.drain()
                    tell("collect")
                    await recorder.catch_up()
                    await collect(bed, clock, drain_s is not None, drain_s or options.drain_deadline_s)
    found = load_evidence(options.folder)
    return found, await asyncio.to_thread(check, found)


@contextlib.asynccontextmanager
async def watching(bed: Testbed, clock: Clock) -> AsyncIterator[ResultsRecorder]:
    """Everything that observes, as long as the block lasts."""
    recorder = ResultsRecorder(bed.watch, bed.folder, clock)
    await overhear_attempts(bed.watch, bed.folder, clock)
    async with (
        background(recorder.record()),
        background(sample_workers(bed.fleet.workers, bed.folder, clock)),
    ):
        yield recorder


async def until_drained(
    bed: Testbed, clients: Clients, recorder: ResultsRecorder, clock: Clock, deadline_s: float
) -> float | None:
    """Wait until every accepted job has a result and the queue is empty; seconds, or None if it took too long."""
    began_s = clock.monotonic()
    while clock.monotonic() - began_s < deadline_s:
        if clients.accepted <= recorder.ended:
            with contextlib.suppress(BrokerUnavailable):
                if (await stream_state(bed.watch, Stream.JOBS)).messages == 0:
                    return clock.monotonic() - began_s
        await asyncio.sleep(LOOK_EVERY_S)
    return None


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:  # Any: what it yields to the loop
    """Run something beside the block, which fails if it fails."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def _load_and_strike(options: Options, clients: Clients, injector: Injector, clock: Clock) -> None:
    """Send all jobs over the time of the run, with the nemesis at work; both at an end, nothing is broken any more."""
    nemesis = Nemesis(injector, options.seed)
    mix = mix_of("")
    rng = random.Random(f"{options.seed}/orders")  # noqa: S311
    wanted = orders(mix, rng, options.jobs, f"s{options.seed}")
    seconds = options.minutes * 60
    async with background(clients.watch_backlog(mix.steady.name)), asyncio.TaskGroup() as group:
        group.create_task(nemesis.strike())
        sending = group.create_task(clients.send(wanted, options.jobs / seconds))
        began_s = clock.monotonic()
        await asyncio.wait([sending], timeout=seconds * 3 + 60)
        if not sending.done():
            clients.stop_trying()
        await asyncio.sleep(max(0.0, began_s + seconds - clock.monotonic()))
        nemesis.stop()


@contextlib.asynccontextmanager
async def _told(tell: Callable[[], None]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(1.0)
            tell()

    async with background(repeat()):
        yield
