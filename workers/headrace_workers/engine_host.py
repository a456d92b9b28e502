"""The supervisor's side of one engine process: start it, talk to it, kill it, start it again.

Owns the process and its state; knows nothing of deliveries, leases or results.
"""

import asyncio
import collections
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.errors import ErrorCode, Fault, Retryable
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import ModelSpec
from headrace_workers.frames import (
    LENGTH,
    MAX_FRAME_BYTES,
    Cancel,
    Canceled,
    Chunk,
    Done,
    Failed,
    FromEngine,
    Load,
    LoadFailed,
    Progress,
    Ready,
    Run,
    Started,
    pack,
)
from headrace_workers.weights import ensure_in_subprocess

# Between starts of an engine that keeps dying. The first retry is at once: most deaths are one job's doing.
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0
# Starts in a row without a finished job after which the model is called unhealthy.
UNHEALTHY_AFTER = 5
# Lines of the engine's stderr kept for the log when it dies.
LAST_LINES = 20

JobFrame = Started | Progress | Chunk | Done | Failed | Canceled


class EngineDied(Retryable):
    """The engine process is gone; `culprit` is the run it was killed for, if it was."""

    def __init__(self, code: ErrorCode, message: str, culprit: str | None = None) -> None:
        super().__init__(code, message, Fault.MODEL)
        self.culprit = culprit


# None wakes the reader without a frame.
Frames = asyncio.Queue[JobFrame | EngineDied | None]


class EngineHost:
    """Keeps one engine process running for one model. Run `supervise` as a task; jobs come in by `open`."""

    def __init__(self, spec: ModelSpec, cache: Path, clock: Clock) -> None:
        self.spec = spec
        self.state = EngineState.LOADING
        self.detail = ""
        self.device = ""
        self.loading_since = clock.now()
        self.ready_at = clock.now()
        self.ready = asyncio.Event()
        self._cache = cache
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self.last_frame_at = clock.monotonic()
        self._runs: dict[str, Frames] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._last_lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._cause: EngineDied | None = None
        self._starts_without_result = 0
        self._log = structlog.get_logger().bind(model=spec.name)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever state or detail change; it must not raise."""
        self._listeners.append(listener)

    async def supervise(self) -> None:
        """Keep the engine running until canceled; then the process is gone."""
        try:
            while True:
                await self._live_once()
                self._starts_without_result += 1
                backoff_s = self._backoff_s()
                unhealthy = self._starts_without_result >= UNHEALTHY_AFTER
                self._set_state(EngineState.UNHEALTHY if unhealthy else EngineState.RECOVERING, self.detail)
                if backoff_s:
                    await asyncio.sleep(backoff_s)
        finally:
            await self._end_process()

    def open(self, run: Run) -> Frames:
        """Hand a job to the engine; its frames come on the queue until it ends or the engine does.

        Raises:
            EngineDied: there is no engine right now.
        """
        if self._writer is None or not self.ready.is_set():
            raise EngineDied(ErrorCode.ENGINE_CRASHED, "the engine is being started again")
        frames: Frames = asyncio.Queue()
        self._runs[run.run_id] = frames
        self._writer.write(pack(run))
        return frames

    def close(self, run_id: str) -> None:
        """Forget a job: no more of its frames are wanted."""
        self._runs.pop(run_id, None)

    def cancel(self, run_id: str) -> None:
        """Ask the engine to stop a job at its next step."""
        if self._writer is not None and run_id in self._runs:
            self._writer.write(pack(Cancel(run_id)))

    def kill(self, code: ErrorCode, reason: str, culprit: str | None) -> None:
        """End the process at once, because of one job if it is known which; it is started again."""
        if self._process is not None and self._process.returncode is None:
            self._cause = EngineDied(code, reason, culprit)
            self._process.kill()

    async def _live_once(self) -> None:
        """One life of the process: weights, start, load, serve."""
        self._cause = None
        self.loading_since = self._clock.now()
        self._set_state(self.state, "getting weights")
        try:
            weights = await ensure_in_subprocess(self.spec, self._cache, lambda line: self._set_state(self.state, line))
            async with asyncio.timeout(self.spec.timeouts.load_s):
                reader = await self._start(weights)
                first = await _read_frame(reader)
        except TimeoutError:
            self.detail = f"not loaded after {self.spec.timeouts.load_s:g} s"
        except _EndOfStream:
            self.detail = await self._describe_death()
        except Exception as error:  # noqa: BLE001 - weights: whatever it is, it ends this start only
            self.detail = str(error)
        else:
            if isinstance(first, Ready):
                self._now_ready(first)
                await self._serve(reader)
            elif isinstance(first, LoadFailed):
                self.detail = first.message
        self.ready.clear()
        self._set_state(EngineState.RECOVERING, self.detail)
        await self._end_process()
        self._fail_jobs()
        self._log.error("engine ended", detail=self.detail, stderr=list(self._last_lines))

    async def _start(self, weights: Path | None) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace_workers.engine_process",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(self.spec),
            )
        self._stderr_task = asyncio.create_task(self._read_stderr(self._process))
        self._set_state(self.state, "loading")
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_FRAME_BYTES)
        self._writer.write(pack(Load(self.spec, str(weights) if weights else None)))
        return reader

    def _now_ready(self, ready: Ready) -> None:
        self.device = ready.device
        self.ready_at = self._clock.now()
        self.ready.set()
        self._log.info(
            "engine ready", device=ready.device, import_s=round(ready.import_s, 3), load_s=round(ready.load_s, 3)
        )
        self._set_state(EngineState.READY, "")

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        """Pass frames to their jobs until the process ends."""
        while True:
            try:
                frame = await _read_frame(reader)
            except _EndOfStream:
                self.detail = await self._describe_death()
                return
            assert not isinstance(frame, (Ready, LoadFailed)), "a process loads once"
            self.last_frame_at = self._clock.monotonic()
            if isinstance(frame, Done):
                self._starts_without_result = 0
            if frame.run_id in self._runs:
                self._runs[frame.run_id].put_nowait(frame)

    async def _describe_death(self) -> str:
        assert self._process is not None
        status = await self._process.wait()
        if self._cause is not None:
            return self._cause.message
        if status < 0:
            return f"the engine process was ended by {signal.Signals(-status).name}"
        return f"the engine process exited with status {status}"

    def _fail_jobs(self) -> None:
        died = self._cause or EngineDied(ErrorCode.ENGINE_CRASHED, self.detail)
        for frames in self._runs.values():
            frames.put_nowait(died)

    async def _end_process(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
            await self._stderr_task
            self._process = None

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await _readline(process.stderr):
            self._last_lines.append(line.decode(errors="replace").rstrip()[:500])

    def _backoff_s(self) -> float:
        if self._starts_without_result <= 1:
            return 0.0
        return min(FIRST_BACKOFF_S * 2.0 ** (self._starts_without_result - 2), LONGEST_BACKOFF_S)

    def _set_state(self, state: EngineState, detail: str) -> None:
        self.state, self.detail = state, detail
        for listener in self._listeners:
            listener()


class _EndOfStream(Exception):
    """The engine process closed its end."""


async def _read_frame(reader: asyncio.StreamReader) -> FromEngine:
    try:
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return _decoder.decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise _EndOfStream from error


_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


async def _readline(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line longer than the buffer: what was buffered is dropped
        return b"\n"


def _environment(spec: ModelSpec) -> dict[str, str]:
    """The engine's environment: as many threads as the model may use, and no library reaches for a hub."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(spec.resources.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
