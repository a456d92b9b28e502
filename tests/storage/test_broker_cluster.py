"""Three brokers, of which the one that leads dies: submitting goes on while a new leader is chosen."""

import asyncio
from collections.abc import AsyncIterator

import nats.js.errors
import pytest
import pytest_asyncio
from broker_cluster import DEADLINE_S, NAMES, BrokerCluster, broker_cluster

import headrace
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import Settings
from headrace_contracts.tasks.registry import Task
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import StorageLimits, ensure_topology

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")]


@pytest_asyncio.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrokerCluster]:
    """Every stream on each, and one model."""
    with broker_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        async with asyncio.timeout(DEADLINE_S), Connection(cluster.settings(*NAMES)) as connection:
            while True:
                try:
                    await ensure_topology(connection, StorageLimits(replicas=3))
                    await add_model(connection, ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC))
                    break
                except (BrokerUnavailable, nats.js.errors.APIError):
                    await asyncio.sleep(0.1)  # it has no leader yet, and nobody says when
        yield cluster


async def test_submitting_goes_on_while_the_leader_of_the_registry_is_chosen(cluster: BrokerCluster) -> None:
    async with Connection(cluster.settings(*NAMES)) as connection:
        led = (await connection.js.stream_info("KV_MODELS")).cluster
    assert led is not None
    leader = str(led.leader)
    others = [name for name in NAMES if name != leader]
    async with headrace.Client(Settings(nats=cluster.settings(*others))) as client:
        cluster.kill(leader)
        job = await client.submit("m", echo="x")
        assert (await job.status()).state == "queued"
