"""A job that a worker has had: it runs, is about to, or waits for its next attempt. Pure."""

from datetime import timedelta

import msgspec

from headrace.durations import duration
from headrace.explaining.facts import Explanation, Facts, lane_of
from headrace.explaining.no_worker import no_worker
from headrace.job_status import JobState
from headrace.worker_phase import engines_of, phase_of
from headrace_contracts.event import Retrying, Started
from headrace_contracts.heartbeat import WorkerPhase


def in_hand(facts: Facts) -> Explanation:
    """Who has it, or when it is tried again."""
    at = next((w.id for w, e in engines_of(facts.model, facts.workers) if facts.job_id in e.running), None)
    if at is None and facts.retrying is not None:
        return _to_be_tried_again(facts, facts.retrying)
    if at is not None or facts.started is not None:
        return _running(facts, at)
    holding = [(w, e) for w, e in engines_of(facts.model, facts.workers) if e.held]
    if holding:
        return _held(
            facts, [w.id for w, _ in holding], loading=any(phase_of(w, e) is WorkerPhase.STARTING for w, e in holding)
        )
    return _lost(facts, "A worker has had it and given it back, or died before it began")


def _running(facts: Facts, at: str | None) -> Explanation:
    started = facts.started
    if at is None:
        assert started is not None
        if started.worker not in {worker.id for worker in facts.workers}:
            return _lost(facts, f"Worker {started.worker} began it at {started.at:%H:%M:%S} UTC and is gone")
        at = started.worker
    # An event of an earlier attempt says nothing of this one.
    current = started if started is not None and started.worker == at and facts.retrying is None else None
    said = f"It runs now on worker {at}{_since(facts, current)}."
    if current is not None and facts.done is not None:
        said = f"{said.removesuffix('.')}, {facts.done:.0%} done."
    return Explanation(JobState.RUNNING, (said, *_failures(facts)), f"`headrace watch {facts.job_id}` follows it")


def _since(facts: Facts, started: Started | None) -> str:
    if started is None:
        return ""
    ago = duration(max(0.0, (facts.now - started.at).total_seconds()))
    return f" since {started.at:%H:%M:%S} UTC ({ago} ago, attempt {started.attempt})"


def _to_be_tried_again(facts: Facts, retrying: Retrying) -> Explanation:
    most = facts.spec.retry.max_attempts if facts.spec is not None else 0
    due = retrying.at + timedelta(seconds=retrying.delay_s)
    left_s = (due - facts.now).total_seconds()
    failed = (
        f"Attempt {retrying.attempt} of {most} failed at {retrying.at:%H:%M:%S} UTC: "
        f"{retrying.message} [{retrying.code}]."
    )
    if left_s > 0:
        said = f"It waits for its next attempt, in {duration(left_s)}."
        return _if_none_is_there(facts, Explanation(JobState.QUEUED, (said, failed), start_in_s=left_s))
    said = f"Its next attempt is due since {duration(-left_s)}: the next free worker takes it."
    return _if_none_is_there(facts, Explanation(JobState.QUEUED, (said, failed)))


def _held(facts: Facts, workers: list[str], *, loading: bool) -> Explanation:
    who = f"Worker {workers[0]} has" if len(workers) == 1 else f"One of the workers {', '.join(workers)} has"
    why = "its engine is not ready yet" if loading else "it begins when the engine is done with the job before"
    return Explanation(JobState.QUEUED, (f"{who} it in hand: {why}.", *_failures(facts)))


def _lost(facts: Facts, what: str) -> Explanation:
    lane = lane_of(facts)
    lease = "its lease" if lane is None else f"its lease of {duration(lane.ack_wait_s)}"
    said = f"{what}: the next worker that asks gets it, once {lease} is over at the latest."
    return _if_none_is_there(facts, Explanation(JobState.QUEUED, (said, *_failures(facts))))


def _if_none_is_there(facts: Facts, explanation: Explanation) -> Explanation:
    """With the reason why no worker will take it, where that is so."""
    if any(phase_of(w, e) is not WorkerPhase.DRAINING for w, e in engines_of(facts.model, facts.workers)):
        return explanation
    nobody = no_worker(facts)
    sentences = (*explanation.sentences, *nobody.sentences)
    return msgspec.structs.replace(explanation, sentences=sentences, advice=nobody.advice, start_in_s=None)


def _failures(facts: Facts) -> tuple[str, ...]:
    """What went wrong before, as the record of attempts has it."""
    if not facts.attempts.failures:
        return ()
    last = facts.attempts.failures[-1]
    count = facts.attempts.spent
    most = "" if facts.spec is None else f" of {facts.spec.retry.max_attempts}"
    return (f"It has used {count}{most} attempts; the last failed on {last.worker}: {last.message} [{last.code}].",)
