"""Histories for the checker, written by hand: a run in which everything went well, to be broken in one place."""

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from headrace_contracts.errors import ErrorCode, Fault
from headrace_contracts.file import Artifact
from headrace_contracts.result import Result, ResultError, Status
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput, SyntheticOutput
from headrace_loadgen.check import check
from headrace_loadgen.evidence import Evidence
from headrace_loadgen.records import (
    Accepted,
    AnyClientRecord,
    Blob,
    Final,
    Plan,
    StoredMessage,
    StreamState,
    Submitting,
)
from headrace_workers.engines.execution_journal import Entry, Moment

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "m"
LEASE_S = 3.0


class Run:
    """Evidence in the making. Times are seconds; each job takes one, unless it is told otherwise."""

    def __init__(self) -> None:
        self.client: list[AnyClientRecord] = []
        self.engine: list[Entry] = []
        self.seen: list[StoredMessage] = []
        self.blobs: list[Blob] = []
        self.rest: dict[str, object] = {}

    def asked(self, job_id: str, at_s: float = 0.0, ttl_s: float | None = None, **fields: object) -> SyntheticInput:
        asked = SyntheticInput(echo=job_id, **fields)  # type: ignore[arg-type]
        self.client += [Submitting(at_s, job_id, MODEL, asked, ttl_s), Accepted(at_s, job_id)]
        return asked

    def ran(
        self, job_id: str, run_id: str, start_s: float, end_s: float | None = None, how: str = "", pid: int = 7
    ) -> None:
        self.engine.append(Entry(Moment.START, run_id, 1, pid, job_id, "", start_s, 0.0))
        if end_s is not None:
            moment = Moment.END if how else Moment.FINISH
            self.engine.append(Entry(moment, run_id, 1, pid, job_id, how, end_s, 0.0))

    def ended(
        self,
        job_id: str,
        at_s: float = 2.0,
        status: Status = Status.SUCCEEDED,
        code: ErrorCode | None = None,
        attempts: int = 1,
        artifacts: tuple[Artifact, ...] = (),
        echo: str | None = None,
    ) -> StoredMessage:
        output = SyntheticOutput(echo or job_id, 0.0) if status is Status.SUCCEEDED else None
        result = Result(
            id=job_id,
            model=MODEL,
            version="1",
            status=status,
            output=msgspec.Raw(msgspec.json.encode(output)),
            attempts=attempts,
            created_at=NOW,
            completed_at=NOW,
            artifacts=artifacts,
            error=ResultError(code, "", Fault.MODEL, retryable=False) if code else None,
        )
        sequence = len(self.seen) + 1
        stored = NOW + timedelta(seconds=at_s)
        data = msgspec.json.encode(result)
        message = StoredMessage(at_s, sequence, f"results.chaos.{MODEL}.{job_id}", {}, data, stored)
        self.seen.append(message)
        return message

    def stored(self, job_id: str, asked: SyntheticInput, at_s: float = 1.5) -> Artifact:
        """The artifact of a job, in the store."""
        data = random.Random(asked.seed).randbytes(asked.output_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"chaos/{MODEL}/{job_id}/1-abc/data.bin"
        self.blobs.append(Blob(key, len(data), sha256, NOW + timedelta(seconds=at_s)))
        return Artifact("data.bin", key, sha256, len(data), "application/octet-stream")

    def evidence(self) -> Evidence:
        state = StreamState(len(self.seen), 1, len(self.seen), 0)
        final = Final(True, 1.0, state, (), (), (), tuple(self.blobs), ("exit status 0",))
        plan = Plan(0, LEASE_S, 3, 5.0, 1.0, isolated_models=(MODEL,))
        whole = Evidence(plan, self.client, self.engine, [], self.seen, list(self.seen), final)
        return replace(whole, **self.rest)  # type: ignore[arg-type]


def good_run() -> Run:
    """Three jobs: one plain, one with an artifact, one poisonous."""
    run = Run()
    run.asked("plain")
    run.ran("plain", "1-1", 1.0, 1.5)
    run.ended("plain")
    asked = run.asked("file", output_bytes=100, seed=5)
    run.ran("file", "2-1", 1.0, 1.5)
    run.ended("file", artifacts=(run.stored("file", asked),))
    run.asked("poison", behaviour=Behaviour.CRASH)
    for number in range(3):
        run.ran("poison", f"3-{number + 1}", 2.0 + number, 2.5 + number, how="crash", pid=20 + number)
    run.ended("poison", 6.0, Status.FAILED, ErrorCode.POISONED, attempts=3)
    return run


def violated(run: Run) -> dict[str, list[str]]:
    """Names of the invariants that do not hold, with the problems."""
    return {v.invariant: [x.problem for x in v.violations] for v in check(run.evidence()) if v.violations}
