"""A nats-server of our own: started from its package, ready on entry, stopped on exit.

Its configuration is the safe one: every write is synced to disk before it is acknowledged (a server with the default
`sync_interval` loses acknowledged jobs in a power cut), and storage has explicit limits.
"""

import asyncio
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from headrace_contracts.errors import HeadraceError
from headrace_local.child import Child

RANDOM_PORT = -1
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
# With less, JetStream starts and then refuses the first jobs, which looks like a fault of theirs.
MIN_FREE_BYTES = 64 << 20


class NatsServerError(HeadraceError):
    """nats-server cannot be started; the message says why, and what to do."""


def find_nats_server() -> str:
    """Path of the nats-server program: beside this Python (its package), else on PATH.

    Raises:
        NatsServerError: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise NatsServerError(
            "there is no nats-server here: `pip install 'headrace[local]'`, or set NATS_URL to a running one"
        )
    return found


class NatsServer:
    """One server process with its store in `folder`; the same folder again finds what was queued."""

    def __init__(
        self,
        folder: Path,
        port: int = RANDOM_PORT,
        sync_always: bool = True,
        max_store_bytes: int = 16 << 30,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Nothing is started yet.

        Args:
            folder: for store, configuration and log.
            port: `RANDOM_PORT` takes a free one; later starts keep it.
            sync_always: whether an acknowledged write survives a power cut.
            max_store_bytes: most bytes on disk.
            keep_open: file descriptors the process inherits.
        """
        self.folder = folder
        self.port = port
        self.monitor_port = RANDOM_PORT
        self._sync = "always" if sync_always else "2m"
        self._max_store_bytes = max_store_bytes
        self._keep_open = keep_open
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """URL for clients on this machine."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        """URL of the monitoring port, on loopback: where the settings the server runs with can be seen."""
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._child is None else self._child.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and wait until it accepts clients.

        Raises:
            NatsServerError: there is no such program, its folder cannot be used, its port is taken, or it was not
                ready in time.
        """
        program = find_nats_server()
        config = self._prepare_folder()
        log = self.folder / "nats.log"
        # SIGTERM, not SIGKILL, should we be killed: it takes milliseconds and leaves nothing to recover.
        self._child = await Child.start([program, "-c", str(config)], log, signal.SIGTERM, keep_open=self._keep_open)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                self.port, self.monitor_port = await self._announced_ports(self._child, Path(program).name)
        except TimeoutError:
            await self.stop()
            raise NatsServerError(f"nats-server was not ready after {START_DEADLINE_S:g} s: see {log}") from None
        except BaseException:  # a Ctrl-C included: nobody would stop it later
            await self.stop()
            # Nobody needs this one to stay; were it the port that is taken, no later start could succeed.
            self.monitor_port = RANDOM_PORT
            raise

    async def wait(self) -> str:
        """Wait for the end of the process, and say how it came."""
        assert self._child is not None, "not started"
        return await self._child.wait()

    async def stop(self) -> None:
        """Stop the process and wait for its end; does nothing if it does not run."""
        child, self._child = self._child, None
        if child is not None:
            await child.stop(STOP_DEADLINE_S)

    async def kill(self) -> None:
        """End the process as a crash would: SIGKILL."""
        child, self._child = self._child, None
        assert child is not None, "not running"
        await child.kill()

    def _prepare_folder(self) -> Path:
        """Write the configuration; its path."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < MIN_FREE_BYTES:
                raise OSError(f"less than {MIN_FREE_BYTES >> 20} MiB are free on its disk")
            for old in self.folder.glob("*.ports"):
                old.unlink()
            config = self.folder / "nats.conf"
            config.write_text(self._configuration())
        except OSError as error:
            raise NatsServerError(
                f"the queue cannot be kept in {self.folder} ({error.strerror or error}): "
                "make room there, or choose another folder with --dir"
            ) from error
        return config

    async def _announced_ports(self, child: Child, program_name: str) -> tuple[int, int]:
        """The ports for clients and for monitoring, from the file nats-server writes once it listens."""
        announced = self.folder / f"{program_name}_{child.pid}.ports"
        while True:
            if child.ended:
                raise self._explained(child.last_words("[FTL]", "error"))
            if announced.is_file() and (text := announced.read_bytes()).strip():
                urls = msgspec.json.decode(text, type=dict[str, list[str]])
                return _port(urls["nats"]), _port(urls["monitoring"])
            await asyncio.sleep(0.005)

    def _explained(self, last_words: str) -> NatsServerError:
        if "address already in use" in last_words:
            return NatsServerError(
                f"port {self.port} is taken by another program: choose another with --port, "
                f"or, if it is a NATS server you want to use, set NATS_URL={self.url}"
            )
        return NatsServerError(f"nats-server stopped at once: {last_words}")

    def _configuration(self) -> str:
        folder = msgspec.json.encode(str(self.folder.resolve())).decode()  # quoted as nats-server reads it
        return f"""\
server_name: headrace
listen: "127.0.0.1:{self.port}"
http: "127.0.0.1:{self.monitor_port}"
ports_file_dir: {folder}
max_payload: 8MB
jetstream {{
    store_dir: {folder}
    sync_interval: "{self._sync}"
    max_file_store: {self._max_store_bytes}
    max_memory_store: {1 << 30}
}}
"""


def _port(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])
