"""Keeps one engine process alive for one model: load, serve, watch, replace, start again.

Owns the model's state and who is in the engine; knows nothing of deliveries, leases or results.
"""

import asyncio
import collections
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.errors import ENGINE_LOST, ErrorCode, Fault, Retryable
from headrace_contracts.heartbeat import ColdStart, EngineState
from headrace_contracts.model import ModelSpec
from headrace_workers.accounting import EngineAccount
from headrace_workers.cold_start import phases
from headrace_workers.engine_child import ChildEnded, End, EngineChild
from headrace_workers.engine_health import Health
from headrace_workers.engine_words import without_inputs
from headrace_workers.frames import (
    Cancel,
    Canceled,
    Done,
    Failed,
    Load,
    LoadFailed,
    OfRun,
    Ping,
    Pong,
    Ready,
    Run,
    Started,
)
from headrace_workers.recycling import Bounds
from headrace_workers.weights import ensure_in_subprocess

# How often memory, age and signs of life are looked at. Longer lets a runaway process take more before it is ended.
WATCH_EVERY_S = 0.5
# Frames of a run that its reader has not taken yet; then the engine is made to wait.
MAX_FRAMES_AHEAD = 256
# Inputs whose words are withheld from an engine's last lines: of the jobs that can have made it write them.
LAST_INPUTS = 256


class EngineDied(Retryable):
    """The engine process is gone.

    `culprit` is the run it died of, where that is known: it was killed for it, or no other had begun. None: any of
    those in it may have done it.
    """

    def __init__(self, end: End, culprit: str | None = None, last_lines: tuple[str, ...] = ()) -> None:
        super().__init__(end.code, end.message, Fault.MODEL)
        self.end = end
        self.culprit = culprit
        self.last_lines = last_lines

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.end, self.culprit, self.last_lines))


# None wakes the reader without a frame.
Frames = asyncio.Queue[OfRun | EngineDied | None]


class EngineHost:
    """Keeps one engine process running for one model. Run `supervise` as a task; jobs come in by `open`."""

    def __init__(
        self,
        spec: ModelSpec,
        cache: Path,
        clock: Clock,
        rng: random.Random,
        account: EngineAccount | None = None,
        before: ColdStart = ColdStart(),  # noqa: B008 - frozen
    ) -> None:
        """`before` is what the first start took until now."""
        self.spec = spec
        self.account = account or EngineAccount(clock)
        self.state = EngineState.LOADING
        self.detail = ""
        self.device = ""
        self.loading_since = clock.now()
        self.ready_at = clock.now()
        self.last_frame_at = clock.monotonic()
        self.cold_start = ColdStart()
        """Where the time of the last start went; spawning and connecting are told by the worker."""
        self.ready = asyncio.Event()
        """Set while jobs may be handed in."""
        self._before = before
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._listeners: list[Callable[[], None]] = []
        self._runs: dict[str, Frames] = {}
        self._last_inputs: collections.deque[bytes] = collections.deque(maxlen=LAST_INPUTS)
        self._begun: set[str] = set()
        self._child: EngineChild | None = None
        self._culprit: str | None = None
        self._recycling: str | None = None
        self._bounds = Bounds(None, None, None)
        self._loaded_bytes, self._loaded_at = 0, 0.0
        self._tolerated_bytes = 0
        """What a process that is being replaced may have: those still in it are not charged for what others kept."""
        self._jobs_done = 0
        self._ran_jobs = False
        self._failed_by: ErrorCode | None = None
        """What the engine itself said it was lost by."""
        self._health = Health()
        self._log = structlog.get_logger().bind(model=spec.name)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever state or detail change; it must not raise."""
        self._listeners.append(listener)

    async def supervise(self) -> None:
        """Keep the engine running until canceled; then the process is gone."""
        while True:
            await self._live_once()
            self._set_state(self._health.down_state, self.detail)
            if self._health.backoff_s:
                await asyncio.sleep(self._health.backoff_s)

    def open(self, run: Run) -> Frames:
        """Hand a job to the engine; its frames come on the queue until it ends or the engine does.

        Raises:
            EngineDied: there is no engine right now.
        """
        if self._child is None or not self.ready.is_set():
            raise EngineDied(End(ErrorCode.ENGINE_CRASHED, "the engine is being started again"))
        frames: Frames = asyncio.Queue(MAX_FRAMES_AHEAD)
        self._runs[run.run_id] = frames
        self._last_inputs.append(bytes(run.input))
        self._child.send(run)
        return frames

    def close(self, run_id: str) -> None:
        """Forget a job: no more of its frames are wanted."""
        frames = self._runs.pop(run_id, None)
        self._begun.discard(run_id)
        self.account.leave(run_id)
        while frames is not None and not frames.empty():
            frames.get_nowait()  # whoever waits to put one goes on
        self._recycle_if_idle()

    def cancel(self, run_id: str) -> None:
        """Ask the engine to stop a job at its next step."""
        if self._child is not None and run_id in self._runs:
            self._child.send(Cancel(run_id))

    def kill(self, code: ErrorCode, reason: str, culprit: str | None) -> None:
        """End the process at once, because of one job if it is known which; it is started again."""
        if self._child is not None:
            self._culprit = self._culprit or culprit
            self._child.kill(End(code, reason))

    async def _live_once(self) -> None:
        """One life of the process: weights, start, load, serve."""
        self._culprit = self._recycling = None
        self._jobs_done, self._ran_jobs, self._failed_by, self._tolerated_bytes = 0, False, None, 0
        self.loading_since = self._clock.now()
        end = End(ErrorCode.ENGINE_CRASHED, "")
        lines: tuple[str, ...] = ()
        try:
            end = await self._load_and_serve()
            self.account.down()  # not when the worker is stopping: no engine is started then
        finally:
            self.ready.clear()
            if self._child is not None:
                await self._child.close()
                # They go with the dead letter of one job and may quote another's, of another tenant.
                lines = tuple(without_inputs(self._child.last_lines, self._last_inputs))
                self._child = None
        self.detail = end.message
        if self._recycling is not None:
            self._health = self._health.after_recycling()
            self._log.info("engine recycled", reason=self._recycling)
        else:
            self._health = self._health.after_fault(self._failed_by or end.code)
            # What it wrote while it ran jobs may quote them: that is kept with their dead letters only.
            told = (f"{len(lines)} lines",) if self._ran_jobs else lines
            self._log.error("engine ended", code=end.code, detail=end.message, stderr=told)
        self._set_state(self._health.down_state, self.detail)
        await self._fail_runs(end, lines)

    async def _load_and_serve(self) -> End:
        """Returns what the process ended of."""
        load_s = self.spec.timeouts.load_s
        try:
            self._set_state(self._health.down_state, "getting weights")
            began = self._clock.monotonic()
            weights = await ensure_in_subprocess(
                self.spec, self._cache, lambda line: self._set_state(self._health.down_state, line)
            )
            self._set_state(self._health.down_state, "loading")
            ordered = self._clock.monotonic()
            self._child = child = await EngineChild.start(self.spec)
            child.send(Load(self.spec, str(weights) if weights else None, ordered))
            async with asyncio.timeout(load_s):
                first = await child.read()
        except TimeoutError:
            return End(ErrorCode.ENGINE_HUNG, f"not loaded after {load_s:g} s")
        except ChildEnded:
            return await child.ended()
        except Exception as error:  # noqa: BLE001 - weights: whatever it is, it ends this start only
            return End(ErrorCode.ENGINE_CRASHED, str(error))
        if not isinstance(first, Ready):
            return End(ErrorCode.ENGINE_CRASHED, first.message if isinstance(first, LoadFailed) else "it does not load")
        self._bounds = Bounds.draw(self.spec.recycle, self._rng)
        self._loaded_bytes, self._loaded_at = child.resident_bytes, self._clock.monotonic()
        self._now_ready(first, phases(self._before, ordered - began, first, forked=child.forked))
        watching = asyncio.create_task(self._watch(child))
        try:
            return await self._serve(child)
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    def _now_ready(self, ready: Ready, start: ColdStart) -> None:
        self.device = ready.device
        self.cold_start, self._before = start, ColdStart()
        self.ready_at = self._clock.now()
        self.last_frame_at = self._clock.monotonic()
        self.ready.set()
        self.account.ready()
        self._log.info("engine ready", device=ready.device, **msgspec.structs.asdict(start))
        self._set_state(self._health.loaded_state, "")

    async def _serve(self, child: EngineChild) -> End:
        """Pass frames to their jobs until the process ends."""
        while True:
            try:
                frame = await child.read()
            except ChildEnded:
                return await child.ended()
            self.last_frame_at = self._clock.monotonic()
            match frame:
                case Pong():
                    continue
                case Ready() | LoadFailed():
                    raise AssertionError("a process loads once")
                case Started():
                    self._begun.add(frame.run_id)
                    self._ran_jobs = True
                    if frame.run_id in self._runs:
                        self.account.enter(frame.run_id)
                case Done():
                    self._jobs_done += 1
                    self._proved()
                    self._replace_if_due(child)
                case Failed(code=code) if code in ENGINE_LOST:
                    self._failed_by = code
            if isinstance(frame, (Done, Failed, Canceled)):
                self._begun.discard(frame.run_id)
                self.account.leave(frame.run_id)
            if frame.run_id in self._runs:
                await self._runs[frame.run_id].put(frame)

    def _proved(self) -> None:
        """A job succeeded: whatever went wrong before is over."""
        if self._jobs_done == 1:
            first_s = round((self._clock.now() - self.ready_at).total_seconds(), 4)
            self.cold_start = msgspec.structs.replace(self.cold_start, first_result_s=first_s)
        self._health = self._health.after_job()
        if self.state is EngineState.RECOVERING:
            self._set_state(EngineState.READY, "")

    async def _watch(self, child: EngineChild) -> None:
        """Look at the process now and then: its memory, its age, and whether it still answers."""
        limit, step_s = self.spec.resources.host_memory_bytes, self.spec.timeouts.step_s
        asked_at: float | None = None
        was_over = False
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self._replace_if_due(child)
            resident = child.resident_bytes if limit and self._runs else 0
            if resident > max(limit, self._tolerated_bytes) and was_over:
                message = f"the engine process took {resident >> 20} MiB and its limit is {limit >> 20} MiB"
                self.kill(ErrorCode.OUT_OF_MEMORY, message, culprit=None)
            # Twice in a row: a job that goes over at its very end is let go, and the process is replaced after it.
            was_over = resident > limit
            now = self._clock.monotonic()
            if self._runs:
                asked_at = None  # each run has a deadline of its own
            elif asked_at is None or self.last_frame_at >= asked_at:
                asked_at = now
                child.send(Ping())
            elif now - asked_at > step_s:
                self.kill(ErrorCode.ENGINE_HUNG, f"no answer of the idle engine in {step_s:g} s", None)

    def _replace_if_due(self, child: EngineChild) -> None:
        """Begin to replace a process that has reached a bound: it gets no more jobs, and ends with its last one.

        Looked at after every job, so that the next one is not charged for the memory that the last one kept.
        """
        if self._recycling is None:
            resident, age_s = child.resident_bytes, self._clock.monotonic() - self._loaded_at
            limit = self.spec.resources.host_memory_bytes
            self._recycling = self._bounds.reached(self._jobs_done, resident - self._loaded_bytes, age_s)
            if self._recycling is None and limit and resident > limit:
                self._recycling = f"it takes {resident >> 20} MiB and its limit is {limit >> 20} MiB"
            if self._recycling is not None:
                self._tolerated_bytes = resident + resident // 4
                self.ready.clear()
                self._set_state(EngineState.LOADING, f"being replaced: {self._recycling}")
                self._take_back(child)
        self._recycle_if_idle()

    def _take_back(self, child: EngineChild) -> None:
        """Give back the jobs that were handed in and have not begun."""
        for run_id in [run_id for run_id in self._runs if run_id not in self._begun]:
            child.send(Cancel(run_id))
            self._runs.pop(run_id).put_nowait(EngineDied(End(ErrorCode.ENGINE_CRASHED, "the engine is being replaced")))

    def _recycle_if_idle(self) -> None:
        if self._recycling is not None and not self._runs and self._child is not None:
            self._child.kill(End(ErrorCode.ENGINE_CRASHED, f"replaced: {self._recycling}"))

    async def _fail_runs(self, end: End, lines: tuple[str, ...]) -> None:
        culprit = self._culprit
        if culprit is None and len(self._begun) == 1:
            [culprit] = self._begun
        self._begun.clear()
        for frames in list(self._runs.values()):
            await frames.put(EngineDied(end, culprit, lines))

    def _set_state(self, state: EngineState, detail: str) -> None:
        self.state, self.detail = state, detail
        for listener in self._listeners:
            listener()
