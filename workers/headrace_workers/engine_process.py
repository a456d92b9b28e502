"""The engine process: receive, admit, step, reply. Owns the device; knows neither broker nor store.

    python -m headrace_workers.engine_process IN OUT

IN and OUT are ends of two pipes; the supervisor has the others. When IN closes, this process ends. It may be killed at
any time: nothing here is needed after its death, and what it wrote until then is still read.
"""

import collections
import contextlib
import ctypes
import faulthandler
import fcntl
import os
import queue
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, JobError, Permanent, Retryable
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import input_type
from headrace_workers.engines.base import DeviceError, Engine, Finished, Work
from headrace_workers.engines.libraries import import_libraries
from headrace_workers.engines.registry import make_engine
from headrace_workers.frames import (
    LENGTH,
    Cancel,
    Canceled,
    Chunk,
    Done,
    Failed,
    Frame,
    Load,
    LoadFailed,
    Ping,
    Pong,
    Progress,
    Ready,
    Run,
    Started,
    ToEngine,
    pack,
)

_PR_SET_PDEATHSIG = 1
# Which signal a descriptor sends instead of SIGIO; Python has no name for it.
_F_SETSIG = 10
# A machine that is out of memory ends engines first: they are started again, and their supervisor tells what happened.
OOM_SCORE = 800
# Steps that follow each other faster than an eye can see are told together: telling costs three processes work.
PROGRESS_EVERY_S = 0.04


class PipeSink:
    """Reports to the supervisor; may be called from any thread."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._started_at: dict[str, float] = {}
        self._told_at: dict[str, float] = {}
        self.active: set[str] = set()
        """Jobs the engine has and that have not ended."""
        self.to_cancel: set[str] = set()

    def send(self, frame: Frame) -> None:
        """Send one frame."""
        with self._sending:
            self._pipe.write(pack(frame))
            self._pipe.flush()

    def started(self, run_id: str) -> None:
        """The engine has the job now."""
        if run_id not in self._started_at:
            self._started_at[run_id] = time.perf_counter()
            self.send(Started(run_id))

    def progress(self, run_id: str, step: float, total: float) -> None:
        """`step` of `total` are done; the first and the last are always told."""
        now = time.perf_counter()
        if step >= total or now - self._told_at.get(run_id, -PROGRESS_EVERY_S) >= PROGRESS_EVERY_S:
            self._told_at[run_id] = now
            self.send(Progress(run_id, step, total))

    def chunk(self, run_id: str, text: str) -> None:
        """The next piece of text."""
        self.send(Chunk(run_id, text))

    def finished(self, run_id: str, result: Finished) -> None:
        """The job succeeded."""
        run_s = time.perf_counter() - self._started_at.get(run_id, time.perf_counter())
        output = msgspec.Raw(msgspec.msgpack.encode(result.output))
        self._end(run_id, Done(run_id, output, result.files, result.usage, run_s))

    def failed(self, run_id: str, error: JobError, shared: bool = False) -> None:
        """The job failed; `shared`: or another one that was in the engine."""
        self._end(run_id, Failed(run_id, error.code, error.message, error.fault, error.retryable, shared))

    def dropped(self, run_id: str) -> None:
        """The job was stopped."""
        self._end(run_id, Canceled(run_id))

    def canceled(self, run_id: str) -> bool:
        """Whether the job should stop."""
        return run_id in self.to_cancel

    def _end(self, run_id: str, frame: Frame) -> None:
        if run_id in self.active:
            self.active.discard(run_id)
            self._started_at.pop(run_id, None)
            self._told_at.pop(run_id, None)
            self.send(frame)


class EngineProcess:
    """The loop around one engine."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, born: float) -> None:
        """`born` is when the process had its first line, on the clock of `time.perf_counter`."""
        self._born = born
        self._incoming = incoming
        self._sink = PipeSink(outgoing)
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._waiting: collections.deque[Run] = collections.deque()

    def main(self) -> int:
        """Load, then run jobs until the supervisor goes away; the exit status."""
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        load = self._inbox.get()
        assert isinstance(load, Load)
        engine = self._load(load)
        if engine is None:
            return 1
        while True:
            self._receive(engine, load.spec)
            if engine.busy:
                try:
                    engine.step()
                except Exception as error:  # noqa: BLE001 - the job boundary: the device may be in any state now
                    self._fail_all(error)
                    return 1

    def _load(self, load: Load) -> Engine[Any] | None:
        weights = Path(load.weights) if load.weights else None
        began = time.perf_counter()
        try:
            import_libraries(load.spec.engine, weights)
            engine = make_engine(load.spec.engine)
            imported = time.perf_counter()
            device = engine.load(load.spec, weights, self._sink)
            loaded = time.perf_counter()
            engine.warm_up()
        except Exception as error:  # noqa: BLE001 - whatever a library raises, the supervisor has to hear of it
            self._sink.send(LoadFailed(f"{type(error).__name__}: {error}"))
            return None
        phases = (self._born - load.ordered, imported - began, loaded - imported, time.perf_counter() - loaded)
        self._sink.send(Ready(device, *phases))
        return engine

    def _receive(self, engine: Engine[Any], spec: ModelSpec) -> None:
        """Take in what has arrived; wait only while there is nothing to do, and for company of a first job."""
        size = spec.batching.max_size
        if not engine.busy and not self._waiting:
            self._take_in(engine, self._inbox.get())
            self._wait_for_company(engine, spec)
        while not self._inbox.empty():
            self._take_in(engine, self._inbox.get())
        while self._waiting and self._occupied(engine) < size:
            self._admit(engine, spec, self._waiting.popleft())

    def _occupied(self, engine: Engine[Any]) -> int:
        """Jobs on the device; none while the engine is idle, though files of its last ones are still being written."""
        return len(self._sink.active) if engine.busy else 0

    def _wait_for_company(self, engine: Engine[Any], spec: ModelSpec) -> None:
        until = time.perf_counter() + spec.batching.max_wait_s
        while self._waiting and len(self._waiting) < spec.batching.max_size:
            try:
                self._take_in(engine, self._inbox.get(timeout=max(0.0, until - time.perf_counter())))
            except queue.Empty:
                return

    def _take_in(self, engine: Engine[Any], frame: ToEngine) -> None:
        match frame:
            case Run():
                self._waiting.append(frame)
            case Cancel(run_id=run_id):
                self._cancel(engine, run_id)
            case Ping():
                self._sink.send(Pong())
            case Load():
                raise AssertionError("a process loads one model")

    def _cancel(self, engine: Engine[Any], run_id: str) -> None:
        for run in self._waiting:
            if run.run_id == run_id:
                self._waiting.remove(run)
                self._sink.active.add(run_id)
                break
        engine.drop(run_id)
        self._sink.dropped(run_id)
        self._sink.to_cancel.discard(run_id)

    def _admit(self, engine: Engine[Any], spec: ModelSpec, run: Run) -> None:
        task_input = msgspec.msgpack.decode(run.input, type=input_type(spec.task))
        files = {field: Path(path) for field, path in run.files.items()}
        self._sink.active.add(run.run_id)
        self._sink.started(run.run_id)
        try:
            engine.admit(Work(run.run_id, run.attempt, task_input, files, Path(run.out_dir)))
        except JobError as error:
            self._sink.failed(run.run_id, error)
        except Exception as error:  # noqa: BLE001 - the job boundary: one input must not end the others
            self._sink.failed(run.run_id, _unforeseen(error))

    def _fail_all(self, error: Exception) -> None:
        active = list(self._sink.active)
        known = error if isinstance(error, JobError) else _unforeseen(error)
        for run_id in active:
            self._sink.failed(run_id, known, shared=len(active) > 1)

    def _read(self) -> None:
        """Frames from the pipe to the inbox; cancels are seen here, in the middle of a long step."""
        stream = self._incoming
        decoder = msgspec.msgpack.Decoder(ToEngine)
        while len(header := stream.read(LENGTH.size)) == LENGTH.size:
            frame = decoder.decode(stream.read(LENGTH.unpack(header)[0]))
            if isinstance(frame, Cancel):
                self._sink.to_cancel.add(frame.run_id)
            self._inbox.put(frame)
        os._exit(0)  # the supervisor is gone; the main thread may be deep in a library


def _unforeseen(error: Exception) -> JobError:
    """What a library's exception means. Its text stays here: it may quote the prompt."""
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return Retryable(ErrorCode.OUT_OF_MEMORY, "the engine ran out of memory", Fault.MODEL)
    if isinstance(error, DeviceError) or name == "AcceleratorError" or "CUDA error" in str(error):
        # Such an error stays with the process: every later call would fail as well.
        return Retryable(ErrorCode.DEVICE_ERROR, f"the device failed with {name}", Fault.WORKER)
    if isinstance(error, (ValueError, TypeError, KeyError)):
        return Permanent(ErrorCode.MODEL_ERROR, f"the model failed with {name}", Fault.MODEL)
    return Retryable(ErrorCode.MODEL_ERROR, f"the model failed with {name}", Fault.MODEL)


def main() -> int:
    """Run the engine process on the pipes whose numbers are the arguments."""
    born = time.perf_counter()
    if sys.platform == "linux":
        # The reader thread cannot notice that the supervisor died while a library holds the interpreter lock.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return _serve(born, int(sys.argv[1]), int(sys.argv[2]))


def serve_forked(incoming: int, outgoing: int, lifeline: int) -> int:
    """Run the engine process in a fork of a zygote, whose death is not ours.

    Args:
        incoming: descriptor to read frames from.
        outgoing: descriptor to write frames to.
        lifeline: end of a pipe that the supervisor keeps open: when that closes, the kernel kills us.
    """
    born = time.perf_counter()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    return _serve(born, incoming, outgoing)


def _serve(born: float, incoming: int, outgoing: int) -> int:
    with contextlib.suppress(OSError):  # not everywhere may a process offer itself
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    # A crash, and the abort of a hung process, write where they happened; a core would hold inputs and weights.
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C in a terminal reaches the whole group: it is the supervisor who decides what happens to running jobs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return EngineProcess(os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb"), born).main()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Not by the interpreter's own way out, which waits for a library's threads and for the reader, which reads on.
    os._exit(status)
