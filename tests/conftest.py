"""Fixtures every test may use: real servers, started on free ports, one per test module."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from headrace_local.nats_server import NatsServer

SPEECH = Path(__file__).parent.parent / "compose" / "headrace_local" / "data" / "speech"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A nats-server with an empty store, shared by the tests of one module."""
    # Not synced: tests that are about power cuts start their own.
    async with NatsServer(tmp_path_factory.mktemp("nats"), sync_always=False) as server:
        yield server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The compose stack takes minutes and an Engine: it is only run when it is asked for by its marker.

    Then it is first: it brings an Engine along, which other tests find.
    """
    if "compose" in config.getoption("markexpr"):
        items.sort(key=lambda item: item.get_closest_marker("compose") is None)
        return
    stack = [item for item in items if item.get_closest_marker("compose")]
    if stack:
        items[:] = [item for item in items if item not in stack]
        config.hook.pytest_deselected(items=stack)
