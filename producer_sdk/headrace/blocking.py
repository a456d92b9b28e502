"""The SDK without asyncio: each call opens a client, does one thing and closes it.

For scripts and notebooks' first lines. A program that submits more than now and then keeps a `Client` open.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from headrace.client import Client
from headrace.handle import Handle
from headrace.job_status import JobStatus
from headrace.results import JobResult, ResultArtifact
from headrace_contracts.job import Scalar
from headrace_contracts.settings import Settings

T = TypeVar("T")


def run(
    model: str,
    /,
    *,
    lane: str = "normal",
    timeout_s: float | None = None,
    ttl_s: float | None = None,
    wait_s: float | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    settings: Settings | None = None,
    **inputs: object,
) -> JobResult:
    """Submit a job and wait until it has succeeded.

    Args:
        model: name in the registry.
        lane: `high`, `normal` or `low`.
        timeout_s: longest run of one attempt.
        ttl_s: longest wait in the queue.
        wait_s: longest wait of this call; the job goes on after it.
        metadata: returned with the result.
        settings: by default what `load_settings` finds.
        inputs: the model's input, as for `Client.submit`.

    Raises:
        JobFailed: the job ended otherwise.
        ResultTimeout: it had not ended after `wait_s`.
        HeadraceError: as for `Client.submit`.
    """

    async def call(client: Client) -> JobResult:
        job = await client.submit(
            model,
            lane=lane,
            timeout_s=timeout_s,
            ttl_s=ttl_s,
            metadata=metadata,
            job_id=None,
            traceparent=None,
            **inputs,
        )
        return (await job.result(wait_s)).raise_for_status()

    return _with_client(settings, call)


def submit(
    model: str,
    /,
    *,
    lane: str = "normal",
    job_id: str | None = None,
    timeout_s: float | None = None,
    ttl_s: float | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    settings: Settings | None = None,
    **inputs: object,
) -> str:
    """Submit a job and return its id; arguments and errors as for `Client.submit`."""

    async def call(client: Client) -> str:
        job = await client.submit(
            model,
            lane=lane,
            job_id=job_id,
            timeout_s=timeout_s,
            ttl_s=ttl_s,
            metadata=metadata,
            traceparent=None,
            **inputs,
        )
        return job.id

    return _with_client(settings, call)


def result(
    job_id: str, model: str | None = None, *, wait_s: float | None = None, settings: Settings | None = None
) -> JobResult:
    """Wait for the end of a job, whatever the end; `model` spares looking for it.

    Raises:
        UnknownJob: there is no trace of it.
        ResultTimeout: it had not ended after `wait_s`.
    """

    async def call(client: Client) -> JobResult:
        return await (await _job(client, job_id, model)).result(wait_s)

    return _with_client(settings, call)


def status(job_id: str, model: str | None = None, *, settings: Settings | None = None) -> JobStatus:
    """Where a job is now; UnknownJob if there is no trace of it and no `model` was given."""

    async def call(client: Client) -> JobStatus:
        return await (await _job(client, job_id, model)).status()

    return _with_client(settings, call)


def cancel(job_id: str, model: str | None = None, *, settings: Settings | None = None) -> str:
    """Stop a job: `canceled`, `canceling` or `already <status>`; UnknownJob if there is no trace of it."""

    async def call(client: Client) -> str:
        return await (await _job(client, job_id, model)).cancel()

    return _with_client(settings, call)


def save(of: JobResult, folder: Path | str, *, settings: Settings | None = None) -> list[Path]:
    """Write the artifacts of a result into `folder`, made if need be; returns their paths."""

    async def call(client: Client) -> list[Path]:
        return [await ResultArtifact(artifact.reference, client.blobs).save(folder) for artifact in of.artifacts]

    return _with_client(settings, call)


async def _job(client: Client, job_id: str, model: str | None) -> Handle:
    return await client.find(job_id) if model is None else client.handle(model, job_id)


def _with_client(settings: Settings | None, call: Callable[[Client], Awaitable[T]]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "this call would block the running event loop: use `async with headrace.Client() as client:` here"
        )

    async def main() -> T:
        async with Client(settings) as client:
            return await call(client)

    return asyncio.run(main())
