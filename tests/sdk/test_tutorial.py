"""The SDK in a dozen steps: read this first. Each test shows one thing.

There is no model here. `worker` is played by the tests, which say what it reports and when, so that each step of a job
can be looked at. `client` is a `headrace.Client`, open for the whole file.
"""

import asyncio
from pathlib import Path

import pytest
from staged_worker import StagedWorker, until_submitted

import headrace
from headrace import Client, Settings
from headrace_contracts.event import Progress, Started

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_submit_a_job_and_wait_for_its_result(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("write", prompt="Name a colour.")

    await worker.succeed(job, {"text": "red", "finish_reason": "stop", "seed": 7})

    result = await job.result(timeout_s=30)
    assert result.status == "succeeded"
    assert result.text == "red"
    assert result.output == {"text": "red", "finish_reason": "stop", "seed": 7}
    assert result.timings.run_s == 1.5


async def test_a_wrong_input_is_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(headrace.InvalidInput, match=r"input.steps: 51 is over this model's limit of 50"):
        await client.submit("draw", prompt="a red star", steps=51)


async def test_an_unknown_model_is_refused_by_name(client: Client) -> None:
    with pytest.raises(headrace.UnknownModel, match="unknown model 'drew'; the registry has draw, echo, hear, write"):
        await client.submit("drew", prompt="a red star")


async def test_a_job_that_fails_says_why(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="a red star")
    await worker.fail(job, "the picture is all black")

    result = await job.result(timeout_s=30)

    assert result.output is None
    with pytest.raises(headrace.JobFailed, match=r"failed: the picture is all black \[model_error\]"):
        result.raise_for_status()


async def test_waiting_ends_when_you_say_and_the_job_goes_on(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="a red star")

    with pytest.raises(headrace.ResultTimeout):
        await job.result(timeout_s=0.05)

    await worker.succeed(job, {"images": [], "seeds": [], "width": 8, "height": 8})
    assert (await job.result(timeout_s=30)).status == "succeeded"


async def test_follow_a_job_by_its_events(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="a red star", steps=2)
    await worker.start(job)
    await worker.progress(job, 1, 2)
    await worker.progress(job, 2, 2)
    await worker.succeed(job, {"images": [], "seeds": [], "width": 8, "height": 8})

    events = [event async for event in job.events()]  # ends when the job has

    assert isinstance(events[0], Started)
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2]


async def test_read_text_while_it_is_written(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("write", prompt="Name two colours.")
    pieces = job.stream()

    await worker.start(job)
    await worker.say(job, "red")
    assert await anext(pieces) == "red"  # the job still runs

    await worker.say(job, " and blue", first_seq=1)
    await worker.succeed(job, {"text": "red and blue", "finish_reason": "stop", "seed": 7})
    assert [piece async for piece in pieces] == [" and blue"]


async def test_send_a_file_and_fetch_one(client: Client, worker: StagedWorker, tmp_path: Path) -> None:
    recording = tmp_path / "speech.wav"
    recording.write_bytes(bytes(200_000))  # large: it is uploaded, and the job refers to it
    await client.submit("hear", audio=recording)
    await client.submit("hear", audio=b"RIFF....WAVE")  # small: it travels inside the job

    job = await client.submit("draw", prompt="a red star")
    picture = await worker.store(client, job, "image-0.png", b"a picture")
    await worker.succeed(job, {"images": ["image-0.png"], "seeds": [7], "width": 8, "height": 8}, (picture,))

    [artifact] = (await job.result(timeout_s=30)).artifacts
    assert await artifact.read() == b"a picture"
    saved = await artifact.save(tmp_path / "out")
    assert saved == tmp_path / "out" / "image-0.png"
    assert saved.read_bytes() == b"a picture"


async def test_ask_where_a_job_is(client: Client, worker: StagedWorker) -> None:
    job = await client.submit("draw", prompt="a red star")
    assert (await job.status()).state == "queued"

    await worker.start(job)
    await worker.progress(job, 3, 4)
    running = await job.status()
    assert (running.state, running.worker, running.done) == ("running", "staged", 0.75)

    await worker.succeed(job, {"images": [], "seeds": [], "width": 8, "height": 8})
    assert (await job.status()).state == "succeeded"


async def test_cancel_a_job(client: Client, worker: StagedWorker) -> None:
    waiting = await client.submit("draw", prompt="a red star")
    assert await waiting.cancel() == "canceled"
    assert (await waiting.result(timeout_s=30)).status == "canceled"

    running = await client.submit("draw", prompt="a red star")
    await worker.start(running)
    assert await running.cancel() == "canceling"  # the result is final; the worker stops at its next step

    finished = await client.submit("draw", prompt="a red star")
    await worker.succeed(finished, {"images": [], "seeds": [], "width": 8, "height": 8})
    assert await finished.cancel() == "already succeeded"


async def test_submit_many_at_once(client: Client) -> None:
    jobs = await client.submit_many("draw", [{"prompt": f"{n} red stars"} for n in range(200)], lane="low")

    assert len({job.id for job in jobs}) == 200
    [low] = [lane for lane in await client.backlog("draw") if lane.lane == "low"]
    assert low.waiting == 200


async def test_come_back_later_with_nothing_but_the_id(client: Client, worker: StagedWorker) -> None:
    submitted = await client.submit("write", prompt="Name a colour.", job_id="colour-1")

    found = await client.find("colour-1")

    await worker.succeed(submitted, {"text": "red", "finish_reason": "stop", "seed": 7})
    assert (await found.result(timeout_s=30)).text == "red"
    with pytest.raises(headrace.UnknownJob):
        await client.find("colour-2")


async def test_or_do_without_asyncio(client: Client, worker: StagedWorker, settings: Settings) -> None:
    def script() -> str | None:
        job_id = headrace.submit("write", prompt="Name a colour.", job_id="colour-3", settings=settings)
        return headrace.result(job_id, settings=settings).text  # `headrace.run` does both

    running = asyncio.create_task(asyncio.to_thread(script))
    job = await until_submitted(client, "colour-3")
    await worker.succeed(job, {"text": "red", "finish_reason": "stop", "seed": 7})
    assert await running == "red"
