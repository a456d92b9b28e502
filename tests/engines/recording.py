"""A bench for engines: a sink that writes down everything, and jobs that are driven to their end."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from recordings import decode_to

from headrace_contracts.errors import JobError
from headrace_contracts.model import ModelSpec
from headrace_workers.engines.base import Engine, Finished, Work

DEADLINE_S = 120.0
"""Far beyond any run here: a test that waits this long hangs."""


class Record:
    """All that was reported of one job."""

    def __init__(self) -> None:
        self.started = 0
        self.progress: list[tuple[float, float]] = []
        self.chunks: list[str] = []
        self.finished: Finished | None = None
        self.failed: JobError | None = None
        self.reports = 0

    @property
    def ended(self) -> bool:
        return self.finished is not None or self.failed is not None

    @property
    def output(self) -> Any:
        assert self.failed is None, self.failed
        assert self.finished is not None
        return self.finished.output


class RecordingSink:
    """Writes down every report; `on_report` is called after each, and may cancel."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.to_cancel: set[str] = set()
        self.on_report: Callable[[str, Record], None] | None = None
        self._changed = threading.Condition()

    def started(self, run_id: str) -> None:
        record = self._of(run_id)
        record.started += 1
        self._reported(run_id)

    def progress(self, run_id: str, step: float, total: float) -> None:
        msgspec.msgpack.encode((step, total))
        self._of(run_id).progress.append((step, total))
        self._reported(run_id)

    def chunk(self, run_id: str, text: str) -> None:
        self._of(run_id).chunks.append(text)
        self._reported(run_id)

    def finished(self, run_id: str, result: Finished) -> None:
        assert not self._of(run_id).ended, "a job ends once"
        # The report crosses a process border: what the codec cannot take (a numpy float) would end the engine.
        msgspec.msgpack.encode(result)
        self._of(run_id).finished = result
        self._reported(run_id)

    def failed(self, run_id: str, error: JobError) -> None:
        assert not self._of(run_id).ended, "a job ends once"
        self._of(run_id).failed = error
        self._reported(run_id)

    def canceled(self, run_id: str) -> bool:
        return run_id in self.to_cancel

    def wait_for_end(self, run_id: str) -> Record:
        """Block until the job ended; files are written by another thread."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._of(run_id).ended, DEADLINE_S), f"{run_id} never ended"
        return self._of(run_id)

    def _of(self, run_id: str) -> Record:
        return self.records.setdefault(run_id, Record())

    def _reported(self, run_id: str) -> None:
        record = self._of(run_id)
        record.reports += 1
        if self.on_report is not None:
            self.on_report(run_id, record)
        with self._changed:
            self._changed.notify_all()


class Bench:
    """A loaded engine with its sink."""

    def __init__(self, engine: Engine[Any], spec: ModelSpec, weights: Path | None, folder: Path) -> None:
        self.engine = engine
        self.spec = spec
        self.sink = RecordingSink()
        self._folder = folder
        self._jobs = 0
        self.device = engine.load(spec, weights, self.sink)
        engine.warm_up()

    def work(self, job_input: Any, **files: Path) -> Work[Any]:
        """A new job, not yet taken in; a recording is decoded for it."""
        self._jobs += 1
        run_id = f"job-{self._jobs}"
        out_dir = self._folder / run_id
        out_dir.mkdir()
        if "audio" in files:
            samples = out_dir / ".samples"
            decode_to(files["audio"], samples)
            files = {**files, "audio": samples}
        return Work(run_id, 1, job_input, files, out_dir)

    def admit(self, job_input: Any, **files: Path) -> str:
        """Take a new job in; its id."""
        work = self.work(job_input, **files)
        self.engine.admit(work)
        return work.run_id

    def record(self, run_id: str) -> Record:
        return self.sink.records.setdefault(run_id, Record())

    def step_until_idle(self) -> int:
        """Step while there is anything to do; the number of steps."""
        steps = 0
        while self.engine.busy:
            self.engine.step()
            steps += 1
            assert steps < 10_000, "never idle"
        return steps

    def run(self, *inputs: Any, **files: Path) -> list[Record]:
        """Run jobs together, to their ends."""
        ids = [self.admit(job_input, **files) for job_input in inputs]
        self.step_until_idle()
        return [self.sink.wait_for_end(run_id) for run_id in ids]

    def out_dir(self, run_id: str) -> Path:
        return self._folder / run_id
