"""Every fault: what it does, for how long, and the proof that it happened."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Stream
from headrace_loadgen.journal import Journal
from headrace_loadgen.nemesis.processes import send, stop_for, until_state
from headrace_loadgen.records import Fault, FaultKind
from headrace_loadgen.streams import leader_of
from headrace_loadgen.system.fleet import Worker
from headrace_loadgen.system.proxy import Direction, Proxy
from headrace_loadgen.system.testbed import Testbed

# How long a fault waits for somebody to meet it.
MEET_DEADLINE_S = 15.0
# Electing a new leader takes 4 to 7 s.
ELECTION_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Proof:
    """What a fault came to."""

    target: str
    happened: bool
    seen: str
    pids: tuple[int, ...] = ()


class Injector:
    """Does faults to a testbed, each when it is asked for, and writes them down."""

    def __init__(self, bed: Testbed, journal: Journal[Fault], rng: random.Random, clock: Clock) -> None:
        self.bed = bed
        self.rng = rng
        self._journal = journal
        self._clock = clock
        self.done: list[Fault] = []

    async def inject(self, kind: FaultKind) -> Fault:
        """Do one fault, from its beginning to its end."""
        began_s = self._clock.monotonic()
        return self.note(kind, began_s, await FAULTS[kind](self))

    def note(self, kind: FaultKind, began_s: float, proof: Proof) -> Fault:
        """Write down a fault that is over."""
        fault = Fault(kind, proof.target, began_s, self._clock.monotonic(), proof.happened, proof.seen, proof.pids)
        self._journal.write(fault)
        self.done.append(fault)
        return fault

    @property
    def lease_s(self) -> float:
        """Of the models in the testbed."""
        return self.bed.layout.lease_s

    def worker(self) -> Worker | None:
        """One that runs."""
        running = [worker for worker in self.bed.fleet.workers if worker.up.is_set()]
        return self.rng.choice(running) if running else None


async def worker_kill(injector: Injector) -> Proof:
    """SIGKILL to a supervisor; its engines die with it."""
    worker = injector.worker()
    if worker is None:
        return Proof("worker", False, "none runs")
    pids = worker.pids()
    injector.bed.fleet.touched.add(worker.pid)
    worker.ended.clear()
    send(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(MEET_DEADLINE_S):
        await worker.ended.wait()
    return Proof(worker.name, worker.how == "SIGKILL", worker.how, pids)


async def worker_stop(injector: Injector) -> Proof:
    """SIGSTOP to a supervisor for longer than its leases last; its engines go on."""
    worker = injector.worker()
    if worker is None:
        return Proof("worker", False, "none runs")
    pids = worker.pids()
    seen = await stop_for(worker.pid, injector.lease_s * injector.rng.uniform(1.1, 1.6))
    return Proof(worker.name, seen == "T", f"state {seen}", pids)


async def worker_term(injector: Injector) -> Proof:
    """SIGTERM to a supervisor while there is work."""
    worker = injector.worker()
    if worker is None:
        return Proof("worker", False, "none runs")
    pids = worker.pids()
    how = await injector.bed.fleet.terminate(worker)
    return Proof(worker.name, True, how, pids)


async def engine_kill(injector: Injector) -> Proof:
    """SIGKILL to an engine process."""
    worker, engine = await _engine(injector)
    if worker is None or engine is None:
        return Proof("engine", False, "none runs")
    send(engine, signal.SIGKILL)
    seen = await until_state(engine, "Z ")
    return Proof(f"engine of {worker.name}", seen in ("Z", ""), f"state {seen or 'gone'}", (engine,))


async def engine_stop(injector: Injector) -> Proof:
    """SIGSTOP to an engine process, for longer than a step may take."""
    worker, engine = await _engine(injector)
    if worker is None or engine is None:
        return Proof("engine", False, "none runs")
    step_s = max(spec.timeouts.step_s for spec in injector.bed.layout.models)
    seen = await stop_for(engine, step_s * injector.rng.uniform(0.5, 1.5))
    # Its supervisor may have killed it on the way, as it should.
    return Proof(f"engine of {worker.name}", seen in ("T", "", "Z"), f"state {seen or 'gone'}", (engine,))


async def broker_kill(injector: Injector) -> Proof:
    """SIGKILL to a broker, which is started again over the same files after a while."""
    broker = injector.rng.choice(injector.bed.brokers)
    pid = broker.pid
    assert pid is not None
    await broker.kill()
    await asyncio.sleep(injector.rng.uniform(0.1, injector.lease_s))
    await broker.start()
    return Proof(broker.url, broker.pid != pid, f"process {pid}, then {broker.pid}", _holders(injector))


async def broker_stop(injector: Injector) -> Proof:
    """SIGSTOP to a broker for longer than leases last."""
    broker = injector.rng.choice(injector.bed.brokers)
    assert broker.pid is not None
    seen = await stop_for(broker.pid, injector.lease_s * injector.rng.uniform(1.1, 1.6))
    return Proof(broker.url, seen == "T", f"state {seen}", _holders(injector))


async def leader_kill(injector: Injector) -> Proof:
    """SIGKILL to the broker that leads the stream of jobs; it comes back once another one leads."""
    bed = injector.bed
    before = await _leader(bed)
    broker = next((b for b in bed.brokers if getattr(b, "name", "") == before), None)
    if broker is None:
        return Proof("leader", False, f"no server is called {before!r}")
    await broker.kill()
    try:
        async with asyncio.timeout(ELECTION_DEADLINE_S):
            while (after := await _leader(bed)) in ("", before):  # noqa: ASYNC110 - the cluster tells nobody
                await asyncio.sleep(0.1)
    finally:
        await broker.start()
    return Proof(before, after != before, f"{before}, then {after}", _holders(injector))


async def link_reset(injector: Injector) -> Proof:
    """RST on every connection of one client to its brokers."""
    name, wires, pids = await _wires(injector)
    count = sum(wire.reset() for wire in wires)
    return Proof(name, count > 0, f"{count} connections reset", pids)


async def link_silent(injector: Injector) -> Proof:
    """Nothing gets through in one direction or in both, and the connection stays open."""
    name, wires, pids = await _wires(injector)
    directions = injector.rng.choice([(Direction.TO_SERVER,), (Direction.TO_CLIENT,), tuple(Direction)])
    before = sum(wire.swallowed_bytes for wire in wires)
    for wire in wires:
        wire.silence(*directions)
    try:
        await asyncio.sleep(injector.lease_s * injector.rng.uniform(0.3, 1.6))
        count = await _met(lambda: sum(wire.swallowed_bytes for wire in wires) - before)
    finally:
        for wire in wires:
            wire.heal()
    return Proof(name, count > 0, f"{count} bytes held back {'and '.join(d.name for d in directions)}", pids)


async def link_slow(injector: Injector) -> Proof:
    """Some hundred milliseconds each way, and a narrow wire."""
    name, wires, pids = await _wires(injector)
    before = sum(wire.delayed_bytes for wire in wires)
    for wire in wires:
        wire.delay_s, wire.jitter_s, wire.bytes_per_s = 0.05, 0.2, 200_000.0
    try:
        await asyncio.sleep(injector.rng.uniform(1, 4))
        count = await _met(lambda: sum(wire.delayed_bytes for wire in wires) - before)
    finally:
        for wire in wires:
            wire.heal()
    return Proof(name, count > 0, f"{count} bytes delayed", pids)


async def store_kill(injector: Injector) -> Proof:
    """SIGKILL to the S3 server, which is started again over the same files."""
    store = injector.bed.store
    pid = store.pid
    await store.kill()
    await asyncio.sleep(injector.rng.uniform(0.1, 3))
    await store.start()
    return Proof("S3", store.pid != pid, f"process {pid}, then {store.pid}")


async def store_outage(injector: Injector) -> Proof:
    """Nobody gets a connection to the S3 server."""
    wire = injector.bed.store_wire
    before = wire.refused
    wire.refusing = True
    wire.reset()
    try:
        await asyncio.sleep(injector.rng.uniform(1, 5))
        count = await _met(lambda: wire.refused - before)
    finally:
        wire.heal()
    return Proof("S3", count > 0, f"{count} connections refused")


async def store_errors(injector: Injector) -> Proof:
    """The S3 server answers some requests with 503."""
    wire = injector.bed.store_wire
    before = wire.errors
    wire.error_rate = injector.rng.uniform(0.1, 0.7)
    try:
        await asyncio.sleep(injector.rng.uniform(2, 6))
        count = await _met(lambda: wire.errors - before)
    finally:
        wire.heal()
    return Proof("S3", count > 0, f"{count} requests answered with 503")


async def store_lost_answers(injector: Injector) -> Proof:
    """The S3 server stores what it is sent, and its answer is lost."""
    wire = injector.bed.store_wire
    before = wire.lost_answers
    wire.lost_answer_rate = injector.rng.uniform(0.2, 0.7)
    try:
        await asyncio.sleep(injector.rng.uniform(2, 5))
        count = await _met(lambda: wire.lost_answers - before)
    finally:
        wire.heal()
    return Proof("S3", count > 0, f"{count} answers lost")


FAULTS: dict[FaultKind, Callable[[Injector], Awaitable[Proof]]] = {
    FaultKind.WORKER_KILL: worker_kill,
    FaultKind.WORKER_STOP: worker_stop,
    FaultKind.WORKER_TERM: worker_term,
    FaultKind.ENGINE_KILL: engine_kill,
    FaultKind.ENGINE_STOP: engine_stop,
    FaultKind.BROKER_KILL: broker_kill,
    FaultKind.BROKER_STOP: broker_stop,
    FaultKind.LEADER_KILL: leader_kill,
    FaultKind.LINK_RESET: link_reset,
    FaultKind.LINK_SILENT: link_silent,
    FaultKind.LINK_SLOW: link_slow,
    FaultKind.STORE_KILL: store_kill,
    FaultKind.STORE_OUTAGE: store_outage,
    FaultKind.STORE_ERRORS: store_errors,
    FaultKind.STORE_LOST_ANSWERS: store_lost_answers,
}


async def _engine(injector: Injector) -> tuple[Worker | None, int | None]:
    """A worker that runs and one of its engines, once there is one."""
    for _ in range(round(MEET_DEADLINE_S / 0.05)):
        worker = injector.worker()
        if worker is not None and (engines := worker.engines()):
            return worker, injector.rng.choice(engines)
        await asyncio.sleep(0.05)
    return None, None


def _holders(injector: Injector) -> tuple[int, ...]:
    return tuple(pid for worker in injector.bed.fleet.workers if worker.up.is_set() for pid in worker.pids())


async def _wires(injector: Injector) -> tuple[str, Sequence[Proxy], tuple[int, ...]]:
    """The wires of a worker, or sometimes of the clients, once one of them is in use."""
    if injector.rng.random() < 0.25:
        wires = injector.bed.client_wires
        await _met(lambda: sum(wire.connections for wire in wires))
        return "clients", wires, ()
    worker = injector.rng.choice(injector.bed.fleet.workers)
    await _met(lambda: sum(wire.connections for wire in worker.wires))
    return worker.name, worker.wires, worker.pids()


async def _met(count: Callable[[], int]) -> int:
    """Wait until somebody met the fault, within reason."""
    for _ in range(round(MEET_DEADLINE_S / 0.05)):
        if count() > 0:
            break
        await asyncio.sleep(0.05)
    return count()


async def _leader(bed: Testbed) -> str:
    try:
        return await leader_of(bed.watch, Stream.JOBS)
    except BrokerUnavailable:
        return ""
