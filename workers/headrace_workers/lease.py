"""A lease: a delivery stays ours as long as the broker confirms it, by our own clock.

JetStream does not fence. An ack, nak or renewal that comes after `ack_wait` acts on the worker that holds the job by
then, so once renewals went unconfirmed for too long this lease never answers for its delivery again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_storage.delivery import Delivery

# Shares of ack_wait. Renewing five times as often as needed survives four lost renewals; stopping at 0.7 leaves the
# rest for an answer of ours that is still on its way.
RENEW_EVERY = 0.2
TRUST_FOR = 0.7


class Lease:
    """The right to answer for one delivery."""

    def __init__(self, delivery: Delivery, ack_wait_s: float, clock: Clock) -> None:
        self._delivery = delivery
        self._ack_wait_s = ack_wait_s
        self._clock = clock
        self._confirmed_at = clock.monotonic()
        self._settled = False

    @property
    def held(self) -> bool:
        """Whether the delivery is ours beyond doubt."""
        return not self._settled and not self.lapsed

    @property
    def lapsed(self) -> bool:
        """Whether somebody else may have the delivery by now."""
        return self._clock.monotonic() - self._confirmed_at >= TRUST_FOR * self._ack_wait_s

    @property
    def renewal_s(self) -> float:
        """Seconds between two renewals."""
        return RENEW_EVERY * self._ack_wait_s

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease until the block ends, it is settled, or it is lost."""
        ended = asyncio.Event()
        renewing = asyncio.create_task(self._renew(ended))
        try:
            yield
        finally:
            # Both: a cancel that meets the answer to a request gets lost in the client.
            ended.set()
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing

    async def ack(self) -> bool:
        """Remove the job from the queue. False if the lease was lost: whoever holds the job now will do it."""
        return await self._settle(self._delivery.ack())

    async def nak(self, delay_s: float = 0.0) -> bool:
        """Give the job back. False if the lease was lost."""
        return await self._settle(self._delivery.nak(delay_s))

    async def term(self, reason: str) -> bool:
        """Remove the job for good. False if the lease was lost."""
        return await self._settle(self._delivery.term(reason))

    async def _settle(self, answer: Coroutine[None, None, None]) -> bool:
        if not self.held:
            answer.close()
            return False
        self._settled = True
        try:
            # Shielded: a worker that stops must not leave a finished job unanswered.
            await asyncio.shield(asyncio.ensure_future(answer))
        except BrokerUnavailable:
            # Perhaps answered, perhaps not. If not, the job is delivered again and its result is found.
            return False
        return True

    async def _renew(self, ended: asyncio.Event) -> None:
        interval_s = self.renewal_s
        while not ended.is_set():
            await asyncio.sleep(interval_s)
            if not self.held:
                return
            asked_at = self._clock.monotonic()
            try:
                await self._delivery.in_progress(timeout_s=interval_s)
            except BrokerUnavailable:
                continue
            # The lease runs from when the broker got the request, which is not before we sent it.
            self._confirmed_at = asked_at
