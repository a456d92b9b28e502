"""One leader at a time: taken over when it dies, given up when it doubts, never shared."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from blob_servers import freeze, thaw
from nats.js import api

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Bucket
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.leadership import Deposed, Leadership

TTL_S = 2.0
DEADLINE_S = 30.0


class SkippingClock(SystemClock):
    """A clock that can be put forward, as a process finds it that was stopped."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def make_bucket(connection: Connection) -> None:
    await connection.js.create_key_value(config=api.KeyValueConfig(bucket=Bucket.LEASES, ttl=TTL_S))


@pytest_asyncio.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await make_bucket(connection)
        yield connection


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name[:60]


def candidate(connection: Connection, name: str, holder: str = "me", clock: SystemClock | None = None) -> Leadership:
    return Leadership(connection, name, holder, clock or SystemClock())


async def until(is_so, what: str = "") -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def acquired(one: Leadership) -> Leadership:
    async with asyncio.timeout(DEADLINE_S):
        while not await one.acquire():
            await asyncio.sleep(0.01)
    return one


async def for_ever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def leading(one: Leadership) -> AsyncIterator[asyncio.Task[bool]]:
    """Renew beside the block."""
    task = asyncio.create_task(one.during(for_ever))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_second_candidate_learns_who_leads(connection: Connection, name: str) -> None:
    first, second = candidate(connection, name, "first"), candidate(connection, name, "second")
    assert await first.acquire()
    assert not await second.acquire()
    assert (first.held, second.held, second.holder) == (True, False, "first")
    with pytest.raises(Deposed):
        second.check()


async def test_leases_of_different_names_do_not_meet(connection: Connection, name: str) -> None:
    assert await candidate(connection, name).acquire()
    assert await candidate(connection, f"{name}-2").acquire()


async def test_a_lease_that_is_given_back_is_free_at_once(connection: Connection, name: str) -> None:
    first, second = candidate(connection, name), candidate(connection, name)
    assert await first.acquire()
    await first.release()
    assert not first.held
    assert await second.acquire()
    await first.release()
    assert second.held
    assert not await first.acquire(), "giving back twice took the lease from its new holder"


async def test_the_token_grows_with_every_term(connection: Connection, name: str) -> None:
    first, second = candidate(connection, name), candidate(connection, name)
    tokens = []
    for one in (first, second, first):
        assert await one.acquire()
        tokens.append(one.token)
        await one.release()
    assert tokens == sorted(set(tokens))


async def test_a_leader_that_goes_on_keeps_the_lease_and_its_token(connection: Connection, name: str) -> None:
    first, second = await acquired(candidate(connection, name)), candidate(connection, name)
    token = first.token
    async with leading(first):
        end = asyncio.get_running_loop().time() + 3 * TTL_S
        while asyncio.get_running_loop().time() < end:
            assert not await second.acquire()
            assert first.held
            await asyncio.sleep(0.05)
    assert first.token == token


async def test_a_leader_that_dies_is_replaced(connection: Connection, name: str) -> None:
    """It neither renews nor gives back."""
    assert await candidate(connection, name, "dead").acquire()
    assert (await acquired(candidate(connection, name, "heir"))).held


async def test_a_leader_that_was_stopped_acts_no_more_when_it_wakes(connection: Connection, name: str) -> None:
    """By its own clock, before it hears of anybody else."""
    clock = SkippingClock()
    leader = await acquired(candidate(connection, name, clock=clock))
    clock.ahead_s = 0.69 * TTL_S
    assert leader.held
    clock.ahead_s = 0.71 * TTL_S
    with pytest.raises(Deposed):
        leader.check()


async def test_a_leader_that_doubted_without_need_leads_again_under_a_new_token(
    connection: Connection, name: str
) -> None:
    clock = SkippingClock()
    leader = await acquired(candidate(connection, name, clock=clock))
    token = leader.token
    clock.ahead_s = 0.8 * TTL_S
    assert not leader.held
    assert await leader.acquire()
    assert leader.held
    assert leader.token > token


async def test_work_ends_when_the_lease_is_taken(connection: Connection, name: str) -> None:
    leader = await acquired(candidate(connection, name))
    acting: asyncio.Task[None] = asyncio.create_task(for_ever())
    working = asyncio.create_task(leader.during(lambda: acting))
    await connection.js.publish(f"$KV.{Bucket.LEASES}.{name}", b'{"holder": "thief", "nonce": "x"}')
    async with asyncio.timeout(DEADLINE_S):
        assert await working is False
    assert acting.cancelled()
    assert not leader.held
    other = candidate(connection, name)
    assert not await other.acquire()
    assert other.holder == "thief", "the loser removed the lease of its successor"


async def test_a_renewal_whose_answer_is_lost_is_ours(connection: Connection, name: str) -> None:
    leader = await acquired(candidate(connection, name))
    async with leading(leader) as working:
        last = await connection.js.get_last_msg(f"KV_{Bucket.LEASES}", f"$KV.{Bucket.LEASES}.{name}")
        # What the leader would send; it does not know of it.
        again = await connection.js.publish(f"$KV.{Bucket.LEASES}.{name}", last.data)
        async with asyncio.timeout(DEADLINE_S):
            while (await connection.js.get_last_msg(f"KV_{Bucket.LEASES}", last.subject)).seq == again.seq:
                await asyncio.sleep(0.01)
        assert not working.done()
        assert leader.held


async def test_the_error_of_the_work_is_the_callers_and_the_lease_is_free(connection: Connection, name: str) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    leader = await acquired(candidate(connection, name))
    with pytest.raises(ValueError, match="broken"):
        await leader.during(fail)
    assert await candidate(connection, name).acquire()


async def test_a_marker_or_garbage_in_its_place_is_a_free_lease(connection: Connection, name: str) -> None:
    await connection.js.publish(f"$KV.{Bucket.LEASES}.{name}", b"\xff no claim")
    assert await candidate(connection, name).acquire()


@pytest.mark.parametrize("count", [2, 5])
async def test_of_many_candidates_one_acts_at_a_time(
    nats_server: NatsServer, connection: Connection, count: int
) -> None:
    """Leaders are deposed and give up again and again; each act is held against the others'."""
    acting: set[int] = set()
    overlaps: list[set[int]] = []
    terms: list[tuple[int, int]] = []

    async def candidacy(number: int) -> None:
        async with Connection(NatsSettings(url=nats_server.url)) as own:
            one = candidate(own, f"many-{count}", str(number))

            async def work() -> None:
                terms.append((one.token, number))
                acting.add(number)
                try:
                    for _ in range(10):
                        one.check()
                        if len(acting) > 1:
                            overlaps.append(set(acting))
                        await asyncio.sleep(0.01)
                finally:
                    acting.discard(number)

            await one.lead(work)

    tasks = [asyncio.create_task(candidacy(number)) for number in range(count)]
    await until(lambda: len(terms) >= 3 * count and {number for _, number in terms} == set(range(count)))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert overlaps == []
    assert [token for token, _ in terms] == sorted(token for token, _ in terms)


async def test_a_restart_of_the_broker_costs_no_leadership(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await make_bucket(connection)
        leader, other = await acquired(candidate(connection, "r", "first")), candidate(connection, "r", "second")
        async with leading(leader) as working:
            token = leader.token
            await server.kill()
            await server.start()
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        assert not await other.acquire()
                        break
                    except BrokerUnavailable:
                        await asyncio.sleep(0.01)
            assert not working.done()
        assert leader.token == token


async def test_a_broker_that_hangs_deposes_its_leader(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, Connection(NatsSettings(url=server.url)) as connection:
        await make_bucket(connection)
        leader = await acquired(candidate(connection, "h"))
        async with leading(leader) as working:
            assert server.pid is not None
            freeze(server.pid)
            try:
                await until(lambda: not leader.held)
                async with asyncio.timeout(DEADLINE_S):
                    assert await working is False
            finally:
                thaw(server.pid)
        assert await (await acquired(candidate(connection, "h"))).acquire()


HOLDER = """
import asyncio, sys
from headrace_contracts.clock import SystemClock
from headrace_contracts.settings import NatsSettings
from headrace_storage.connection import Connection
from headrace_storage.leadership import Leadership

async def main():
    async with Connection(NatsSettings(url=sys.argv[1])) as connection:
        one = Leadership(connection, sys.argv[2], "child", SystemClock())
        async def work():
            n = 0
            while True:
                one.check()
                n += 1
                print("acted", n, flush=True)
                await asyncio.sleep(0.01)
        print("ended", await one.during(work) if await one.acquire() else "not acquired", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_holder_that_is_killed_or_frozen_is_replaced_and_acts_no_more(
    nats_server: NatsServer, connection: Connection, signal_number: signal.Signals
) -> None:
    name = f"process-{signal_number}"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, nats_server.url, name, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert (await asyncio.wait_for(child.stdout.readline(), DEADLINE_S)).startswith(b"acted")
        os.kill(child.pid, signal_number)
        heir = await acquired(candidate(connection, name, "heir"))
        async with leading(heir):
            if signal_number == signal.SIGSTOP:
                while len(child.stdout._buffer):  # type: ignore[attr-defined]  # what it wrote before
                    await child.stdout.readline()
                os.kill(child.pid, signal.SIGCONT)
                rest = await asyncio.wait_for(child.stdout.read(), DEADLINE_S)
                assert b"acted" not in rest.replace(b"\n", b"\n", 1), rest
                assert b"ended False" in rest
            assert heir.held
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
