"""The record of what went wrong with one job, kept in the ATTEMPTS bucket.

It is written only when something did. The broker counts deliveries; every entry names the delivery that it explains, so
writing it twice counts once. What became of a delivery that nothing explains is judged when the next one arrives.
"""

from collections.abc import Iterable

import msgspec

from headrace_contracts.cost import Bill
from headrace_contracts.errors import ENGINE_LOST, ErrorCode

# Deliveries that nobody began, before each further one counts as an attempt. They are messages lost on the way, which
# no job can help; but a job that kills workers before they can say that they began it has to end some day.
FREE_UNSEEN = 5


class Failure(msgspec.Struct, frozen=True):
    """One failed attempt."""

    code: ErrorCode
    message: str
    worker: str
    delivery: int
    """Which delivery it was, from 1."""


class Attempts(msgspec.Struct, frozen=True):
    """What is known of a job's earlier deliveries."""

    failures: tuple[Failure, ...] = ()
    excused: tuple[int, ...] = ()
    """Deliveries that ended by a shutdown or an outage: they cost no attempt."""
    suspected: tuple[int, ...] = ()
    """Deliveries that ended with an engine in which other jobs ran too: any of them may have done it."""
    unseen: tuple[int, ...] = ()
    """Deliveries that no engine began, as far as is known: lost between broker and worker."""
    bills: tuple[Bill, ...] = ()
    """What those that were in an engine took of it; of one whose worker died, nothing is known."""

    def unexplained(self, num_delivered: int) -> tuple[int, ...]:
        """Earlier deliveries without an entry, given that this is delivery `num_delivered` (from 1)."""
        explained = {failure.delivery for failure in self.failures}
        explained |= {*self.excused, *self.suspected, *self.unseen}
        return tuple(delivery for delivery in range(1, num_delivered) if delivery not in explained)

    @property
    def spent(self) -> int:
        """Attempts used up.

        A suspicion costs nothing, unless the job failed later, when it ran alone: then it was this job all the time.
        """
        last = max((failure.delivery for failure in self.failures), default=0)
        confirmed = sum(delivery < last for delivery in self.suspected)
        return len(self.failures) + confirmed + max(0, len(self.unseen) - FREE_UNSEEN)

    @property
    def must_run_alone(self) -> bool:
        """Whether the job may have ended an engine or a worker: then it gets one to itself, and harms nobody."""
        return bool(self.suspected) or any(failure.code in ENGINE_LOST for failure in self.failures)


def failed(attempts: Attempts, failure: Failure) -> Attempts:
    """The record with one more failed attempt; it takes the place of whatever was said of that delivery."""
    cleared = _cleared(attempts, failure.delivery)
    return msgspec.structs.replace(cleared, failures=(*cleared.failures, failure))


def excused(attempts: Attempts, delivery: int) -> Attempts:
    """The record with one more delivery that costs no attempt, unless its worker said something else of it.

    A worker that was taken for dead, and lives, says so in this way.
    """
    spoken = {failure.delivery for failure in attempts.failures if failure.code is not ErrorCode.WORKER_LOST}
    if delivery in spoken or delivery in attempts.excused or delivery in attempts.suspected:
        return attempts
    cleared = _cleared(attempts, delivery)
    return msgspec.structs.replace(cleared, excused=(*cleared.excused, delivery))


def suspected(attempts: Attempts, delivery: int) -> Attempts:
    """The record with one more delivery that ended together with others."""
    if delivery in attempts.suspected or any(failure.delivery == delivery for failure in attempts.failures):
        return attempts
    cleared = _cleared(attempts, delivery)
    return msgspec.structs.replace(cleared, suspected=(*cleared.suspected, delivery))


def billed(attempts: Attempts, bill: Bill | None) -> Attempts:
    """The record with what one delivery took of a worker; None if it was in no engine."""
    if bill is None:
        return attempts
    others = tuple(known for known in attempts.bills if known.delivery != bill.delivery)
    return msgspec.structs.replace(attempts, bills=(*others, bill))


def judged(attempts: Attempts, num_delivered: int, began: int | None, worker: str) -> Attempts:
    """The record with an entry for every delivery before this one.

    Args:
        attempts: the record so far.
        num_delivered: the present delivery, from 1.
        began: the last delivery that an engine is known to have begun; None if none is known.
        worker: the one that began it: if nothing explains that delivery, the worker died without a word.
    """
    for delivery in attempts.unexplained(num_delivered):
        if delivery == began:
            lost = Failure(ErrorCode.WORKER_LOST, "the worker died without a word", worker, delivery)
            attempts = failed(attempts, lost)
        else:
            attempts = msgspec.structs.replace(attempts, unseen=(*attempts.unseen, delivery))
    return attempts


def _cleared(attempts: Attempts, delivery: int) -> Attempts:
    """The record without what was said of how one delivery ended."""
    return Attempts(
        tuple(failure for failure in attempts.failures if failure.delivery != delivery),
        _without(attempts.excused, delivery),
        _without(attempts.suspected, delivery),
        _without(attempts.unseen, delivery),
        attempts.bills,
    )


def _without(deliveries: Iterable[int], delivery: int) -> tuple[int, ...]:
    return tuple(known for known in deliveries if known != delivery)
