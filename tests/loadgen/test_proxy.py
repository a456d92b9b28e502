"""The proxies: each fault really happens, is counted, and ends when it is healed."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from headrace_loadgen.system.http_proxy import HttpProxy
from headrace_loadgen.system.proxy import Direction, Proxy

DEADLINE_S = 10.0
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def serving(answer: object = echo) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, Ends]]:
    async with serving() as port, Proxy(port, random.Random(0)) as proxy, asyncio.timeout(DEADLINE_S):
        client = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield proxy, client
        finally:
            client[1].close()


async def said(client: Ends, data: bytes) -> bytes:
    client[1].write(data)
    return await client[0].readexactly(len(data))


async def test_everything_comes_through() -> None:
    async with echoing() as (_, client):
        data = random.Random(1).randbytes(3_000_000)
        sending = asyncio.create_task(client[0].readexactly(len(data)))
        client[1].write(data)
        assert await sending == data


async def test_a_reset_is_a_reset_and_a_new_connection_works() -> None:
    async with echoing() as (proxy, client):
        assert await said(client, b"x") == b"x"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await client[0].read()
        assert proxy.resets == 1
        again = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await said(again, b"y") == b"y"
        again[1].close()


@pytest.mark.parametrize("direction", Direction)
async def test_silence_holds_back_and_healing_lets_through(direction: Direction) -> None:
    async with echoing() as (proxy, client):
        assert await said(client, b"x") == b"x"
        proxy.silence(direction)
        client[1].write(b"later")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client[0].read(1)
        assert proxy.swallowed_bytes == 5
        assert proxy.connections == 1
        proxy.heal()
        assert await client[0].readexactly(5) == b"later"


async def test_refusing_lets_nobody_in() -> None:
    async with echoing() as (proxy, client):
        proxy.refusing = True
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert proxy.refused == 1
        assert await said(client, b"old ones go on") == b"old ones go on"


async def test_a_cut_comes_after_so_many_bytes() -> None:
    async with echoing() as (proxy, client):
        proxy.cut_after_bytes = 1000
        assert await said(client, b"x" * 400) == b"x" * 400
        client[1].write(b"x" * 400)
        with pytest.raises(ConnectionResetError):
            await client[0].readexactly(400)
        assert proxy.resets == 1


async def test_delay_and_a_narrow_wire_take_their_time() -> None:
    async with echoing() as (proxy, client):
        proxy.delay_s = 0.1
        began = perf_counter()
        await said(client, b"x")
        assert perf_counter() - began >= 0.2
        proxy.heal()
        proxy.bytes_per_s = 10_000
        began = perf_counter()
        await said(client, b"x" * 1000)
        assert perf_counter() - began >= 0.2
        assert proxy.delayed_bytes == 2 + 2000


async def test_nothing_is_left_when_it_closes_in_the_middle() -> None:
    async with serving() as port:
        async with Proxy(port, random.Random(0)) as proxy:
            client = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await said(client, b"x") == b"x"
            proxy.silence()
            client[1].write(b"y")
        assert proxy.connections == 0
        client[1].close()


class Shelf:
    """A little HTTP server that keeps what is put."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ") for line in head.splitlines()[1:] if line)
                if "chunked" in fields.get("transfer-encoding", ""):
                    body = b""
                    while size := int(await reader.readline(), 16):
                        body += await reader.readexactly(size)
                        await reader.readline()
                    await reader.readline()
                else:
                    body = await reader.readexactly(int(fields.get("content-length", "0")))
                if head.startswith("PUT"):
                    self.kept.append(body)
                answer = b"ok" if not head.startswith("HEAD") else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def ask(client: Ends, method: str, body: bytes = b"", chunked: bool = False) -> tuple[int, bytes]:
    if chunked:
        framing, sent = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        framing, sent = f"Content-Length: {len(body)}", body
    client[1].write(f"{method} /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode() + sent)
    head = await client[0].readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), b"" if method == "HEAD" else await client[0].readexactly(size)


@asynccontextmanager
async def shelved() -> AsyncIterator[tuple[HttpProxy, Shelf]]:
    shelf = Shelf()
    async with serving(shelf) as port, HttpProxy(port, random.Random(3)) as proxy, asyncio.timeout(DEADLINE_S):
        yield proxy, shelf


async def connect(proxy: Proxy) -> Ends:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_requests_come_through_one_after_the_other() -> None:
    async with shelved() as (proxy, shelf):
        client = await connect(proxy)
        big = random.Random(2).randbytes(500_000)
        assert await ask(client, "PUT", big) == (200, b"ok")
        assert await ask(client, "PUT", b"in pieces", chunked=True) == (200, b"ok")
        assert await ask(client, "HEAD") == (200, b"")
        assert await ask(client, "GET") == (200, b"ok")
        assert shelf.kept == [big, b"in pieces"]
        assert proxy.requests == 4
        client[1].close()


async def test_errors_never_reach_the_server() -> None:
    async with shelved() as (proxy, shelf):
        proxy.error_rate = 1.0
        client = await connect(proxy)
        status, body = await ask(client, "PUT", b"data")
        assert status == 503
        assert b"SlowDown" in body
        assert shelf.kept == []
        assert proxy.errors == 1
        client[1].close()
        proxy.heal()
        client = await connect(proxy)
        assert await ask(client, "PUT", b"data") == (200, b"ok")
        client[1].close()


async def test_a_lost_answer_was_stored() -> None:
    async with shelved() as (proxy, shelf):
        proxy.lost_answer_rate = 1.0
        client = await connect(proxy)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(client, "PUT", b"data")
        assert shelf.kept == [b"data"]
        assert proxy.lost_answers == 1
        client[1].close()


async def test_only_uploads_lose_their_answers() -> None:
    async with shelved() as (proxy, _):
        proxy.lost_answer_rate = 1.0
        client = await connect(proxy)
        assert await ask(client, "GET") == (200, b"ok")
        client[1].close()
