"""A secured broker, shared by the tests of one module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from secured import TENANTS, SecuredBroker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredBroker]:
    """Tenants acme and other are trusted, stranger is not; model echo is there, and no worker yet."""
    broker = SecuredBroker(tmp_path_factory.mktemp("secured") / "broker")
    try:
        await broker.start(*TENANTS, "--ingress-max-jobs", "400")
        await broker.set_up()
        yield broker
    finally:
        await broker.stop()
