"""The worker of a local system: one child process that runs all its models."""

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace_contracts.errors import HeadraceError
from headrace_local.child import Child

# A little more than a worker itself gives to what runs; then it is stuck.
STOP_DEADLINE_S = 45.0


class WorkerError(HeadraceError):
    """The worker cannot be started, or does not stay up."""


class WorkerProcess:
    """`headrace worker` for some models of the registry.

    Its output goes to `worker.log` in `folder`, files of running jobs to `scratch`, which each start empties: a worker
    that was killed could not clean up.
    """

    def __init__(self, models: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.log = folder / "worker.log"
        self._scratch = folder / "scratch"
        self._environment = {**environment, "TMPDIR": str(self._scratch)}
        self._command = [sys.executable, "-m", "headrace_workers"]
        for name in models:
            self._command += ["--model", name]
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the present run, None between two."""
        return None if self._child is None or self._child.ended else self._child.pid

    async def start(self) -> None:
        """Start the process; its engines become ready later, as its heartbeats tell.

        Raises:
            WorkerError: it cannot be started.
        """
        try:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch.mkdir(parents=True)
            # SIGKILL, should we be killed: without us and our broker it could only wait for both.
            self._child = await Child.start(self._command, self.log, signal.SIGKILL, self._environment)
        except OSError as error:
            raise WorkerError(f"the worker cannot be started: {error}") from error

    async def wait(self) -> str:
        """Wait for the end of the process, and say how it came, with the last error it wrote."""
        assert self._child is not None, "not started"
        how = await self._child.wait()
        self._child.kill_now()  # what it left behind
        last_words = self._child.last_words("rror")
        return f"{how}: {last_words[:300]}" if how.startswith("exit") else how

    async def stop(self) -> None:
        """Let it finish what runs and hand the rest back; does nothing if it does not run."""
        if self._child is not None:
            await self._child.stop(STOP_DEADLINE_S)

    def kill_now(self) -> None:
        """End it without waiting: its jobs are run again by the next worker."""
        if self._child is not None:
            self._child.kill_now()


def worker_environment(nats_url: str, own_server: bool, monitor_url: str | None = None) -> dict[str, str]:
    """Variables for the worker: ours, but with the address of the broker.

    Args:
        nats_url: of the broker.
        own_server: whether it is the embedded one, which knows no users: our credentials are for another.
        monitor_url: of the broker's monitoring port, where the worker sees whether it syncs what it acknowledges.
    """
    variables = {key: value for key, value in os.environ.items() if not (own_server and key.startswith("NATS_"))}
    if monitor_url is not None:
        variables["NATS_MONITOR_URL"] = monitor_url
    return {**variables, "NATS_URL": nats_url, "PYTHONUNBUFFERED": "1"}
