"""The overlays of the compose stack, each on a stack of its own: real jobs run there too."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from jobs import a_picture_is_drawn, a_question_is_answered, all_succeeded, speech_is_written_down, succeeded
from stack import Stack, Start, Step, until
from tenants_files import only_its_tenants_files

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
    async with Client(stack.client()) as client, Client(stack.client("client/admin")) as admin:
        with Step("a picture, a transcript and an answer"):
            await a_picture_is_drawn(client)
            await speech_is_written_down(client)
            await a_question_is_answered(client)
        with Step("files of its tenant, and no others"):
            await only_its_tenants_files(client, admin)


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
        # The one that leads most. But for the one that programs outside reach: its port is the only one published.
        leaders = Counter(info.cluster.leader for info in infos if info.cluster and info.cluster.leader != "nats-1")
        node = stack.container(leaders.most_common(1)[0][0])
        await asyncio.to_thread(stack.docker, "kill", node)
        await until("the node is gone", lambda: not stack.inspect(node)["State"]["Running"], ELECTION_DEADLINE_S)
        with Step("a new job while leaders are chosen"):
            await a_picture_is_drawn(client)
        with Step("all jobs done with two brokers of three"):
            await all_succeeded(jobs)
