"""Roles that were given out before there were log lines: the server's configuration has no word of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from secured import DEADLINE_S, MODEL, TENANTS, TRUSTED, SecuredBroker, free_port

import headrace
from headrace_contracts.result import Status
from headrace_storage.auth.roles import Role

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def older(tmp_path: Path) -> AsyncIterator[SecuredBroker]:
    broker = SecuredBroker(tmp_path / "broker")
    try:
        await broker.headrace(
            None, "auth", "init", str(broker.folder), "--listen", f"127.0.0.1:{free_port()}", *TENANTS
        )
        conf = broker.folder / "nats.conf"
        lines = conf.read_text().splitlines(keepends=True)
        without = [line for line in lines if not re.search(r"\"logs\.|\.LOGS\b", line)]
        assert len(without) < len(lines)
        conf.write_text("".join(without))
        await broker.serve()
        await broker.set_up()
        yield broker
    finally:
        await broker.stop()


async def test_a_worker_of_such_a_role_works_says_so_once_and_sends_lines_after_an_update(older: SecuredBroker) -> None:
    await older.ensure_worker()
    async with headrace.Client(older.settings(Role.PRODUCER, TRUSTED)) as client:
        for _ in range(3):
            assert older.processes[-1].returncode is None, (older.folder / "worker.log").read_text()
            job = await client.submit(MODEL, echo="x")
            assert (await job.result(DEADLINE_S)).status is Status.SUCCEEDED
        assert await job.logs() == []
        assert (older.folder / "worker.log").read_text().count("log lines stay here") == 1
        assert not [line for line in older.refused(Role.WORKER) if '"logs.' in line]

        updated = await older.headrace(None, "auth", "update", str(older.folder))
        assert updated.status == 0, updated.err
        await older.restart()
        applied = await older.headrace(Role.ADMIN, "auth", "apply", str(older.folder))
        assert applied.status == 0, applied.err
        job = await client.submit(MODEL, echo="x")
        assert (await job.result(DEADLINE_S)).status is Status.SUCCEEDED
        async with asyncio.timeout(DEADLINE_S):
            # Without a receipt, a line may be lost around the restart: another job has others.
            while not await job.logs():
                job = await client.submit(MODEL, echo="x")
                await job.result(DEADLINE_S)
    assert not [line for line in older.refused(Role.WORKER) if '"logs.' in line]
