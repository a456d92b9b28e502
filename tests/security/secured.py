"""A broker as `headrace auth init` sets it up, and processes in its roles: real commands, real server."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from headrace_contracts.settings import Settings, load_settings
from headrace_local.nats_server import find_nats_server
from headrace_storage.auth.folder import read_record, role_folder
from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection

TRUSTED, OTHER, UNTRUSTED = "acme", "other", "stranger"
TENANTS = ("--tenant", TRUSTED, "--tenant", OTHER, "--untrusted-tenant", UNTRUSTED)
DEADLINE_S = 20.0
MODEL = "echo"
MODEL_FILE = """\
name = "echo"
task = "synthetic"
engine = "synthetic"

[batching]
max_size = 4
"""


class Ran(msgspec.Struct):
    """A command that has ended."""

    status: int
    out: str
    err: str


class SecuredBroker:
    """A nats-server with the generated configuration. `processes` are ours, and end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[asyncio.subprocess.Process] = []
        self._has_worker = False
        self.temporary: Path | None = None
        """Where workers have their temporary files, if not where the system has them."""

    async def start(self, *options: str) -> None:
        made = await self.headrace(
            None, "auth", "init", str(self.folder), "--listen", f"127.0.0.1:{free_port()}", *options
        )
        assert made.status == 0, made.err
        await self.serve()

    async def serve(self) -> None:
        log_path = self.folder / "nats.log"
        began = log_path.stat().st_size if log_path.exists() else 0
        with log_path.open("ab") as log:
            server = await asyncio.create_subprocess_exec(
                find_nats_server(), "-c", str(self.folder / "nats.conf"), stderr=log, stdout=log
            )
        self.processes.append(server)
        async with asyncio.timeout(DEADLINE_S):
            while b"Server is ready" not in log_path.read_bytes()[began:]:
                assert server.returncode is None, log_path.read_text()
                await asyncio.sleep(0.01)

    async def set_up(self) -> None:
        """As the operator does it: streams, then a model."""
        (self.folder / "echo.toml").write_text(MODEL_FILE)
        for arguments in (("auth", "apply", str(self.folder)), ("models", "add", str(self.folder / "echo.toml"))):
            ran = await self.headrace(Role.ADMIN, *arguments)
            assert ran.status == 0, ran.err

    def environment(self, role: Role | None, tenant: str | None = None) -> dict[str, str]:
        """Of a process in a role: nothing but HEADRACE_CONFIG."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "S3_", "HEADRACE_"))}
        if role is None:
            return clean
        return {**clean, "HEADRACE_CONFIG": str(self.folder / role_folder(role, tenant) / "headrace.toml")}

    def settings(self, role: Role, tenant: str | None = None) -> Settings:
        return load_settings(self.environment(role, tenant))

    def connection(self, role: Role, tenant: str | None = None) -> Connection:
        return Connection(self.settings(role, tenant).nats)

    async def headrace(self, role: Role | None, *arguments: str, tenant: str | None = None) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace.cli", *arguments),
            env=self.environment(role, tenant),
            cwd=self.folder.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def start_worker(self, *models: str) -> asyncio.subprocess.Process:
        options = [word for model in models for word in ("--model", model)]
        with (self.folder / "worker.log").open("ab") as log:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace.cli", "worker", "--log-level", "debug", *options),
                env={**self.environment(Role.WORKER), **({"TMPDIR": str(self.temporary)} if self.temporary else {})},
                stderr=log,
            )
        self.processes.append(worker)
        return worker

    def refused(self, role: Role) -> list[str]:
        """What the server refused to a role of the operator, from its log."""
        [user] = [user for user in read_record(self.folder).plan.users if user.role is role]
        lines = (self.folder / "nats.log").read_text().splitlines()
        return [line for line in lines if "Violation" in line and user.public_key in line]

    async def restart(self) -> None:
        """The server alone: processes on it reconnect."""
        server = self.processes.pop(0)
        server.terminate()
        await server.wait()
        await self.serve()
        self.processes.insert(0, self.processes.pop())

    async def ensure_worker(self) -> None:
        """One worker for MODEL, however often this is called."""
        if not self._has_worker:
            self._has_worker = True
            await self.start_worker(MODEL)

    async def stop(self) -> None:
        for process in reversed(self.processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(20):
                        await process.wait()
                except TimeoutError:
                    process.kill()
            await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
