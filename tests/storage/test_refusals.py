"""A role that may not do something hears so at once, and only whoever asked for it."""

import asyncio

import pytest

from headrace_storage.refusals import Refusals, Refused


@pytest.fixture
def refusals() -> Refusals:
    return Refusals("_INBOX_me", "JS.API")


async def never() -> None:
    await asyncio.Event().wait()


async def test_the_request_that_was_refused_ends_and_others_go_on(refusals: Refusals) -> None:
    refused = asyncio.create_task(refusals.unless_refused("jobs.T.m.high", never()))
    other = asyncio.create_task(refusals.unless_refused("jobs.t.m.low", never()))
    await asyncio.sleep(0)
    refusals.heard('nats: permissions violation for publish to "jobs.t.m.high"')
    with pytest.raises(Refused, match=r"may not publish to jobs\.T\.m\.high"):
        await refused
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])


async def test_the_name_of_the_api_in_another_account_means_ours(refusals: Refusals) -> None:
    refused = asyncio.create_task(refusals.unless_refused("$JS.API.STREAM.INFO.JOBS", never()))
    await asyncio.sleep(0)
    refusals.heard('nats: permissions violation for publish to "js.api.stream.info.jobs"')
    with pytest.raises(Refused, match=r"\$JS\.API\.STREAM\.INFO\.JOBS"):
        await refused


async def test_without_an_inbox_no_request_can_be_answered(refusals: Refusals) -> None:
    waiting = [asyncio.create_task(refusals.unless_refused(f"a.{number}", never())) for number in range(2)]
    await asyncio.sleep(0)
    refusals.heard('nats: permissions violation for subscription to "_inbox_me.xyz.*"')
    for task in waiting:
        with pytest.raises(Refused, match="subscribe to"):
            await task
    with pytest.raises(Refused):
        await refusals.unless_refused("a.later", never())
    refusals.forget()

    async def answer() -> int:
        return 7

    assert await refusals.unless_refused("a.later", answer()) == 7


async def test_other_errors_refuse_nothing(refusals: Refusals) -> None:
    waiting = asyncio.create_task(refusals.unless_refused("a.b", never()))
    await asyncio.sleep(0)
    for text in ("nats: stale connection", 'permissions violation for subscription to "results.x"', ""):
        refusals.heard(text)
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_an_error_of_the_request_is_the_callers(refusals: Refusals) -> None:
    async def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await refusals.unless_refused("a.b", fail())
