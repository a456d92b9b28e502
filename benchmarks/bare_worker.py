"""The peer: the least a nats-py program has to do to run jobs from a queue, without any guarantee of ours.

    python -m benchmarks.bare_worker URL MODEL=LOOPS ...

Each loop: fetch one message, answer it with a result, acknowledge it and wait until the server has the ack. No lease,
no check for a result that is there already, no second process, no events, no deadline, no lanes.
"""

import asyncio
import sys

import msgspec
import nats
import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headrace_contracts import codec
from headrace_contracts.clock import Clock, SystemClock
from headrace_contracts.job import decode_job
from headrace_contracts.names import Header, Lane, Stream, consumer_name, results_subject
from headrace_contracts.result import Result, Status, Timings
from headrace_contracts.tasks.synthetic import SyntheticInput, SyntheticOutput

FETCH_TIMEOUT_S = 5.0


async def serve(url: str, loops: dict[str, int]) -> None:
    """Run jobs until killed."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    async with asyncio.TaskGroup() as tasks:
        for model, count in loops.items():
            for _ in range(count):
                tasks.create_task(_run_jobs(js, model, SystemClock()))


async def _run_jobs(js: JetStreamContext, model: str, clock: Clock) -> None:
    subscription = await js.pull_subscribe_bind(consumer_name(model, Lane.NORMAL), stream=Stream.JOBS)
    while True:
        try:
            [message] = await subscription.fetch(1, timeout=FETCH_TIMEOUT_S)
        except nats.errors.TimeoutError:
            continue
        await _run_job(js, message, clock)


async def _run_job(js: JetStreamContext, message: Msg, clock: Clock) -> None:
    taken_at = clock.now()
    sequence, stored_at = message.metadata.sequence.stream, message.metadata.timestamp
    job = decode_job(message.subject, message.headers, message.data, sequence, stored_at)
    wanted = codec.decode(job.body.input, SyntheticInput, job.encoding)
    started_at = clock.now()
    output = SyntheticOutput(wanted.echo, started_at.timestamp())
    result = Result(
        id=job.id,
        model=job.model,
        version="1",
        status=Status.SUCCEEDED,
        output=msgspec.Raw(codec.encode(output, job.encoding)),
        attempts=1,
        created_at=stored_at,
        started_at=started_at,
        completed_at=clock.now(),
        timings=Timings(queued_s=(taken_at - stored_at).total_seconds()),
    )
    headers = {Header.CONTENT_TYPE.value: job.encoding.value}
    subject = results_subject(job.tenant, job.model, job.id)
    await js.publish(subject, codec.encode(result, job.encoding), headers=headers)
    await message.ack_sync()


if __name__ == "__main__":
    pairs = (argument.split("=") for argument in sys.argv[2:])
    asyncio.run(serve(sys.argv[1], {model: int(count) for model, count in pairs}))
