"""Real blob stores for tests: each kind of server as a child process, with what a test may do to it."""

import asyncio
import io
import os
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import nats
from minio import Minio
from nats.aio.client import Client

from headrace_contracts.settings import S3Settings
from headrace_loadgen.system.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from headrace_local.nats_server import NatsServer
from headrace_storage.blobs import BlobStore, JetStreamBlobs, MemoryBlobs
from headrace_storage.blobs.s3 import S3Blobs

# How long a store under test waits for a silent server.
PATIENCE_S = 0.5


class Rig(Protocol):
    """One kind of store, and its server."""

    has_urls: bool

    def open(self, patience_s: float = 10.0) -> BlobStore:
        """A store with good credentials, not yet entered."""
        ...

    async def corrupt(self, key: str, data: bytes) -> None:
        """Put other bytes of the same length behind a blob, and leave what the store says of it."""
        ...


class ServerRig(Rig, Protocol):
    """A store with a server of its own."""

    url: str
    pid: int

    def open_as_stranger(self) -> BlobStore:
        """A store whose credentials the server refuses, not yet entered."""
        ...

    def open_at(self, url: str, patience_s: float) -> BlobStore:
        """A store that reaches the server by another address."""
        ...

    async def kill(self) -> None:
        """End the server as a crash would."""
        ...


class MemoryRig:
    has_urls = False

    def __init__(self) -> None:
        self._store = MemoryBlobs()

    def open(self, patience_s: float = 10.0) -> BlobStore:
        return self._store

    async def corrupt(self, key: str, data: bytes) -> None:
        self._store._blobs[key] = (self._store._blobs[key][0], data)


class GuardedNatsServer(NatsServer):
    """With a user that may do everything and one that may do nothing."""

    def _configuration(self) -> str:
        return super()._configuration() + (
            "authorization { users: [\n"
            f"  {{ user: {ACCESS_KEY}, password: {SECRET_KEY} }}\n"
            f"  {{ user: stranger, password: {SECRET_KEY},\n"
            '     permissions: { publish: "nothing", subscribe: "_INBOX.>" } }\n'
            "] }\n"
        )


class ConnectedJetStreamBlobs(JetStreamBlobs):
    """Opens its connection on entry and closes it on exit, as S3 stores do."""

    def __init__(self, url: str, patience_s: float, user: str) -> None:
        self._options = {"servers": url, "user": user, "password": SECRET_KEY, "error_cb": _quiet}
        self.nc = Client()
        super().__init__(self.nc, timeout_s=patience_s)

    async def __aenter__(self) -> "ConnectedJetStreamBlobs":
        await self.nc.connect(**self._options, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        try:
            return await super().__aenter__()
        except BaseException:
            await self.nc.close()
            raise

    async def __aexit__(self, *exc: object) -> None:
        # The client raises it when the server died with something still to be sent.
        with suppress(ConnectionError):
            await self.nc.close()


class JetStreamRig:
    has_urls = False

    def __init__(self, server: GuardedNatsServer) -> None:
        self._server = server
        self.url = server.url
        assert server.pid is not None
        self.pid = server.pid

    def open(self, patience_s: float = 10.0) -> BlobStore:
        return self.open_at(self.url, patience_s)

    def open_at(self, url: str, patience_s: float) -> BlobStore:
        return ConnectedJetStreamBlobs(url, patience_s, ACCESS_KEY)

    def open_as_stranger(self) -> BlobStore:
        return ConnectedJetStreamBlobs(self.url, PATIENCE_S, "stranger")

    async def kill(self) -> None:
        await self._server.kill()

    async def corrupt(self, key: str, data: bytes) -> None:
        nc = await nats.connect(self.url, user=ACCESS_KEY, password=SECRET_KEY)
        js = nc.jetstream()
        info = await (await js.object_store("headrace")).get_info(key)
        subject = f"$O.headrace.C.{info.nuid}"
        await js.purge_stream("OBJ_headrace", subject=subject)
        for at in range(0, len(data), info.options.max_chunk_size):
            await js.publish(subject, data[at : at + info.options.max_chunk_size])
        await nc.close()


class S3Rig:
    has_urls = True

    def __init__(self, server: S3Server) -> None:
        self.url = server.url
        self.pid = server.pid
        self._server = server

    def settings(self, url: str, secret: str = SECRET_KEY) -> S3Settings:
        return S3Settings(url, ACCESS_KEY, secret)

    def open(self, patience_s: float = 30.0) -> BlobStore:
        return self.open_at(self.url, patience_s)

    def open_at(self, url: str, patience_s: float) -> BlobStore:
        return S3Blobs(self.settings(url), timeout_s=patience_s)

    def open_as_stranger(self) -> BlobStore:
        return S3Blobs(self.settings(self.url, secret="wrong"), timeout_s=PATIENCE_S)

    def client(self) -> Minio:
        return Minio(urlsplit(self.url).netloc, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")

    async def kill(self) -> None:
        await self._server.kill()

    async def corrupt(self, key: str, data: bytes) -> None:
        def replace() -> None:
            client = self.client()
            sha256 = client.stat_object("headrace", key).metadata["x-amz-meta-sha256"]
            client.put_object("headrace", key, io.BytesIO(data), len(data), metadata={"sha256": sha256})
            client._http.clear()

        await asyncio.to_thread(replace)


@asynccontextmanager
async def start_jetstream(folder: Path) -> AsyncIterator[JetStreamRig]:
    async with GuardedNatsServer(folder, sync_always=False) as server:
        yield JetStreamRig(server)


@asynccontextmanager
async def start_weed(folder: Path) -> AsyncIterator[S3Rig]:
    """SeaweedFS."""
    async with S3Server("weed", folder) as server:
        yield S3Rig(server)


@asynccontextmanager
async def start_juicefs(folder: Path) -> AsyncIterator[S3Rig]:
    """The JuiceFS gateway: MinIO's S3 server."""
    async with S3Server("juicefs", folder) as server:
        yield S3Rig(server)


START = {"jetstream": start_jetstream, "weed": start_weed, "juicefs": start_juicefs}


class Bottleneck:
    """A way to a server that lets `limit_bytes` through towards it, and then no more: cut off, or stuck.

    `reached` is set at that moment, so a test knows that the fault really happened.
    """

    def __init__(self, server_url: str, limit_bytes: int, *, cut: bool) -> None:
        parts = urlsplit(server_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._scheme = parts.scheme
        self._left_bytes = limit_bytes
        self._cut = cut
        self.reached = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Bottleneck":
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = f"{self._scheme}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._listener.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers.add(server_writer)
        back = asyncio.create_task(self._copy(server_reader, writer))
        await self._copy(reader, server_writer, limited=True)
        await back

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, limited: bool = False) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                if limited:
                    self._left_bytes -= len(data)
                    if self._left_bytes < 0:
                        self._stop()
                        return
                sink.write(data)
                await sink.drain()
        sink.close()

    def _stop(self) -> None:
        self.reached.set()
        if self._cut:
            self._listener.close()
            for writer in self._writers:
                writer.transport.abort()


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def http(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of a plain request, as any client without our code makes it."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def some_bytes(size: int) -> bytes:
    return secrets.token_bytes(size)


async def _quiet(error: Exception) -> None:
    """Errors beside a request are what the store has to find by itself."""
