"""The synthetic engine: behaves as its input says. For measuring the queue, and for faults on demand."""

import ctypes
import os
import random
import signal
import time
from pathlib import Path
from typing import assert_never

from headrace_contracts.clock import Clock
from headrace_contracts.errors import ErrorCode, Fault, Permanent
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput, SyntheticOutput
from headrace_workers.engines.base import Finished, Sink, Work
from headrace_workers.frames import OutFile

ARTIFACT = "data.bin"


class SyntheticEngine:
    """Sleeps `step_s` for each step of every job it has, then ends each as its input says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[str, _Running] = {}

    def load(self, spec: ModelSpec, weights: Path | None, sink: Sink) -> str:  # noqa: ARG002 - it has no weights
        """Nothing to load, unless the model's options ask for a slow or failing start."""
        self._sink = sink
        time.sleep(float(spec.options.get("load_s") or 0.0))
        if spec.options.get("load_error"):
            raise RuntimeError(str(spec.options["load_error"]))
        return "cpu"

    @property
    def busy(self) -> bool:
        """Whether any job is in."""
        return bool(self._running)

    def admit(self, work: Work[SyntheticInput]) -> None:
        """Take a job in."""
        self._running[work.run_id] = _Running(work, self._clock.now().timestamp())

    def step(self) -> None:
        """One step of every job."""
        longest_s = max(running.work.input.step_s for running in self._running.values())
        for run_id, running in self._running.items():
            if running.steps_done == 0:
                self._sink.started(run_id)
        if longest_s:
            time.sleep(longest_s)
        for run_id, running in list(self._running.items()):
            running.steps_done += 1
            total = running.work.input.steps
            if total > 1:
                self._sink.progress(run_id, running.steps_done, total)
            if running.steps_done >= total:
                del self._running[run_id]
                self._end(running)

    def drop(self, run_id: str) -> None:
        """Forget a job."""
        self._running.pop(run_id, None)

    def _end(self, running: "_Running") -> None:
        work = running.work
        match work.input.behaviour:
            case Behaviour.OK:
                self._finish(running)
            case Behaviour.ERROR:
                self._sink.failed(
                    work.run_id, Permanent(ErrorCode.MODEL_ERROR, "the input asked for an error", Fault.MODEL)
                )
            case Behaviour.CRASH:
                os.kill(os.getpid(), signal.SIGSEGV)
            case Behaviour.CRASH_ONCE:
                if work.attempt == 1:
                    os.kill(os.getpid(), signal.SIGSEGV)
                self._finish(running)
            case Behaviour.HANG:
                ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter lock: no thread of this process runs
            case Behaviour.OUT_OF_MEMORY:
                raise MemoryError
            case _:
                assert_never(work.input.behaviour)

    def _finish(self, running: "_Running") -> None:
        work = running.work
        files: tuple[OutFile, ...] = ()
        if work.input.output_bytes:
            data = artifact_bytes(work.input.seed, work.input.output_bytes)
            (work.out_dir / ARTIFACT).write_bytes(data)
            files = (OutFile(ARTIFACT, "application/octet-stream"),)
        self._sink.finished(work.run_id, Finished(SyntheticOutput(work.input.echo, running.started_at), files))


class _Running:
    """A job and how far it is."""

    def __init__(self, work: Work[SyntheticInput], started_at: float) -> None:
        self.work = work
        self.started_at = started_at
        self.steps_done = 0


def artifact_bytes(seed: int, size_bytes: int) -> bytes:
    """The artifact of a job: follows from its input, so that anybody can check it."""
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311 - not a secret: anybody can compute it
