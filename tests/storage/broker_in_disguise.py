"""A TCP proxy before a real nats-server that tells clients another version; same length, so nothing else changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def disguised(port: int, real: bytes, told: bytes) -> AsyncIterator[str]:
    """URL of the proxy before the server on `port`."""
    assert len(real) == len(told)

    async def serve(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        info = await server_reader.readline()
        assert b'"version":"%s"' % real in info
        client_writer.write(info.replace(b'"version":"%s"' % real, b'"version":"%s"' % told))
        await asyncio.gather(_copy(client_reader, server_writer), _copy(server_reader, client_writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        yield f"nats://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
