"""A proxy that understands enough HTTP to answer in the server's place, or to lose the server's answer."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator

from headrace_loadgen.system.proxy import Direction, Ends, Link, Proxy, reset_connection

_MAX_HEAD_BYTES = 1 << 16
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)
_BODY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>injected</Message></Error>"


class HttpProxy(Proxy):
    """HTTP/1.1 request by request; everything a `Proxy` can do, and two faults more."""

    def __init__(self, port: int, rng: random.Random) -> None:
        super().__init__(port, rng)
        self.error_rate = 0.0
        """Share of requests that are answered with 503 and never reach the server."""
        self.lost_answer_rate = 0.0
        """Share of uploads that reach the server, whose answer never reaches the client."""
        self.requests = 0
        self.errors = 0
        self.lost_answers = 0

    def heal(self) -> None:
        """Behave again."""
        self.error_rate = self.lost_answer_rate = 0.0
        super().heal()

    async def _serve(self, link: Link) -> None:
        serving = asyncio.create_task(self._serve_requests(link.client, link.server))
        broken = asyncio.create_task(link.broken.wait())
        try:
            await asyncio.wait([serving, broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            broken.cancel()
            await asyncio.gather(serving, broken, return_exceptions=True)

    async def _serve_requests(self, client: Ends, server: Ends) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while await self._serve_one(client, server):
                pass

    async def _serve_one(self, client: Ends, server: Ends) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = await client[0].readuntil(b"\r\n\r\n")
        self.requests += 1
        method = head.split(b" ", 1)[0]
        if self._rng.random() < self.error_rate:
            await _read_body(client[0], head)
            self.errors += 1
            client[1].write(_UNAVAILABLE % (len(_BODY), _BODY))
            await client[1].drain()
            return False
        loses = method in (b"PUT", b"POST") and self._rng.random() < self.lost_answer_rate
        if not await self._forward(head, client[0], server[1], Direction.TO_SERVER):
            return False
        answer = await server[0].readuntil(b"\r\n\r\n")
        while answer.startswith(b"HTTP/1.1 100"):
            client[1].write(answer)
            answer = await server[0].readuntil(b"\r\n\r\n")
        if loses:
            # The body is stored: the server said so.
            self.lost_answers += 1
            reset_connection(client[1])
            return False
        has_body = method != b"HEAD" and not answer.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
        return await self._forward(answer, server[0], client[1], Direction.TO_CLIENT, has_body)

    async def _forward(
        self,
        head: bytes,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: Direction,
        has_body: bool = True,
    ) -> bool:
        """Pass a message on; whether another may follow."""
        if not await self.pass_on(head, direction):
            return False
        sink.write(head)
        if has_body:
            async for piece in _body(source, head, to_end=direction is Direction.TO_CLIENT):
                if not await self.pass_on(piece, direction):
                    return False
                sink.write(piece)
                await sink.drain()
        await sink.drain()
        return b"connection: close" not in head.lower()


async def _body(source: asyncio.StreamReader, head: bytes, to_end: bool) -> AsyncGenerator[bytes, None]:
    """Pieces of a message's body; without a length it is the rest of the connection, or nothing."""
    fields = _fields(head)
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        while True:
            line = await source.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + await source.readexactly(size + 2)
            if size == 0:
                return
    elif b"content-length" in fields:
        left = int(fields[b"content-length"])
        while left:
            piece = await source.read(min(left, _MAX_HEAD_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
    elif to_end:
        while piece := await source.read(_MAX_HEAD_BYTES):
            yield piece


async def _read_body(source: asyncio.StreamReader, head: bytes) -> None:
    async for _ in _body(source, head, to_end=False):
        pass


def _fields(head: bytes) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
