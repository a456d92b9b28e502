"""From facts to an explanation: which of the things that can be said of a job is true now. Pure."""

from headrace.explaining.ended import ended
from headrace.explaining.facts import Explanation, Facts
from headrace.explaining.in_hand import in_hand
from headrace.explaining.waiting import waiting
from headrace.job_status import JobState


def explain(facts: Facts) -> Explanation:
    """Why the job waits, who runs it, or where its time went; state UNKNOWN if there is no such job."""
    if facts.result is not None:
        return ended(facts, facts.result)
    if facts.ingress is not None:
        return _in_ingress(facts)
    if facts.queued is None:
        return Explanation(
            JobState.UNKNOWN,
            (f"There is no job {facts.job_id} of tenant {facts.tenant}, and no result of one.",),
            "check the id, and the tenant (`--tenant`); a result is kept for 7 days after the end of its job",
        )
    if facts.spec is None:
        return Explanation(
            JobState.QUEUED,
            (
                f"Model {facts.model} is not in the registry: the job ends as `unknown_model` as soon as a worker or "
                "the reaper looks at it.",
            ),
            "submit it again for a model of `headrace models`, or add this one with `headrace models add`",
        )
    return waiting(facts) if facts.queued.ahead is not None else in_hand(facts)


def _in_ingress(facts: Facts) -> Explanation:
    assert facts.ingress is not None
    place = (
        f"It waits in the ingress stream of tenant {facts.tenant}, behind {facts.ingress.ahead} messages: no worker "
        "can run it before it has been forwarded to the queue."
    )
    if not facts.workers:
        return Explanation(
            JobState.QUEUED,
            (place, "Workers of any model forward, and none is there."),
            f"start a worker: `headrace worker --model {facts.ingress.model}`",
        )
    return Explanation(
        JobState.QUEUED,
        (place, "Workers of any model forward, one message after the other, as long as the queue takes them."),
        "if it stays there, the queue is full: `headrace doctor` says so under `room in JOBS`",
    )
