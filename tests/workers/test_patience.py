"""What a start waits for, and what it does not."""

import pytest
from test_lease import HandClock

from headrace_contracts.errors import (
    BlobUnavailable,
    BrokerForbidden,
    BrokerUnavailable,
    CredentialsRefused,
    HeadraceError,
    UnknownModel,
)
from headrace_workers import patience
from headrace_workers.patience import START_DEADLINE_S, patiently

OUTAGE = BrokerUnavailable("nats://test", "no answer")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_S", 0)


class Step:
    """Fails as it is told, a second at a time; then succeeds."""

    def __init__(self, clock: HandClock, *errors: HeadraceError) -> None:
        self.clock, self.errors, self.calls = clock, list(errors), 0

    async def __call__(self) -> str:
        self.calls += 1
        self.clock.seconds += 1
        if self.errors:
            raise self.errors.pop(0)
        return "started"


async def test_an_outage_is_waited_out() -> None:
    clock = HandClock()
    step = Step(clock, OUTAGE, BlobUnavailable("k", "down"), OUTAGE)
    assert await patiently(step, clock, hurried=lambda: False) == "started"
    assert step.calls == 4


async def test_not_for_ever() -> None:
    clock = HandClock()
    step = Step(clock, *[OUTAGE] * 1000)
    with pytest.raises(BrokerUnavailable):
        await patiently(step, clock, hurried=lambda: False)
    assert START_DEADLINE_S <= step.calls <= START_DEADLINE_S + 2


async def test_a_worker_that_is_told_to_stop_waits_for_nothing() -> None:
    clock = HandClock()
    step = Step(clock, OUTAGE)
    with pytest.raises(BrokerUnavailable):
        await patiently(step, clock, hurried=lambda: True)
    assert step.calls == 1


@pytest.mark.parametrize(
    "error",
    [
        BrokerForbidden("nats://test", "publish to", "jobs.x"),
        CredentialsRefused("nats://test", "Authorization Violation"),
        UnknownModel("m"),
    ],
)
async def test_what_is_refused_or_wrong_stays_so(error: HeadraceError) -> None:
    clock = HandClock()
    step = Step(clock, error)
    with pytest.raises(type(error)):
        await patiently(step, clock, hurried=lambda: False)
    assert step.calls == 1
