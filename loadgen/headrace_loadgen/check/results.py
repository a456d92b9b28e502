"""Invariants of results: every job has exactly one, it is final, and it is true."""

from collections import Counter
from collections.abc import Iterator

from headrace_contracts import codec
from headrace_contracts.errors import ErrorCode
from headrace_contracts.result import Result, Status
from headrace_contracts.tasks.synthetic import Behaviour, SyntheticOutput
from headrace_loadgen.check.history import BROKER_FAULTS, History, Story
from headrace_loadgen.check.verdict import Finding, Violation

INNOCENT = frozenset({Behaviour.OK, Behaviour.LEAK, Behaviour.HUGE_OUTPUT, Behaviour.IGNORES_CANCEL})
"""These have no reason to fail."""
CAN_SUCCEED = INNOCENT | {Behaviour.CRASH_ONCE, Behaviour.MEMORY_HOG}


def conservation(history: History) -> Iterator[Finding]:
    """Every job with a receipt has exactly one result."""
    for job in history.jobs.values():
        if job.accepted and len(job.ends) != 1:
            places = ", ".join(str(ended.message.sequence) for ended in job.ends)
            yield Violation(job.job_id, f"{len(job.ends)} results (sequences: {places or 'none'})")
        elif not job.accepted and len(job.ends) > 1:
            yield Violation(job.job_id, f"no receipt, and {len(job.ends)} results")
        else:
            yield None


def strangers(history: History) -> Iterator[Finding]:
    """Every result and every run belongs to a job that somebody submitted."""
    for ended in history.strangers:
        yield Violation("", f"a result at {ended.message.subject}")
    for entry in history.unknown_runs:
        yield Violation("", f"an engine ran {entry.echo!r}")
    for _ in history.jobs:
        yield None


def readable(history: History) -> Iterator[Finding]:
    """Every message of RESULTS is a result of the job its subject names."""
    for job in history.jobs.values():
        for ended in job.ends:
            if ended.result is None:
                yield Violation(job.job_id, f"sequence {ended.message.sequence} is no result")
            elif ended.result.id != job.job_id:
                yield Violation(job.job_id, f"its result says that it is of job {ended.result.id}")
            else:
                yield None


def truth(history: History) -> Iterator[Finding]:
    """A result says what really happened: success only of what can succeed and finished, with its own output."""
    for job in history.jobs.values():
        if job.result is None:
            continue
        problem = _untrue(job, job.result)
        yield Violation(job.job_id, problem) if problem else None


def innocents_succeed(history: History) -> Iterator[Finding]:
    """A job that does nothing wrong succeeds, unless its submitter canceled it or let it expire."""
    for job in history.jobs.values():
        if job.behaviour not in INNOCENT or job.result is None:
            continue
        allowed = {Status.SUCCEEDED}
        if job.cancel_asked_at_s:
            allowed.add(Status.CANCELED)
        if job.ttl_s is not None:
            allowed.add(Status.EXPIRED)
        if job.result.status in allowed:
            yield None
        else:
            error = job.result.error
            said = f"{error.code}: {error.message}" if error else "no error"
            yield Violation(job.job_id, f"{job.behaviour} ended as {job.result.status} ({said})")


def client_view(history: History) -> Iterator[Finding]:
    """What a client was told is what the stream says: a cancel that was acknowledged is the result, a result is it."""
    for job in history.jobs.values():
        status = job.result.status if job.result else None
        for cancel in job.cancels:
            told = cancel.answer.removeprefix("already ")
            told = Status.CANCELED if told in ("canceled", "canceling") else told
            yield None if status == told else Violation(job.job_id, f"cancel said {cancel.answer!r}, result: {status}")
        for read in job.reads:
            yield None if status == read.status else Violation(job.job_id, f"a client read {read.status}, now {status}")


def backlog_is_whole(history: History) -> Iterator[Finding]:
    """The backlog counts every job that has not ended, those that workers hold included."""
    slack_s = 0.5
    for seen in history.backlogs:
        begin_s, end_s = seen.asked_at_s - slack_s, seen.at_s + slack_s
        if any(history.faults_between(begin_s - history.plan.lease_s, end_s, BROKER_FAULTS)):
            continue  # a consumer that was just restored counts anew
        unfinished = sum(
            job.model == seen.model
            and job.accepted
            and job.accepted_at_s[0] < begin_s
            # A message leaves the queue after its result is seen, never before it is stored.
            and (job.ended_at_s is None or job.ended_at_s > end_s + slack_s)
            for job in history.jobs.values()
        )
        short = unfinished - seen.jobs
        yield (
            Violation("", f"{unfinished} jobs of {seen.model} had not ended, {seen.jobs} were counted")
            if (short > 0)
            else None
        )


def rewritten(history: History) -> Iterator[Finding]:
    """What was read of a stream as it grew is what it has at the end."""
    at_the_end = {message.sequence: message for message in history.evidence.results}
    for message in history.evidence.seen:
        now = at_the_end.get(message.sequence)
        if now is None:
            yield Violation("", f"sequence {message.sequence} of {message.subject} is gone")
        elif (now.subject, now.data) != (message.subject, message.data):
            yield Violation("", f"sequence {message.sequence} was {message.subject}, and is another message now")
        else:
            yield None
    for subject, count in Counter(message.subject for message in at_the_end.values()).items():
        yield Violation("", f"{count} messages at {subject}") if count > 1 else None


def _untrue(job: Story, result: Result) -> str | None:
    """What is wrong with what a result says; None if nothing is."""
    code = result.error.code if result.error else None
    if (result.status is Status.SUCCEEDED) != (result.error is None):
        return f"{result.status} with error {code}"
    match result.status:
        case Status.CANCELED:
            return None if job.cancel_asked_at_s else "canceled, and nobody asked for it"
        case Status.EXPIRED:
            return None if job.ttl_s is not None else "expired without a ttl_s"
        case Status.FAILED:
            if job.behaviour in (Behaviour.NAN, Behaviour.EMPTY) and code not in (
                ErrorCode.INVALID_OUTPUT,
                ErrorCode.POISONED,
            ):
                return f"{job.behaviour} failed as {code}"
            return None
        case Status.SUCCEEDED:
            return _untrue_success(job, result)


def _untrue_success(job: Story, result: Result) -> str | None:
    if job.asked is None or job.behaviour not in CAN_SUCCEED:
        return f"{job.behaviour or 'no job'} succeeded"
    if not any(run.how == "finish" for run in job.runs):
        return "it succeeded, and no engine finished it"
    message = job.ends[0].message
    output = codec.decode(result.output, SyntheticOutput, codec.encoding_of(message.headers, message.data))
    if output.echo != job.asked.echo:
        return "it has the output of another job"
    return None
