"""The zygote that a scaler keeps beside it: started with it, started again when it dies, ended with it."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec
import structlog

from headrace_contracts.model import ModelSpec
from headrace_contracts.zygote import MemoryUse
from headrace_scaler.launchers.zygote import memory_of_zygote

# A zygote that dies is missed by nobody but the next cold start. Shorter: one that cannot start is tried in a circle.
AGAIN_AFTER_S = 10.0
LOOK_EVERY_S = 0.1


class ZygoteProcess:
    """Keeps one running while it is entered. Its socket is not there before it is warm, which takes seconds."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        cache: Path,
        environment: Mapping[str, str],
        log: Path,
        *,
        takes_along: bool = False,
    ) -> None:
        """
        Args:
            specs: models whose libraries it imports; none: those of every engine that is installed.
            cache: folder of the weight cache.
            environment: all its variables; its workers get others.
            log: its output is appended there.
            takes_along: its workers end with us, however we end.
        """
        # Of its own, and short: the path of a unix socket has room for 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-zygote-")
        self.path = Path(self._folder.name) / "socket"
        self.warm = asyncio.Event()
        """Set while its socket is there."""
        self._specs = specs
        self._takes_along = takes_along
        self._cache = cache
        self._environment = environment
        self._log_file = log
        self.pid = 0
        """Of the present one; 0 between two."""
        self._keeping: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._keeping is not None
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        self._folder.cleanup()

    async def memory(self) -> MemoryUse | None:
        """What it costs; None while it is not warm."""
        return await memory_of_zygote(self.path)

    async def _keep(self) -> None:
        while True:
            try:
                await self._live_once()
            except OSError as error:
                self._log.error("zygote not started", error=str(error))
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _live_once(self) -> None:
        with self._log_file.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self._command(),
                # It ends when this closes: with us, however we end.
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._environment,
                # A terminal's Ctrl-C is for us: we end it when its workers need it no more.
                start_new_session=True,
            )
        self.pid = process.pid
        warming = asyncio.create_task(self._tell_when_warm())
        try:
            status = await process.wait()
            self._log.warning(
                "zygote ended: workers start by exec until it is back", status=status, log=str(self._log_file)
            )
        finally:
            self.warm.clear()
            self.pid = 0
            warming.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it has nothing to put in order, and may stand still
            await process.wait()

    async def _tell_when_warm(self) -> None:
        use = await self.memory()
        while use is None:
            await asyncio.sleep(LOOK_EVERY_S)
            use = await self.memory()
        self.warm.set()
        mib = {"rss_mib": use.rss_bytes >> 20, "pss_mib": use.pss_bytes >> 20}
        self._log.info("zygote warm", engines=list(use.libraries), **mib)

    def _command(self) -> tuple[str, ...]:
        command = [sys.executable, "-m", "headrace_workers.zygote"]
        command.append("--take-along" if self._takes_along else "--die-with-starter")
        command += ["--socket", str(self.path), "--cache", str(self._cache)]
        for number, spec in enumerate(self._specs):
            file = Path(self._folder.name) / f"model-{number}.json"
            file.write_bytes(msgspec.json.encode(spec))
            command += ["--spec", str(file)]
        return tuple(command)
