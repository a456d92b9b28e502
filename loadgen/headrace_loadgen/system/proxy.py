"""A TCP proxy that can be told to break: slow, silent, cut, resetting, or refusing.

One proxy is one wire between one client and one server. Everything it did to a connection is counted, so that a fault
that met nobody is noticed.
"""

import asyncio
import contextlib
import random
import socket
import struct
from enum import Enum, auto
from typing import Self

_PIECE_BYTES = 1 << 16
# SO_LINGER with no time: closing sends RST instead of FIN.
_LINGER_RESET = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = auto()
    TO_CLIENT = auto()


class Proxy:
    """Listens on a free port of loopback and passes everything on to `port`."""

    def __init__(self, port: int, rng: random.Random) -> None:
        """`rng` draws the jitter of delays."""
        self._target = port
        self._rng = rng
        self.port = 0
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.refusing = False
        self.silent: set[Direction] = set()
        self.cut_after_bytes: int | None = None
        """Both sides are reset when this many more bytes have passed."""
        self.resets = 0
        """Connections that were reset."""
        self.refused = 0
        """Connections that were not let in."""
        self.swallowed_bytes = 0
        """Bytes that were held back while silent."""
        self.delayed_bytes = 0
        self._audible = asyncio.Event()
        self._audible.set()
        self._links: set[Link] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.heal()
        for link in list(self._links):
            link.reset()
        await asyncio.gather(*(link.ended.wait() for link in list(self._links)))
        await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._links)

    def reset(self) -> int:
        """Reset every open connection; how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        self.resets += len(links)
        return len(links)

    def silence(self, *directions: Direction) -> None:
        """Let nothing through in these directions (both without any), while connections stay open."""
        self.silent = set(directions or Direction)
        self._audible.clear()

    def heal(self) -> None:
        """Behave again. What was held back goes through."""
        self.delay_s = self.jitter_s = 0.0
        self.bytes_per_s = self.cut_after_bytes = None
        self.refusing = False
        self.silent = set()
        self._audible.set()

    async def pass_on(self, data: bytes, direction: Direction) -> bool:
        """Wait as this wire wants it; False if the connection has to end here."""
        if direction in self.silent:
            self.swallowed_bytes += len(data)
            while direction in self.silent:
                await self._audible.wait()
        if self.delay_s or self.jitter_s:
            self.delayed_bytes += len(data)
            await asyncio.sleep(self.delay_s + self._rng.uniform(0, self.jitter_s))
        if self.bytes_per_s is not None:
            self.delayed_bytes += len(data)
            await asyncio.sleep(len(data) / self.bytes_per_s)
        if self.cut_after_bytes is not None:
            self.cut_after_bytes -= len(data)
            if self.cut_after_bytes < 0:
                self.cut_after_bytes = None
                self.reset()
                return False
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.refused += 1
            reset_connection(writer)
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            reset_connection(writer)
            return
        link = Link((reader, writer), server)
        self._links.add(link)
        try:
            await self._serve(link)
        finally:
            link.close()
            self._links.discard(link)
            link.ended.set()

    async def _serve(self, link: "Link") -> None:
        """Copy both ways until one side ends."""
        (client_reader, client_writer), (server_reader, server_writer) = link.client, link.server
        copying = [
            asyncio.create_task(self._copy(client_reader, server_writer, Direction.TO_SERVER)),
            asyncio.create_task(self._copy(server_reader, client_writer, Direction.TO_CLIENT)),
        ]
        try:
            await asyncio.wait([*copying, asyncio.create_task(link.broken.wait())], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in copying:
                task.cancel()
            link.broken.set()
            await asyncio.gather(*copying, return_exceptions=True)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_PIECE_BYTES):
                if not await self.pass_on(data, direction):
                    return
                sink.write(data)
                await sink.drain()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through the proxy."""

    def __init__(self, client: Ends, server: Ends) -> None:
        self.client = client
        self.server = server
        self.broken = asyncio.Event()
        self.ended = asyncio.Event()

    def reset(self) -> None:
        """End both sides by RST."""
        for _, writer in (self.client, self.server):
            reset_connection(writer)
        self.broken.set()

    def close(self) -> None:
        """End both sides."""
        for _, writer in (self.client, self.server):
            writer.close()


def reset_connection(writer: asyncio.StreamWriter) -> None:
    """End one side by RST."""
    wire = writer.get_extra_info("socket")
    if wire is not None:
        with contextlib.suppress(OSError):
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
