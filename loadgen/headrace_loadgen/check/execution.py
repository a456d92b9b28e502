"""Invariants of execution: who may run a job, when, and how often."""

import itertools
from collections.abc import Iterator

from headrace_contracts.tasks.synthetic import Behaviour
from headrace_loadgen.check.history import BROKER_FAULTS, DEATHS, HOLDER_FAULTS, EngineRun, History, Story
from headrace_loadgen.check.results import INNOCENT
from headrace_loadgen.check.verdict import Finding, Violation
from headrace_loadgen.records import FaultKind

_CANCEL_LOST = BROKER_FAULTS | HOLDER_FAULTS | {FaultKind.ENGINE_STOP}
"""A cancel is told to a running worker once, and the worker or the broker may be away then."""
_HANDED_BACK = frozenset({FaultKind.WORKER_TERM, FaultKind.WORKER_KILL})
_ECHO_LEASES = 3
"""How long deliveries from before a crash of the broker may still be answered, in leases."""
_KILLS_ENGINES = frozenset({Behaviour.CRASH, Behaviour.HANG, Behaviour.OUT_OF_MEMORY, Behaviour.STICKY})
_ENDS_BY_POISON = frozenset({"crash", "hang", "out_of_memory", "device_error"})


def mutual_exclusion(history: History) -> Iterator[Finding]:
    """Two runs of a job overlap only if the older delivery's holder, or the broker, was stopped, killed or cut off."""
    for job in history.jobs.values():
        runs = sorted(job.runs, key=lambda run: run.start_s)
        for number, later in enumerate(runs):
            for earlier in runs[:number]:
                if later.start_s >= earlier.end_s or _lease_may_have_lapsed(history, earlier, later):
                    yield None
                else:
                    both = f"{earlier.run_id} (pid {earlier.pid}) and {later.run_id} (pid {later.pid})"
                    yield Violation(job.job_id, f"{both} ran at once, and no lease had lapsed")


def no_start_after_end(history: History) -> Iterator[Finding]:
    """No engine starts a job after its cancel was acknowledged, or after it had a result."""
    slack_s = history.plan.start_slack_s
    for job in history.jobs.values():
        ended_at_s = _known_end_s(job)
        if ended_at_s is None:
            continue
        for run in job.runs:
            if run.start_s <= ended_at_s + slack_s or _cancel_may_be_lost(history, ended_at_s, run):
                yield None
            else:
                yield Violation(
                    job.job_id, f"{run.run_id} started {run.start_s - ended_at_s:.1f} s after the job had ended"
                )


def expiry(history: History) -> Iterator[Finding]:
    """No engine starts a job that has waited for longer than its ttl_s, counted from its receipt."""
    for job in history.jobs.values():
        if job.ttl_s is None or not job.accepted:
            continue
        last_s = job.accepted_at_s[0] + job.ttl_s + history.plan.start_slack_s
        for run in job.runs:
            away = any(history.faults_between(last_s - history.plan.start_slack_s, run.start_s, _CANCEL_LOST))
            late_s = run.start_s - last_s
            yield (
                Violation(job.job_id, f"{run.run_id} started {late_s:.1f} s too late")
                if (late_s > 0 and not away)
                else None
            )


def poison_capped(history: History) -> Iterator[Finding]:
    """A job kills as many engines as it may have attempts, not counting where its worker or broker was hit as well."""
    cap = history.plan.max_attempts
    for job in history.jobs.values():
        if job.behaviour not in _KILLS_ENGINES:
            continue
        kills = [run for run in job.runs if run.how in _ENDS_BY_POISON]
        counted = sum(not _uncounted(history, run) for run in kills)
        yield (
            Violation(job.job_id, f"it killed {len(kills)} engines, and {cap} attempts are allowed")
            if (counted > cap)
            else None
        )


def outages_cost_no_attempt(history: History) -> Iterator[Finding]:
    """An attempt of an innocent job is spent only where a worker or an engine died while it was there."""
    for job in history.jobs.values():
        if job.behaviour not in INNOCENT or job.result is None or not job.accepted or job.ended_at_s is None:
            continue
        spent = max(0, job.result.attempts - 1)
        begin_s, end_s = job.submitted_at_s, job.ended_at_s
        deaths = sum(1 for _ in history.faults_between(begin_s, end_s, DEATHS))
        # A worker that is frozen or cut off for longer than its lease cannot be told from a dead one.
        lapses = sum(
            fault.ended_s - fault.began_s > 0.5 * history.plan.lease_s
            for fault in history.faults_between(begin_s, end_s, HOLDER_FAULTS - DEATHS)
        )
        mates = 0
        if job.model not in history.plan.isolated_models:
            mates = sum(begin_s <= entry.monotonic_s <= end_s for entry in history.engine_deaths)
        yield (
            Violation(
                job.job_id,
                f"{spent} attempts spent, with {deaths} deaths, {lapses} lapses and {mates} crashes around it",
            )
            if spent > deaths + lapses + mates
            else None
        )


def outages_are_waited_out(history: History) -> Iterator[Finding]:
    """A job that was given back because of an outage rests before it is run again."""
    pause_s = 0.8 * history.plan.outage_delay_s
    for job in history.jobs.values():
        runs = sorted(job.runs, key=lambda run: run.start_s)
        for before, after in itertools.pairwise(runs):
            if before.how != "finish" or job.behaviour not in INNOCENT:
                continue
            lease_s = history.plan.lease_s
            disturbed = HOLDER_FAULTS | _HANDED_BACK
            if any(history.faults_between(before.start_s - lease_s, after.start_s, disturbed)):
                continue
            # A broker that crashed delivers again what is held; what the first holder answers then acts on the next.
            if any(history.faults_between(before.start_s - _ECHO_LEASES * lease_s, after.start_s, BROKER_FAULTS)):
                continue
            gap_s = after.start_s - before.end_s
            yield (
                Violation(job.job_id, f"{after.run_id} began {gap_s:.2f} s after the run before it was given back")
                if (gap_s < pause_s)
                else None
            )


def _lease_may_have_lapsed(history: History, earlier: EngineRun, later: EngineRun) -> bool:
    begin_s = earlier.start_s - history.plan.lease_s
    if any(history.faults_between(begin_s, later.start_s, BROKER_FAULTS)):
        return True
    # The older delivery may start last: what came to a worker that was frozen is found when it wakes.
    holder = min(earlier, later, key=lambda run: run.delivery).pid
    return any(holder in fault.pids for fault in history.faults_between(begin_s, later.start_s, HOLDER_FAULTS))


def _uncounted(history: History, run: EngineRun) -> bool:
    """Whether nobody may have been able to write down that this run failed."""
    lease_s = history.plan.lease_s
    begin_s, end_s = run.start_s - lease_s, run.end_s + 2 * lease_s
    if any(history.faults_between(begin_s, end_s, BROKER_FAULTS)):
        return True
    if any(history.faults_between(run.start_s, end_s, frozenset({FaultKind.WORKER_KILL}))):
        return True  # the engine was gone by then, so the log does not say whose it was
    return any(run.pid in fault.pids for fault in history.faults_between(begin_s, end_s, HOLDER_FAULTS))


def _cancel_may_be_lost(history: History, ended_at_s: float, run: EngineRun) -> bool:
    begin_s = ended_at_s - history.plan.lease_s
    for fault in history.faults_between(begin_s, run.start_s, _CANCEL_LOST):
        if fault.kind in BROKER_FAULTS or run.pid in fault.pids:
            return True
    return False


def _known_end_s(job: Story) -> float | None:
    """The first moment at which somebody knew that the job had ended."""
    told = [cancel.at_s for cancel in job.cancels if cancel.answer in ("canceled", "canceling")]
    ends = [] if job.ended_at_s is None else [job.ended_at_s]
    return min([*ends, *told], default=None)
