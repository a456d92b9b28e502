"""Submitting: ids, orders, many jobs at once, and what the broker may refuse."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from staged_worker import DRAW

import headrace
from headrace import BatchIncomplete, Client, InvalidInput, Settings
from headrace.submission import IN_FLIGHT, in_flight
from headrace_contracts.errors import InvalidName, MessageTooLarge, QueueFull
from headrace_contracts.fill import Fill, FullLimit
from headrace_contracts.model import ModelSpec
from headrace_contracts.names import DEFAULT_TENANT
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.lookup import find_job
from headrace_storage.registry import add_model
from headrace_storage.topology import StorageLimits, ensure_topology

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of a broker that holds ten jobs of one kind."""
    async with NatsServer(tmp_path_factory.mktemp("small"), sync_always=False) as server:
        settings = Settings(nats=NatsSettings(url=server.url))
        async with Connection(settings.nats) as connection:
            await ensure_topology(connection, StorageLimits(jobs_per_subject=10))
            await add_model(connection, DRAW)
        async with Client(settings) as client:
            yield client


async def test_what_is_ordered_arrives_with_the_job(client: Client) -> None:
    handle = await client.submit(
        "draw", prompt="star", lane="high", timeout_s=5, ttl_s=60, metadata={"page": 3}, job_id="ordered"
    )

    job = await find_job(client.connection, DEFAULT_TENANT, "ordered")

    assert handle.id == "ordered"
    assert job is not None
    assert (job.lane, job.body.timeout_s, job.body.ttl_s, job.body.metadata) == ("high", 5, 60, {"page": 3})


async def test_the_same_job_under_one_id_is_stored_once(client: Client) -> None:
    for _ in range(3):
        await client.submit("draw", prompt="star", lane="low", job_id="once")

    [low] = [lane for lane in await client.backlog("draw") if lane.lane == "low"]
    assert low.waiting == 1
    with pytest.raises(headrace.JobConflict):
        await client.submit("draw", prompt="another star", lane="low", job_id="once")


@pytest.mark.parametrize("job_id", ["a.b", "a b", "", "x" * 65, "a*", "ä"])
async def test_an_id_that_is_no_subject_token_is_refused(client: Client, job_id: str) -> None:
    with pytest.raises(InvalidName, match="job id"):
        await client.submit("draw", prompt="star", job_id=job_id)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"lane": "fast"}, "lane: 'fast' is none of high, normal, low"),
        ({"timeout_s": 0}, "`timeout_s` is 0 and must be over 0"),
        ({"timeout_s": float("nan")}, "`timeout_s` is nan"),
        ({"ttl_s": 1e9}, "`ttl_s` is 1e\\+09 and must be .* at most 86400"),
        ({"ttl_s": "60"}, r"got `str` - at `\$.ttl_s`"),
        ({"metadata": {"page": [3]}}, r"got `array` - at `\$.metadata"),
        ({"metadata": {"page": object()}}, "metadata: cannot be sent"),
    ],
)
async def test_a_wrong_order_is_refused(client: Client, order: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await client.submit("draw", prompt="star", **order)


async def test_a_job_that_fits_no_message_is_refused_and_the_client_lives_on(client: Client) -> None:
    with pytest.raises(BatchIncomplete, match=r"9[0-9]{6} bytes and the broker takes 8380416") as caught:
        await client.submit_many("draw", [{"prompt": "star"}], batch="x" * 9_000_000)
    assert isinstance(caught.value.cause, MessageTooLarge)
    assert await client.submit("draw", prompt="star")


async def test_a_batch_shares_its_name_and_its_order(client: Client) -> None:
    handles = await client.submit_many("draw", [{"prompt": "a"}, {"prompt": "b"}], batch="stars", ttl_s=60)

    jobs = [await find_job(client.connection, DEFAULT_TENANT, handle.id) for handle in handles]

    assert [(job.body.batch, job.body.ttl_s) for job in jobs if job] == [("stars", 60), ("stars", 60)]
    assert [bytes(job.body.input)[-1:] for job in jobs if job] == [b"a", b"b"]


async def test_no_job_of_a_batch_is_sent_if_one_is_wrong(small: Client) -> None:
    inputs = [{"prompt": "a"}, {"prompt": "b", "steps": 51}]

    with pytest.raises(InvalidInput, match=r"inputs\[1\].steps: 51 is over this model's limit"):
        await small.submit_many("draw", inputs)

    assert sum(lane.waiting for lane in await small.backlog("draw")) == 0


async def test_a_full_queue_is_an_error_and_a_batch_says_what_it_took(small: Client) -> None:
    with pytest.raises(BatchIncomplete, match=r"10 of 25 jobs of batch .* were accepted, then: the queue") as caught:
        await small.submit_many("draw", [{"prompt": f"{n} stars"} for n in range(25)])

    assert isinstance(caught.value.cause, QueueFull)
    assert caught.value.cause.fill == Fill("JOBS", FullLimit.MESSAGES_PER_SUBJECT, 10, 10)
    for handle in caught.value.handles:
        assert (await handle.status()).state == "queued"
    with pytest.raises(QueueFull):
        await small.submit("draw", prompt="star")
    assert await caught.value.handles[0].cancel() == "canceled"


async def test_metadata_that_is_no_label_is_refused(small: Client) -> None:
    with pytest.raises(InvalidInput, match="`metadata` takes 70008 bytes as JSON and must take at most 65536"):
        await small.submit("draw", prompt="star", metadata={"a": "x" * 70_000})


async def test_an_input_that_is_nested_too_deeply_is_refused(small: Client) -> None:
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidInput):
        await small.submit("draw", prompt=deep)
    with pytest.raises(InvalidInput):
        await small.submit("draw", prompt="star", metadata={"a": deep})  # type: ignore[dict-item]


async def test_a_new_limit_is_seen_and_an_old_one_is_asked_for_once(small: Client) -> None:
    class Moved:
        """A clock that the test moves."""

        at = 0.0

        def monotonic(self) -> float:
            return self.at

    clock = Moved()
    cache = headrace.client.SpecCache(clock)
    await add_model(small.connection, ModelSpec("moved", DRAW.task, DRAW.engine, version="1"))
    assert (await cache.get(small.connection, "moved")).version == "1"
    await add_model(small.connection, ModelSpec("moved", DRAW.task, DRAW.engine, version="2"))
    assert (await cache.get(small.connection, "moved")).version == "1"
    clock.at = 60.0
    assert (await cache.get(small.connection, "moved")).version == "2"


async def test_calls_in_flight_are_bounded_and_stop_at_the_first_failure() -> None:
    under_way = most = begun = 0

    async def call(number: int) -> int:
        nonlocal under_way, most, begun
        begun += 1
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if number == 100:
            raise QueueFull("jobs", "full")
        return number

    done, failure = await in_flight([lambda n=n: call(n) for n in range(1000)])

    assert most == IN_FLIGHT
    assert isinstance(failure, QueueFull)
    assert 100 not in done
    assert len(done) == begun - 1 < 300
