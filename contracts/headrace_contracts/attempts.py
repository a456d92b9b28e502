"""The record of what went wrong with one job, kept in the ATTEMPTS bucket.

It is written only when something did. The broker counts deliveries; every entry names the delivery that it explains, so
writing it twice counts once. A delivery that nothing explains is a worker that died without a word.
"""

from collections.abc import Iterable

import msgspec

from headrace_contracts.errors import ENGINE_LOST, ErrorCode


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

    def crashes(self, num_delivered: int) -> tuple[int, ...]:
        """Earlier deliveries that nothing explains, given that this is delivery `num_delivered` (from 1)."""
        explained = {failure.delivery for failure in self.failures} | {*self.excused, *self.suspected}
        return tuple(delivery for delivery in range(1, num_delivered) if delivery not in explained)

    def spent(self, num_delivered: int) -> int:
        """Attempts used up before delivery `num_delivered`; before the next one, this one's failure counts as well.

        A suspicion costs nothing, unless the job failed later, when it ran alone: then it was this job all the time.
        """
        failed = max((failure.delivery for failure in self.failures), default=0)
        confirmed = sum(delivery < failed for delivery in self.suspected)
        return len(self.failures) + len(self.crashes(num_delivered)) + confirmed

    def must_run_alone(self, num_delivered: int) -> bool:
        """Whether the job may have ended an engine or a worker: then it gets one to itself, and harms nobody."""
        lost = any(failure.code in ENGINE_LOST for failure in self.failures)
        return lost or bool(self.suspected) or bool(self.crashes(num_delivered))


def failed(attempts: Attempts, failure: Failure) -> Attempts:
    """The record with one more failed attempt; it takes the place of whatever was said of that delivery."""
    others = tuple(known for known in attempts.failures if known.delivery != failure.delivery)
    return Attempts(
        (*others, failure),
        _without(attempts.excused, failure.delivery),
        _without(attempts.suspected, failure.delivery),
    )


def excused(attempts: Attempts, delivery: int) -> Attempts:
    """The record with one more delivery that costs no attempt, unless something else is known of it."""
    return attempts if _known(attempts, delivery) else _replace(attempts, excused=(*attempts.excused, delivery))


def suspected(attempts: Attempts, delivery: int) -> Attempts:
    """The record with one more delivery that ended together with others."""
    if delivery in attempts.suspected or any(failure.delivery == delivery for failure in attempts.failures):
        return attempts
    return _replace(
        attempts,
        excused=_without(attempts.excused, delivery),
        suspected=(*attempts.suspected, delivery),
    )


def _known(attempts: Attempts, delivery: int) -> bool:
    return delivery not in attempts.crashes(delivery + 1)


def _without(deliveries: Iterable[int], delivery: int) -> tuple[int, ...]:
    return tuple(known for known in deliveries if known != delivery)


def _replace(attempts: Attempts, **changes: tuple[int, ...]) -> Attempts:
    return msgspec.structs.replace(attempts, **changes)
