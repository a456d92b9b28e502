"""Wait for the end of a job, through broker restarts, as long as the caller likes."""

import asyncio

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable, ResultTimeout
from headrace_contracts.result import Result
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection
from headrace_storage.results import LONGEST_LOOK_S, wait_result

# A broker that restarts is back in seconds, a cluster that elects a leader in ten; after this long somebody must know.
OUTAGE_S = 30.0
RETRY_S = 0.5


async def wait(
    connection: Connection, tenant: str, model: str, job_id: str, timeout_s: float | None, clock: Clock
) -> Result:
    """The result of a job, as soon as it has one.

    Raises:
        ResultTimeout: there was none for `timeout_s`.
        BrokerUnavailable: the broker did not answer for OUTAGE_S.
    """
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await _through_outages(connection, tenant, model, job_id, clock)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ResultTimeout(job_id, timeout_s or 0.0) from None


async def _through_outages(connection: Connection, tenant: str, model: str, job_id: str, clock: Clock) -> Result:
    give_up_at = clock.monotonic() + OUTAGE_S
    while True:
        began_at = clock.monotonic()
        try:
            return await wait_result(connection, tenant, model, job_id)
        except BrokerForbidden:
            raise
        except BrokerUnavailable:
            now = clock.monotonic()
            if now - began_at > LONGEST_LOOK_S + 2 * REQUEST_TIMEOUT_S:
                # It answered in between, or we would have been told sooner: a new outage.
                give_up_at = now + OUTAGE_S
            if now > give_up_at or connection.closed.is_set():
                raise
        await asyncio.sleep(RETRY_S)
