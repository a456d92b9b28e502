"""Start in spite of an outage: broker and object store may be starting as well, or be choosing a leader."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BlobUnavailable, BrokerForbidden, BrokerUnavailable, CredentialsRefused

T = TypeVar("T")

# A worker may be started together with its broker. Longer hides a wrong address from whoever started it.
START_DEADLINE_S = 30.0
PAUSE_S = 1.0


async def patiently(step: Callable[[], Awaitable[T]], clock: Clock, hurried: Callable[[], bool]) -> T:
    """Repeat a step of the start while it meets an outage, for `START_DEADLINE_S` at most.

    Args:
        step: may be repeated.
        clock: for the deadline.
        hurried: whether nothing is to be waited for any more.

    Raises:
        BrokerUnavailable, BlobUnavailable: the last outage.
        HeadraceError: whatever else the step raises; what is refused or wrong stays so.
    """
    give_up_at = clock.monotonic() + START_DEADLINE_S
    while True:
        try:
            return await step()
        except (BrokerForbidden, CredentialsRefused):
            raise
        except (BrokerUnavailable, BlobUnavailable) as error:
            if hurried() or clock.monotonic() > give_up_at:
                raise
            structlog.get_logger().warning("cannot start yet", error=str(error))
            await asyncio.sleep(PAUSE_S)
