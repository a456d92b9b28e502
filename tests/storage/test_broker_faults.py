"""A full queue, a full broker, a full disk and a lost connection are four errors, each with what is known of it."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from disks import small_disk

from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import BrokerFull, BrokerStorageFailing, BrokerUnavailable, MessageTooLarge, QueueFull
from headrace_contracts.fill import Fill, FullLimit
from headrace_contracts.job import JobBody
from headrace_contracts.names import Lane
from headrace_contracts.settings import NatsSettings, Settings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.doctor import Level, examine
from headrace_storage.jobs import submit_job
from headrace_storage.publishing import publish
from headrace_storage.topology import StorageLimits, ensure_topology

BODY = JobBody(msgspec.Raw(msgspec.json.encode({"echo": "x" * 10_000})))


async def submit(connection: Connection, tenant: str = "t", job_id: str | None = None) -> None:
    await submit_job(connection, tenant, "m", Lane.NORMAL, BODY, Encoding.JSON, job_id)


async def submit_until_refused(connection: Connection) -> None:
    """Raises what a submit raised, soon: every limit here is small."""
    for _ in range(2000):
        await submit(connection)


@contextlib.asynccontextmanager
async def connected(server: NatsServer, limits: StorageLimits | None = None) -> AsyncIterator[Connection]:
    async with server, Connection(NatsSettings(url=server.url)) as connection:
        if limits is not None:
            await ensure_topology(connection, limits)
        yield connection


@contextlib.contextmanager
def frozen(server: NatsServer) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    # The signal stops one thread after the other; the last one could still answer.
    tasks = Path(f"/proc/{server.pid}/task")
    while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
        pass
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_one_tenant_at_its_limit_keeps_nobody_else_out(tmp_path: Path) -> None:
    async with connected(NatsServer(tmp_path), StorageLimits(jobs_per_subject=3)) as connection:
        for _ in range(3):
            await submit(connection, "greedy")
        with pytest.raises(QueueFull, match="other subjects still have room") as caught:
            await submit(connection, "greedy")
        assert caught.value.fill == Fill("JOBS", FullLimit.MESSAGES_PER_SUBJECT, 3, 3)
        assert not isinstance(caught.value, BrokerFull)
        await submit(connection, "modest")


async def test_a_stream_at_its_bytes(tmp_path: Path) -> None:
    async with connected(NatsServer(tmp_path), StorageLimits(jobs_bytes=100_000)) as connection:
        with pytest.raises(QueueFull, match=r"stream JOBS, max_bytes: \d+ of 100000 bytes") as caught:
            await submit_until_refused(connection)
        fill = caught.value.fill
        assert fill is not None
        assert 80_000 < fill.used <= fill.allowed == 100_000
        assert (await connection.js.stream_info("JOBS")).state.messages == 9


async def test_a_stream_at_its_messages(tmp_path: Path) -> None:
    async with connected(NatsServer(tmp_path), StorageLimits()) as connection:
        config = (await connection.js.stream_info("JOBS")).config
        await connection.js.update_stream(config.evolve(max_msgs=2))
        with pytest.raises(QueueFull) as caught:
            await submit_until_refused(connection)
        assert caught.value.fill == Fill("JOBS", FullLimit.MESSAGES, 2, 2)


async def test_the_brokers_storage_limit(tmp_path: Path) -> None:
    """The streams have room, the server has none."""
    async with connected(NatsServer(tmp_path), StorageLimits()):
        pass
    async with connected(NatsServer(tmp_path, max_store_bytes=1 << 20)) as connection:
        with pytest.raises(BrokerFull, match=r"\d+ bytes are in use.*max_file_store") as caught:
            await submit_until_refused(connection)
        assert caught.value.used_bytes is not None
        assert caught.value.used_bytes > 900_000
        assert isinstance(caught.value, QueueFull), "workers and the SDK wait for it as for a full queue"


class LimitedAccount(NatsServer):
    """A server whose one account may store a mebibyte."""

    def _configuration(self) -> str:
        account = "jetstream: { max_file: 1MB, max_mem: 64MB }, users: [ { user: u, password: p } ]"
        return super()._configuration() + f"\naccounts {{ A {{ {account} }} }}\nno_auth_user: u\n"


async def test_the_accounts_storage_limit(tmp_path: Path) -> None:
    async with connected(LimitedAccount(tmp_path)) as connection:
        await connection.js.add_stream(name="JOBS", subjects=["jobs.*.*.*"])
        with pytest.raises(BrokerFull, match="resource limits exceeded for account") as caught:
            await submit_until_refused(connection)
        assert caught.value.used_bytes is not None
        assert caught.value.used_bytes > 900_000


async def test_a_full_disk(tmp_path: Path) -> None:
    """The broker says nothing then, and goes on saying nothing when there is room again, until it is restarted."""
    with small_disk(tmp_path / "disk", size_mib=80) as disk:
        server = NatsServer(disk / "nats")
        async with connected(server, StorageLimits()) as connection:
            await submit(connection)
            disk.fill()
            with pytest.raises(
                BrokerStorageFailing, match=r"stream JOBS stores nothing.*restart nats-server"
            ) as caught:
                await submit_until_refused(connection)
            assert isinstance(caught.value, BrokerUnavailable), "workers and the SDK wait for it as for an outage"
            stored = (await connection.js.stream_info("JOBS")).state.messages
            settings = Settings(nats=NatsSettings(url=server.url, monitor_url=server.monitor_url))
            rows = {row.check: row for row in await examine(connection, settings, SystemClock())}
            assert rows["server health"].level is Level.FAIL
            assert "no space left on device" in rows["server health"].found
            disk.free()
            with pytest.raises(BrokerStorageFailing):
                await submit(connection)
        async with connected(NatsServer(disk / "nats")) as connection:
            await submit(connection)
            assert (await connection.js.stream_info("JOBS")).state.messages == stored + 1, "none was lost"


async def test_a_full_disk_is_among_the_causes_for_a_client_that_may_not_ask(tmp_path: Path) -> None:
    """A tenant's role cannot see the stream: all it can know is that the server is there."""
    with small_disk(tmp_path / "disk", size_mib=80) as disk:
        server = RestrictedUser(disk / "nats")
        async with (
            connected(server, StorageLimits()) as admin,
            Connection(NatsSettings(url=server.url, user="r", password="r")) as blind,
        ):
            await submit(blind)
            disk.fill()
            with pytest.raises(BrokerStorageFailing):
                await submit_until_refused(admin)
            with pytest.raises(
                BrokerUnavailable, match=r"JetStream answers, but nobody for jobs\.t\.m\.normal: .*a full disk"
            ):
                await submit(blind)


async def test_a_frozen_server_is_a_lost_connection(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    async with connected(server, StorageLimits()) as connection:
        with frozen(server):
            with pytest.raises(BrokerUnavailable, match="the connection is lost") as caught:
                await submit(connection)
            assert not isinstance(caught.value, BrokerStorageFailing)


async def test_a_server_that_is_gone_is_a_lost_connection(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    async with connected(server, StorageLimits()) as connection:
        await server.kill()
        with pytest.raises(BrokerUnavailable) as caught:
            await submit(connection)
        assert not isinstance(caught.value, BrokerStorageFailing)


class RestrictedUser(NatsServer):
    """A server whose user `r` may submit for tenant `t`, and ask for nothing but its account."""

    def _configuration(self) -> str:
        permissions = 'permissions: { publish: { allow: ["$JS.API.INFO", "jobs.t.>"] } }'
        users = f"[ {{ user: a, password: a }}, {{ user: r, password: r, {permissions} }} ]"
        return super()._configuration() + f"\nauthorization {{ users: {users} }}\nno_auth_user: a\n"


async def test_a_client_that_may_not_look_at_the_stream_is_told_without_numbers(tmp_path: Path) -> None:
    server = RestrictedUser(tmp_path)
    async with (
        connected(server, StorageLimits(jobs_per_subject=3)),
        Connection(NatsSettings(url=server.url, user="r", password="r")) as restricted,
    ):
        with pytest.raises(QueueFull, match=r"full \(maximum messages per subject exceeded\)") as caught:
            await submit_until_refused(restricted)
        assert caught.value.fill is None


async def test_a_denied_publish_is_no_failing_disk(tmp_path: Path) -> None:
    server = RestrictedUser(tmp_path)
    async with (
        connected(server, StorageLimits()),
        Connection(NatsSettings(url=server.url, user="r", password="r")) as denied,
    ):
        with pytest.raises(BrokerUnavailable, match=r"may not publish to jobs\.another") as caught:
            await submit(denied, "another")
        assert not isinstance(caught.value, BrokerStorageFailing)


async def test_a_message_that_no_connection_could_carry_is_refused_here(tmp_path: Path) -> None:
    async with connected(NatsServer(tmp_path), StorageLimits()) as connection:
        with pytest.raises(MessageTooLarge):
            await publish(connection, "jobs.t.m.normal", b"{}", {"X-Large": "x" * (9 << 20)})
        await submit(connection)
