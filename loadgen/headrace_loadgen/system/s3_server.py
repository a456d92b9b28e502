"""A real S3 server of our own that can be killed and started again over the same files.

Two kinds: `juicefs` (its gateway is MinIO's S3 server, over local files) and `weed` (SeaweedFS, all in one).
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import msgspec

from headrace_contracts.errors import BlobError, HeadraceError
from headrace_contracts.settings import S3Settings
from headrace_local.child import Child
from headrace_storage.blobs.s3 import S3Blobs

START_DEADLINE_S = 60.0
ACCESS_KEY, SECRET_KEY = "admin", "secret12345"

S3Kind = Literal["juicefs", "weed"]


class S3ServerError(HeadraceError):
    """The server cannot be started; the message says why."""


class S3Server:
    """One server process with its objects in `folder`. Started on entry; killed on exit, for nothing is kept."""

    def __init__(self, kind: S3Kind, folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self._child: Child | None = None
        self._environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._child is not None, "not running"
        return self._child.pid

    @property
    def settings(self) -> S3Settings:
        """Its address and credentials."""
        return S3Settings(self.url, ACCESS_KEY, SECRET_KEY)

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._command, self.port, self._health = await asyncio.to_thread(_PREPARE[self._kind], self._folder)
        if self._kind == "juicefs":
            self._environment = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._child is not None:
            await self.kill()

    async def start(self) -> None:
        """Start the process, and wait until it has stored an object.

        Raises:
            S3ServerError: it stopped at once.
            TimeoutError: it was not ready in time.
        """
        environment = {**os.environ, **self._environment}
        self._child = await Child.start(self._command, self._folder / "server.log", signal.SIGKILL, environment)
        async with asyncio.timeout(START_DEADLINE_S):
            await self._until(self._is_healthy)
            # The first object is the slow one: the server makes room for it.
            while not await self._stores():  # noqa: ASYNC110 - another process: only asking tells
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it as a crash would; its files stay."""
        child, self._child = self._child, None
        assert child is not None, "not running"
        await child.kill()

    async def _until(self, ready: Callable[[], bool]) -> None:
        assert self._child is not None
        while not await asyncio.to_thread(ready):
            if self._child.ended:
                raise S3ServerError(f"{self._kind} stopped at once: {self._child.last_words('FATAL', 'error')}")
            await asyncio.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._health, timeout=1) as answer:  # noqa: S310 - our own http URL
                return bool(answer.status == 200)
        except OSError:
            return False

    async def _stores(self) -> bool:
        try:
            async with S3Blobs(self.settings, timeout_s=5.0) as blobs:
                await blobs.put("ready", b"1", "text/plain")
                await blobs.delete("ready")
        except BlobError:
            return False
        return True


def _prepare_weed(folder: Path) -> tuple[list[str], int, str]:
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "admin", "credentials": credentials, "actions": actions}]
    config.write_bytes(msgspec.json.encode({"identities": identities}))
    names = ("master", "volume", "filer", "s3", "admin")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        program("weed"),
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
    return command, ports["s3"], "/healthz"


def _prepare_juicefs(folder: Path) -> tuple[list[str], int, str]:
    juicefs, meta = [program("juicefs"), "--no-agent"], f"sqlite3://{folder}/meta.db"
    formatting = [*juicefs, "format", meta, "jfs", "--storage", "file", "--bucket", f"{folder}/blocks/"]
    # Without it, deleted files stay on disk for a day.
    formatting += ["--trash-days", "0"]
    subprocess.run(formatting, check=True, capture_output=True)
    port, metrics_port = free_ports(2)
    command = [*juicefs, "gateway", meta, f"127.0.0.1:{port}", "--multi-buckets", "--keep-etag", "--object-meta"]
    command += ["--object-tag", "--no-usage-report", "--no-banner", "--metrics", f"127.0.0.1:{metrics_port}"]
    command += ["--cache-dir", f"{folder}/cache", "--cache-size", "256", "--buffer-size", "64M"]
    return command, port, "/minio/health/live"


_PREPARE: dict[S3Kind, Callable[[Path], tuple[list[str], int, str]]] = {
    "weed": _prepare_weed,
    "juicefs": _prepare_juicefs,
}


def program(name: str) -> str:
    """Path of a program that came as a Python package.

    Raises:
        S3ServerError: it is not there.
    """
    found = Path(sys.executable).with_name(name)
    if not found.is_file():
        raise S3ServerError(f"{name} is missing: pip install 'headrace[loadgen]'")
    return str(found)


def free_ports(count: int) -> list[int]:
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
