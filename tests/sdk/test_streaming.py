"""Streams of text from the broker to their reader."""

import pytest
from staged_worker import StagedWorker

from headrace import Client, JobFailed

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_stream_ends_with_the_jobs_failure(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("write", prompt="count")
    await worker.say(job, "one ")
    await worker.fail(job, "out of numbers")
    pieces = job.stream()
    assert await anext(pieces) == "one "
    with pytest.raises(JobFailed, match="out of numbers"):
        await anext(pieces)


async def test_a_stream_of_pictures_is_empty(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="star")
    await worker.succeed(job, {"images": [], "seeds": [], "width": 8, "height": 8})
    assert [piece async for piece in job.stream()] == []


async def test_a_stream_survives_a_retry(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("write", prompt="count")
    await worker.start(job)
    await worker.say(job, "one ", "two ")
    await worker.retry(job, "lost the thread")
    await worker.start(job, attempt=2)
    await worker.say(job, "one two ", "three", attempt=2)
    await worker.succeed(job, {"text": "one two three", "finish_reason": "stop", "seed": 1})
    assert "".join([piece async for piece in job.stream()]) == "one two three"
