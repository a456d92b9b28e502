"""The synthetic engine: behaves as its input says. For measuring the queue, and for faults on demand.

Options: `load_s` (a slow start), `load_error` (a failing one), `journal` (a file that tells what really ran).
"""

import ctypes
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import ErrorCode, Fault, Permanent
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput, SyntheticOutput
from headrace_workers.engines.base import DeviceError, Finished, Sink, Work
from headrace_workers.engines.execution_journal import ExecutionJournal, Moment
from headrace_workers.engines.options import read_options
from headrace_workers.frames import OutFile

ARTIFACT = "data.bin"

# Memory and artifacts are made in pieces of this size: small beside any limit, large beside the cost of a call. A
# multiple of 4, for the generator makes 4 bytes at a time.
_PIECE_BYTES = 1 << 20


class SyntheticOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `options` of a model may set."""

    load_s: float = 0.0
    load_error: str | None = None
    journal: str | None = None


class SyntheticEngine:
    """Sleeps `step_s` for each step of every job it has, then ends each as its input says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._journal = ExecutionJournal(None, clock)
        self._device_is_broken = False
        self._leaked: list[bytearray] = []

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:  # noqa: ARG002 - it has no weights
        """Nothing to load, unless the model's options ask for a slow or failing start."""
        options = read_options(spec, SyntheticOptions)
        self._sink = sink
        self._journal = ExecutionJournal(Path(options.journal) if options.journal else None, self._clock)
        time.sleep(options.load_s)
        if options.load_error:
            raise RuntimeError(options.load_error)
        return "cpu"

    def warm_up(self) -> None:
        """There is no model to run."""

    @property
    def busy(self) -> bool:
        """Whether any job is in."""
        return bool(self._running)

    def admit(self, work: Work[SyntheticInput]) -> None:
        """Take a job in."""
        self._check_device()
        self._running[work.run_id] = _Running(work, self._clock.now().timestamp())

    def step(self) -> None:
        """One step of every job."""
        self._check_device()
        for run_id, running in self._running.items():
            if running.steps_done == 0:
                self._tell(Moment.START, running.work)
                self._sink.started(run_id)
        self._pass_time()
        for run_id, running in list(self._running.items()):
            running.steps_done += 1
            total = running.work.input.steps
            if total > 1:
                self._sink.progress(run_id, running.steps_done, total)
            if running.work.input.chunk_chars:
                self._sink.chunk(run_id, "x" * running.work.input.chunk_chars)
            if running.steps_done >= total:
                # Still in while it ends: what it raises ends every job that is in.
                self._end(running)
                del self._running[run_id]

    def drop(self, run_id: str) -> None:
        """Forget a job."""
        running = self._running.pop(run_id, None)
        if running is not None:
            self._tell(Moment.END, running.work, "dropped")

    def _pass_time(self) -> None:
        """One step of every job that asks between its steps; all steps of those that do not."""
        for running in self._running.values():
            asked = running.work.input
            if asked.behaviour is Behaviour.IGNORES_CANCEL:
                for _ in range(running.steps_done, asked.steps - 1):
                    time.sleep(asked.step_s)
                    running.steps_done += 1
                    self._sink.progress(running.work.run_id, running.steps_done, asked.steps)
        longest_s = max(running.work.input.step_s for running in self._running.values())
        if longest_s:
            time.sleep(longest_s)

    def _end(self, running: "_Running") -> None:
        work = running.work
        asked = work.input
        match asked.behaviour:
            case Behaviour.OK | Behaviour.HUGE_OUTPUT | Behaviour.IGNORES_CANCEL:
                self._finish(running)
            case Behaviour.ERROR:
                error = Permanent(ErrorCode.MODEL_ERROR, "the input asked for an error", Fault.MODEL)
                self._tell(Moment.END, work, "error")
                self._sink.failed(work.run_id, error)
            case Behaviour.CRASH:
                self._crash(work)
            case Behaviour.CRASH_ONCE:
                if work.attempt == 1:
                    self._crash(work)
                self._finish(running)
            case Behaviour.HANG:
                self._tell(Moment.END, work, "hang")
                ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter lock: no thread of this process runs
            case Behaviour.OUT_OF_MEMORY:
                self._tell(Moment.END, work, "out_of_memory")
                raise MemoryError
            case Behaviour.MEMORY_HOG:
                self._take_memory(work)
                self._finish(running)
            case Behaviour.STICKY:
                self._tell(Moment.END, work, "device_error")
                self._device_is_broken = True
                self._check_device()
            case Behaviour.LEAK:
                self._leaked.append(_resident(asked.memory_bytes))
                self._finish(running)
            case Behaviour.NAN:
                self._finish(running, began=math.nan)
            case Behaviour.EMPTY:
                self._finish(running, writes=False)
            case _:
                assert_never(asked.behaviour)

    def _finish(self, running: "_Running", began: float | None = None, writes: bool = True) -> None:
        """Report success, or an output that is none: an engine looks at what it made before it says that it is done."""
        work = running.work
        output = SyntheticOutput(work.input.echo, running.started_at if began is None else began)
        files: tuple[OutFile, ...] = ()
        if work.input.output_bytes and writes:
            with (work.out_dir / ARTIFACT).open("wb") as file:
                file.writelines(artifact_pieces(work.input.seed, work.input.output_bytes))
            files = (OutFile(ARTIFACT, "application/octet-stream"),)
        problem = _problem(work.input, output, files)
        if problem is not None:
            self._tell(Moment.END, work, "invalid_output")
            self._sink.failed(work.run_id, Permanent(ErrorCode.INVALID_OUTPUT, problem, Fault.MODEL))
            return
        self._tell(Moment.FINISH, work)
        self._sink.finished(work.run_id, Finished(output, files))

    def _crash(self, work: Work[SyntheticInput]) -> None:
        self._tell(Moment.END, work, "crash")
        os.kill(os.getpid(), signal.SIGSEGV)

    def _take_memory(self, work: Work[SyntheticInput]) -> None:
        taken = []
        try:
            for begin in range(0, work.input.memory_bytes, _PIECE_BYTES):
                taken.append(_resident(min(_PIECE_BYTES, work.input.memory_bytes - begin)))
        except MemoryError:
            taken.clear()  # what follows needs some
            self._tell(Moment.END, work, "memory_error")
            raise

    def _check_device(self) -> None:
        if self._device_is_broken:
            raise DeviceError("the device cannot be used any more in this process")

    def _tell(self, moment: Moment, work: Work[SyntheticInput], how: str = "") -> None:
        self._journal.write(moment, work.run_id, work.attempt, work.input.echo, how)


class _Running:
    """A job and how far it is."""

    def __init__(self, work: Work[SyntheticInput], started_at: float) -> None:
        self.work = work
        self.started_at = started_at
        self.steps_done = 0


def artifact_bytes(seed: int, size_bytes: int) -> bytes:
    """The artifact of a job: follows from its input, so that anybody can check it."""
    return b"".join(artifact_pieces(seed, size_bytes))


def artifact_pieces(seed: int, size_bytes: int) -> Iterator[bytes]:
    """The same piece by piece, in little memory."""
    source = random.Random(seed)  # noqa: S311 - not a secret: anybody can compute it
    for begin in range(0, size_bytes, _PIECE_BYTES):
        yield source.randbytes(min(_PIECE_BYTES, size_bytes - begin))


def _problem(asked: SyntheticInput, output: SyntheticOutput, files: tuple[OutFile, ...]) -> str | None:
    """What is wrong with an output; None if it can be given out."""
    if not math.isfinite(output.engine_started_at):
        return "the model computed a value that is not a number"
    if asked.output_bytes and not files:
        return "the model made no artifact"
    return None


def _resident(size_bytes: int) -> bytearray:
    """Memory that is really there: pages nobody wrote to cost nothing."""
    return bytearray(b"\x01") * size_bytes
