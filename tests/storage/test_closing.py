"""A connection that is closed stays closed, whatever it was about to do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage import connection as connecting
from headrace_storage.connection import Connection

# More than a try to connect takes, from its first step to the refusal.
STEPS = 24


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[str]:
    """URL of a way to the server, which is gone at the end with all its connections."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, server_writer))
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for writer in writers:
            writer.transport.abort()


async def test_a_connection_that_is_closed_while_it_reconnects_tries_no_more(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11, a cancel that meets the end of a try is forgotten by `asyncio.wait_for`; each step is met."""
    # It tries all the time.
    monkeypatch.setattr(connecting, "RECONNECT_WAIT_S", 0.0)
    for steps in range(STEPS):
        async with relay(nats_server.port) as url:
            connection = Connection(NatsSettings(url=url))
            await connection.__aenter__()
        async with asyncio.timeout(10):
            while not connection.last_error.startswith("[Errno"):
                await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await connection.__aexit__(None, None, None)
        reconnecting = connection.nc._reconnection_task
        _, forgot = await asyncio.wait({reconnecting}, timeout=1.0)
        while not reconnecting.done():
            # Else the loop would wait for it at the end.
            reconnecting.cancel()
            await asyncio.sleep(0)
        assert not forgot, f"closed {steps} steps after a try that failed"
        assert connection.nc.is_closed
