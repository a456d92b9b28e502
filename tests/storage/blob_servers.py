"""Real blob stores for tests: each kind of server as a child process, with what a test may do to it."""

import asyncio
import io
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import nats
from minio import Minio
from nats.aio.client import Client

from headrace_contracts.settings import S3Settings
from headrace_local.child import Child
from headrace_local.nats_server import NatsServer
from headrace_storage.blobs import BlobStore, JetStreamBlobs, MemoryBlobs
from headrace_storage.blobs.s3 import S3Blobs

START_DEADLINE_S = 60.0
# How long a store under test waits for a silent server.
PATIENCE_S = 0.5
ACCESS_KEY, SECRET_KEY = "admin", "secret12345"


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

    def __init__(self, port: int, server: Child) -> None:
        self.url = f"http://127.0.0.1:{port}"
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
    """SeaweedFS, in its all-in-one form."""
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "admin", "credentials": credentials, "actions": actions}]
    config.write_bytes(msgspec.json.encode({"identities": identities}))
    names = ("master", "volume", "filer", "s3", "admin")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        _program("weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
    async with _serve(command, folder, ports["s3"], "/healthz", {}) as rig:
        yield rig


@asynccontextmanager
async def start_juicefs(folder: Path) -> AsyncIterator[S3Rig]:
    """The JuiceFS gateway: MinIO's S3 server over local files."""
    juicefs, meta = [_program("juicefs"), "--no-agent"], f"sqlite3://{folder}/meta.db"
    formatting = [*juicefs, "format", meta, "jfs", "--storage", "file", "--bucket", f"{folder}/blocks/"]
    # Without it, deleted files stay on disk for a day.
    formatting += ["--trash-days", "0"]
    await asyncio.to_thread(subprocess.run, formatting, check=True, capture_output=True)
    port, metrics_port = _free_ports(2)
    command = [*juicefs, "gateway", meta, f"127.0.0.1:{port}", "--multi-buckets", "--keep-etag", "--object-meta"]
    command += ["--object-tag", "--no-usage-report", "--no-banner", "--metrics", f"127.0.0.1:{metrics_port}"]
    command += ["--cache-dir", f"{folder}/cache", "--cache-size", "256", "--buffer-size", "64M"]
    credentials = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    async with _serve(command, folder, port, "/minio/health/live", credentials) as rig:
        yield rig


START = {"jetstream": start_jetstream, "weed": start_weed, "juicefs": start_juicefs}


@asynccontextmanager
async def _serve(
    command: list[str], folder: Path, port: int, health: str, environment: dict[str, str]
) -> AsyncIterator[S3Rig]:
    """An S3 server that has stored its first object."""
    server = await Child.start(command, folder / "server.log", signal.SIGKILL, {**os.environ, **environment})
    rig = S3Rig(port, server)
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            await _until(lambda: _is_healthy(rig.url + health), server)
            await _until(lambda: _stores(rig.client()), server)
        yield rig
    finally:
        # Its store is thrown away, so there is nothing that it must finish.
        await server.kill()


async def _until(ready: Callable[[], bool], server: Child) -> None:
    while not await asyncio.to_thread(ready):
        if server.ended:
            raise RuntimeError(f"the server stopped at once: {server.last_words('FATAL', 'error')}")
        await asyncio.sleep(0.02)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def _stores(client: Minio) -> bool:
    # The first object is the slow one: the server makes room for it.
    try:
        if not client.bucket_exists("headrace"):
            client.make_bucket("headrace")
        client.put_object("headrace", "first", io.BytesIO(b"1"), 1)
        client.remove_object("headrace", "first")
    except Exception:
        return False
    finally:
        client._http.clear()
    return True


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


def _program(name: str) -> str:
    program = Path(sys.executable).with_name(name)
    assert program.is_file(), f"{name} is missing: pip install 'headrace[dev]'"
    return str(program)


def _free_ports(count: int) -> list[int]:
    """Ports p with p and p + 10000 free (SeaweedFS takes both), below those the kernel hands out to clients."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(11_000, 22_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def _quiet(error: Exception) -> None:
    """Errors beside a request are what the store has to find by itself."""
