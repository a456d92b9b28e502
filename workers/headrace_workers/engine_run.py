"""One job in the engine: its frames become events, its deadlines become cancels and, past the grace, a kill."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import assert_never

from headrace_contracts import event as events
from headrace_contracts.clock import Clock
from headrace_contracts.errors import ErrorCode, Fault, Permanent
from headrace_workers.engine_host import EngineDied, EngineHost, Frames
from headrace_workers.frames import Canceled, Chunk, Done, Failed, OfRun, Progress, Run, Started
from headrace_workers.outcome import Interrupted, JobEnded, Suspected


class Stop(Enum):
    """Why a running job is to stop before its end."""

    CANCELED = auto()
    TIMEOUT = auto()
    SHUTDOWN = auto()


class EngineRun:
    """Runs one job in the engine. `stop` may be called at any time, from the same event loop."""

    def __init__(
        self,
        host: EngineHost,
        run: Run,
        job_id: str,
        limit_s: float,
        clock: Clock,
        started: Callable[[], Awaitable[None]],
        emit: Callable[[events.AnyEvent], Awaitable[None]],
    ) -> None:
        self._host = host
        self._run = run
        self._job_id = job_id
        self._limit_s = limit_s
        self._clock = clock
        self._started = started
        self._emit = emit
        self._frames: Frames | None = None
        self._opened_at = 0.0
        self._deadline: float | None = None
        """When its time is up; None until it has begun."""
        self._stop: Stop | None = None
        self._kill_at = 0.0
        self._chunks = 0

    def stop(self, why: Stop) -> None:
        """Stop the job at its next step; kill the engine if it does not stop within the grace."""
        if self._stop is not None:
            return
        self._stop = why
        self._kill_at = self._clock.monotonic() + self._host.spec.timeouts.stop_s
        self._host.cancel(self._run.run_id)
        if self._frames is not None and not self._frames.full():  # a full one wakes its reader anyway
            self._frames.put_nowait(None)

    async def result(self) -> Done:
        """Run the job to its end.

        Raises:
            JobError: the engine refused or failed the job, it ran for too long, or the engine died of it.
            Suspected: the engine was lost, and this job is one of several that may have done it.
            JobEnded: it was canceled.
            Interrupted: the worker is stopping, or the engine was killed for another job.
        """
        if self._stop is not None:
            raise self._why_stopped(self._stop)
        try:
            self._frames = self._host.open(self._run)
        except EngineDied as died:
            raise Interrupted(died.message) from died
        self._opened_at = self._clock.monotonic()
        try:
            while True:
                frame = await self._next_frame(self._frames)
                done = await self._handle(frame)
                if done is not None:
                    return done
        finally:
            self._host.close(self._run.run_id)

    async def _handle(self, frame: OfRun | EngineDied) -> Done | None:
        match frame:
            case EngineDied():
                raise self._after_death(frame)
            case Progress() | Chunk() if self._stop is not None:
                pass  # nobody waits for these any more, and telling them would hold up the end
            case Started():
                self._deadline = self._clock.monotonic() + self._limit_s
                await self._started()
            case Progress(step=step, total=total):
                await self._emit(events.Progress(self._job_id, self._clock.now(), self._run.attempt, step, total))
            case Chunk(text=text):
                chunk = events.Chunk(self._job_id, self._clock.now(), self._run.attempt, self._chunks, text)
                self._chunks += 1
                await self._emit(chunk)
            case Done():
                return frame
            case Failed():
                raise Suspected(frame.as_error()) if frame.shared else frame.as_error()
            case Canceled():
                assert self._stop is not None, "nobody asked for it"
                raise self._why_stopped(self._stop)
            case _:
                assert_never(frame)
        return None

    async def _next_frame(self, frames: Frames) -> OfRun | EngineDied:
        while True:
            try:
                async with asyncio.timeout_at(self._look_again_at()):
                    frame = await frames.get()
            except TimeoutError:
                self._lose_patience()
            else:
                if frame is not None:
                    return frame

    def _look_again_at(self) -> float:
        """When something is due if no frame comes; on the event loop's clock."""
        if self._stop is not None:
            due = self._kill_at
        else:
            due = self._silent_at if self._deadline is None else min(self._silent_at, self._deadline)
        return asyncio.get_running_loop().time() + max(0.0, due - self._clock.monotonic())

    @property
    def _silent_at(self) -> float:
        """When the engine, which was handed this job, counts as hung, whether it has begun it or not."""
        return max(self._host.last_frame_at, self._opened_at) + self._host.spec.timeouts.step_s

    def _lose_patience(self) -> None:
        now = self._clock.monotonic()
        if self._stop is not None:
            if now >= self._kill_at:
                self._host.kill(ErrorCode.ENGINE_HUNG, "the engine did not stop when told to", self._run.run_id)
                self._kill_at = now + self._host.spec.timeouts.stop_s
        elif self._deadline is not None and now >= self._deadline:
            self.stop(Stop.TIMEOUT)
        elif now >= self._silent_at:
            silence = f"no step of the engine in {self._host.spec.timeouts.step_s:g} s"
            # Any job of the batch may be the one that hangs.
            self._host.kill(ErrorCode.ENGINE_HUNG, silence, culprit=None)
            self._opened_at = now

    def _after_death(self, died: EngineDied) -> Exception:
        if self._stop is not None:
            return self._why_stopped(self._stop)
        if died.culprit == self._run.run_id:
            return died
        if died.culprit is not None or self._deadline is None:  # without a deadline it had not begun
            return Interrupted("the engine was lost through another job")
        return Suspected(died)

    def _why_stopped(self, why: Stop) -> Exception:
        match why:
            case Stop.CANCELED:
                return JobEnded("canceled")
            case Stop.SHUTDOWN:
                return Interrupted("the worker is stopping")
            case Stop.TIMEOUT:
                message = f"ran for longer than the {self._limit_s:g} s it was given"
                return Permanent(ErrorCode.TIMEOUT, message, Fault.MODEL)
            case _:
                assert_never(why)
