"""A worker is asked to drain, and its answer arrives, with nothing more allowed than the roles are."""

import asyncio

import pytest
from secured import SecuredBroker

from headrace_contracts.heartbeat import DrainReply, DrainRequest
from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection
from headrace_storage.control import ask_to_drain, listen_for_drain

pytestmark = pytest.mark.slow


async def test_the_scaler_hears_what_a_worker_says_to_a_drain(secured: SecuredBroker) -> None:
    async with (
        Connection(secured.settings(Role.WORKER).nats) as worker,
        Connection(secured.settings(Role.SCALER).nats) as scaler,
    ):
        async with asyncio.timeout(30):
            # Often: a listener of whom the server does not know yet is missed once in a hundred times.
            for worker_id in (f"w-{number}" for number in range(300)):
                await listen_for_drain(worker, worker_id, lambda _request: DrainReply(draining=True, jobs=3))
                assert await ask_to_drain(scaler, worker_id, DrainRequest()) == DrainReply(draining=True, jobs=3)
