"""The evidence sorted by job: what was asked, accepted, run, canceled, and how it ended. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace_contracts.names import job_id_of_subject
from headrace_contracts.result import Result
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticInput
from headrace_loadgen.evidence import Evidence, decode_result
from headrace_loadgen.records import (
    Accepted,
    BacklogRead,
    CancelAnswered,
    Canceling,
    Fault,
    FaultKind,
    NotAccepted,
    Plan,
    ResultRead,
    StoredMessage,
    Submitting,
)
from headrace_workers.engines.execution_journal import Entry, Moment

BROKER_FAULTS = frozenset({FaultKind.BROKER_KILL, FaultKind.BROKER_STOP, FaultKind.LEADER_KILL})
"""The broker forgets what it had not synced, or lets leases run out: it may give any job to somebody else."""
HOLDER_FAULTS = frozenset(
    {FaultKind.WORKER_KILL, FaultKind.WORKER_STOP, FaultKind.LINK_SILENT, FaultKind.LINK_SLOW, FaultKind.LINK_RESET}
)
"""The holder of a lease could not renew it."""
DEATHS = frozenset({FaultKind.WORKER_KILL, FaultKind.ENGINE_KILL, FaultKind.ENGINE_STOP})
"""An engine ended: one that is frozen for longer than a step may take is killed as hung."""
ENGINE_DEATHS = frozenset({"crash", "hang", "out_of_memory", "memory_error", "device_error"})
"""Ends of a run that take the engine process with them."""


@dataclass
class EngineRun:
    """One run of a job in an engine, from the engine's own journal."""

    run_id: str
    attempt: int
    pid: int
    start_s: float
    end_s: float
    """If it never said that it ended: the last sign of life of its process."""
    how: str
    """`finish`, how it ended otherwise, or empty: it never said."""

    @property
    def sequence(self) -> int:
        """Of the job's message."""
        return int(self.run_id.partition("-")[0])

    @property
    def delivery(self) -> int:
        """Which delivery of the job it ran, from 1."""
        return int(self.run_id.partition("-")[2])


@dataclass
class Ended:
    """A terminal result in the stream."""

    message: StoredMessage
    result: Result | None


@dataclass
class Story:
    """All that is known of one job."""

    job_id: str
    model: str = ""
    asked: SyntheticInput | None = None
    ttl_s: float | None = None
    submitted_at_s: float = 0.0
    accepted_at_s: list[float] = field(default_factory=list)
    not_accepted: list[NotAccepted] = field(default_factory=list)
    cancel_asked_at_s: list[float] = field(default_factory=list)
    cancels: list[CancelAnswered] = field(default_factory=list)
    reads: list[ResultRead] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    ended_at_s: float | None = None
    """When its first result was seen: a little after it was stored."""
    runs: list[EngineRun] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether the submitter has a receipt."""
        return bool(self.accepted_at_s)

    @property
    def result(self) -> Result | None:
        """Its end."""
        return self.ends[0].result if self.ends else None

    @property
    def behaviour(self) -> Behaviour | None:
        """What it was to do; None for a message that is no job."""
        return None if self.asked is None else self.asked.behaviour


@dataclass(frozen=True)
class History:
    """All jobs of a run, beside the evidence they come from."""

    evidence: Evidence
    jobs: dict[str, Story]
    strangers: list[Ended]
    """Results of jobs nobody submitted."""
    unknown_runs: list[Entry]
    """Starts of jobs nobody submitted."""
    backlogs: list[BacklogRead]
    engine_deaths: list[Entry]
    """Runs that took their engine with them."""

    @classmethod
    def of(cls, evidence: Evidence) -> "History":
        """Sort the evidence."""
        jobs, backlogs = _jobs_of(evidence)
        strangers = _add_results(jobs, evidence)
        unknown = _add_runs(jobs, evidence.engine)
        deaths = [entry for entry in evidence.engine if entry.how in ENGINE_DEATHS]
        return cls(evidence, jobs, strangers, unknown, backlogs, deaths)

    @property
    def plan(self) -> Plan:
        """How the run was set up."""
        return self.evidence.plan

    def faults_between(self, begin_s: float, end_s: float, kinds: frozenset[FaultKind]) -> Iterator[Fault]:
        """Faults of some kinds that were there at some moment between two."""
        for fault in self.evidence.faults:
            if fault.kind in kinds and fault.began_s <= end_s and fault.ended_s >= begin_s:
                yield fault


def _jobs_of(evidence: Evidence) -> tuple[dict[str, Story], list[BacklogRead]]:
    jobs: dict[str, Story] = {}
    backlogs: list[BacklogRead] = []
    for record in evidence.client:
        if isinstance(record, BacklogRead):
            backlogs.append(record)
            continue
        job = jobs.setdefault(record.job_id, Story(record.job_id))
        match record:
            case Submitting():
                if not job.model:
                    job.model, job.asked, job.ttl_s = record.model, record.asked, record.ttl_s
                    job.submitted_at_s = record.at_s
            case Accepted():
                job.accepted_at_s.append(record.at_s)
            case NotAccepted():
                job.not_accepted.append(record)
            case Canceling():
                job.cancel_asked_at_s.append(record.at_s)
            case CancelAnswered():
                job.cancels.append(record)
            case ResultRead():
                job.reads.append(record)
    return jobs, backlogs


def _add_results(jobs: dict[str, Story], evidence: Evidence) -> list[Ended]:
    """Every message of RESULTS that was ever seen, once; those of no job are returned."""
    strangers = []
    known: set[tuple[int, str, bytes]] = set()
    for message in [*evidence.seen, *evidence.results]:
        what = (message.sequence, message.subject, message.data)
        if what in known:
            continue
        known.add(what)
        ended = Ended(message, decode_result(message))
        job = jobs.get(job_id_of_subject(message.subject))
        if job is None:
            strangers.append(ended)
            continue
        job.ends.append(ended)
        job.ended_at_s = message.at_s if job.ended_at_s is None else min(job.ended_at_s, message.at_s)
    return strangers


def _add_runs(jobs: dict[str, Story], entries: list[Entry]) -> list[Entry]:
    unknown = []
    last_sign = {entry.pid: entry.monotonic_s for entry in sorted(entries, key=lambda entry: entry.monotonic_s)}
    open_runs: dict[tuple[int, str, str], EngineRun] = {}
    for entry in sorted(entries, key=lambda entry: entry.monotonic_s):
        key = (entry.pid, entry.run_id, entry.echo)
        if entry.moment is Moment.START:
            job = jobs.get(entry.echo)
            if job is None:
                unknown.append(entry)
                continue
            run = EngineRun(entry.run_id, entry.attempt, entry.pid, entry.monotonic_s, last_sign[entry.pid], "")
            open_runs[key] = run
            job.runs.append(run)
        elif key in open_runs:
            run = open_runs.pop(key)
            run.end_s = entry.monotonic_s
            run.how = "finish" if entry.moment is Moment.FINISH else entry.how
    return unknown
