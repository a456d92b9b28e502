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
        await listen_for_drain(worker, "w-1", lambda _request: DrainReply(draining=True, jobs=3))
        async with asyncio.timeout(30):
            assert await ask_to_drain(scaler, "w-1", DrainRequest()) == DrainReply(draining=True, jobs=3)
