"""A job that a worker had and never answered for is run by the next one, in roles that may no more than they must."""

import pytest
from secured import DEADLINE_S, MODEL, TRUSTED, SecuredBroker

import headrace
from headrace_contracts.result import Status
from headrace_storage.auth.roles import Role
from headrace_storage.puller import JobPuller

pytestmark = pytest.mark.slow


async def test_a_job_of_a_worker_that_died_is_run_by_another(secured: SecuredBroker) -> None:
    """It first asks which worker had begun it. One that might not ask gave the job back, again and again."""
    async with headrace.Client(secured.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(MODEL, echo="hello")
        async with secured.connection(Role.WORKER) as connection:
            [drawn] = await JobPuller(connection, MODEL).wait()
            # As when the lease of a worker that died is over: no word of how it ended.
            await drawn.nak()
        await secured.ensure_worker()
        result = await job.result(DEADLINE_S)
    assert result.status is Status.SUCCEEDED
    assert result.output["echo"] == "hello"
    assert secured.refused(Role.WORKER) == []
