"""The overlays of the compose stack, each on a stack of its own: real jobs run there too."""

import asyncio
from collections.abc import Iterator

import pytest
from jobs import a_picture_is_drawn, a_question_is_answered, all_succeeded, speech_is_written_down, succeeded
from stack import Stack, Start, Step, until

from headrace import Client

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(900),
    # nats-py leaves the socket of a connection that a crash ended to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]

ELECTION_DEADLINE_S = 60.0


@pytest.fixture
def stack(request: pytest.FixtureRequest, start: Start) -> Iterator[Stack]:
    """A stack with the overlay that the test names."""
    stack = start(request.param)
    yield stack
    with Step("down"):
        stack.down()
    assert stack.leftovers() == []


@pytest.mark.parametrize("stack", ["seaweedfs"], indirect=True)
async def test_files_may_be_in_seaweedfs(stack: Stack) -> None:
    assert "seaweedfs" in stack.inspect(stack.container("s3"))["Config"]["Image"]
    async with Client(stack.client()) as client:
        with Step("a picture, a transcript and an answer"):
            await a_picture_is_drawn(client)
            await speech_is_written_down(client)
            await a_question_is_answered(client)


@pytest.mark.parametrize("stack", ["fixed"], indirect=True)
async def test_workers_may_run_without_the_scaler(stack: Stack) -> None:
    assert stack.workers() == []
    async with Client(stack.client()) as client:
        with Step("a picture and an answer"):
            await a_picture_is_drawn(client)
            await a_question_is_answered(client)
        worker = stack.container("worker-tiny-shapes")
        started_at = stack.inspect(worker)["State"]["StartedAt"]
        stack.crash(worker)
        with Step("a picture after the worker's crash"):
            await a_picture_is_drawn(client)
        assert stack.inspect(worker)["State"]["StartedAt"] != started_at


@pytest.mark.parametrize("stack", ["cluster"], indirect=True)
async def test_one_of_three_brokers_may_go(stack: Stack) -> None:
    async with Client(stack.client("client/admin")) as client:
        infos = await client.connection.js.streams_info()
        assert {info.config.num_replicas for info in infos if info.config.name == "JOBS" or info.cluster} == {3}
        inputs = [{"prompt": "a white ring on a green background", "seed": seed} for seed in range(40)]
        jobs = await client.submit_many("tiny-shapes", inputs)
        await succeeded(jobs[0])
        # The one that programs outside reach stays: its port is the only one that is published.
        await asyncio.to_thread(stack.docker, "kill", stack.container("nats-3"))
        await until(
            "the node is gone",
            lambda: not stack.inspect(stack.container("nats-3"))["State"]["Running"],
            ELECTION_DEADLINE_S,
        )
        with Step("all jobs done with two brokers of three"):
            await all_succeeded(jobs)
        with Step("a new job with two brokers of three"):
            await a_picture_is_drawn(client)
