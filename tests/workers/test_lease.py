"""A lease that could not be renewed never answers for its delivery again."""

import asyncio
from datetime import UTC, datetime

import pytest

from headrace_contracts.errors import BrokerUnavailable
from headrace_workers.lease import RENEW_EVERY, TRUST_FOR, Lease

ACK_WAIT_S = 30.0


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


class RecordedDelivery:
    """Stands in for the broker's answers: writes down what it is told, and fails when it should."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.reachable = True

    async def _answer(self, word: str) -> None:
        if not self.reachable:
            raise BrokerUnavailable("nats://test", "no answer")
        self.answers.append(word)

    async def ack(self) -> None:
        await self._answer("ack")

    async def nak(self, delay_s: float = 0.0) -> None:
        await self._answer(f"nak {delay_s:g}")

    async def term(self, reason: str) -> None:
        await self._answer("term")

    async def in_progress(self, timeout_s: float = 5.0) -> None:
        await self._answer("in_progress")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def delivery() -> RecordedDelivery:
    return RecordedDelivery()


async def test_a_held_lease_answers(clock: HandClock, delivery: RecordedDelivery) -> None:
    assert await Lease(delivery, ACK_WAIT_S, clock).ack()
    assert delivery.answers == ["ack"]


@pytest.mark.parametrize("answer", [Lease.ack, Lease.nak, lambda lease: lease.term("bad")])
async def test_a_lapsed_lease_is_silent(clock: HandClock, delivery: RecordedDelivery, answer) -> None:
    lease = Lease(delivery, ACK_WAIT_S, clock)
    clock.seconds += TRUST_FOR * ACK_WAIT_S
    assert not lease.held
    assert not await answer(lease)
    assert delivery.answers == []


async def test_nothing_is_answered_twice(clock: HandClock, delivery: RecordedDelivery) -> None:
    lease = Lease(delivery, ACK_WAIT_S, clock)
    assert await lease.nak(2.0)
    assert not await lease.ack()
    assert delivery.answers == ["nak 2"]


async def test_an_answer_that_is_not_confirmed_is_reported(clock: HandClock, delivery: RecordedDelivery) -> None:
    lease = Lease(delivery, ACK_WAIT_S, clock)
    delivery.reachable = False
    assert not await lease.ack()


async def test_renewals_keep_it_and_stop_when_it_is_settled(clock: HandClock, delivery: RecordedDelivery) -> None:
    """The lease is short so that real renewals happen; its clock stands still, so it cannot lapse."""
    lease = Lease(delivery, 0.05, clock)
    async with asyncio.timeout(10), lease.kept():
        while delivery.answers.count("in_progress") < 3:
            await asyncio.sleep(0)
        await lease.ack()
        count = len(delivery.answers)
        for _ in range(3):
            await asyncio.sleep(2 * RENEW_EVERY * 0.05)
    assert delivery.answers[-1] == "ack"
    assert len(delivery.answers) == count


async def test_an_unconfirmed_renewal_does_not_count(clock: HandClock, delivery: RecordedDelivery) -> None:
    lease = Lease(delivery, 0.05, clock)
    delivery.reachable = False
    async with asyncio.timeout(10), lease.kept():
        await asyncio.sleep(4 * RENEW_EVERY * 0.05)
        clock.seconds += 0.05
        assert not lease.held
        delivery.reachable = True
        await asyncio.sleep(4 * RENEW_EVERY * 0.05)
    assert delivery.answers == [], "a lease that lapsed was renewed: that acts on another worker's delivery"
