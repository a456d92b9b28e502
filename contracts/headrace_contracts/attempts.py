"""The record of failed attempts of one job, kept in the ATTEMPTS bucket.

It is written only when something went wrong. The broker counts deliveries; a delivery that neither a failure nor an
excuse explains is a worker that died without a word.
"""

import msgspec

from headrace_contracts.errors import ErrorCode


class Failure(msgspec.Struct, frozen=True):
    """One failed attempt."""

    code: ErrorCode
    message: str
    worker: str


class Attempts(msgspec.Struct, frozen=True):
    """What is known of a job's earlier deliveries."""

    failures: tuple[Failure, ...] = ()
    excused: int = 0
    """Deliveries that ended by a shutdown or an outage: they cost no attempt."""

    def crashes(self, num_delivered: int) -> int:
        """Earlier deliveries that nothing explains, given that this is delivery `num_delivered` (from 1)."""
        return max(0, num_delivered - 1 - len(self.failures) - self.excused)

    def spent(self, num_delivered: int) -> int:
        """Attempts used up before this delivery."""
        return len(self.failures) + self.crashes(num_delivered)


def excuse(attempts: Attempts) -> Attempts:
    """The record with one more delivery that costs no attempt."""
    return msgspec.structs.replace(attempts, excused=attempts.excused + 1)
