"""`headrace run` and `headrace submit`, as a process of their own."""

import asyncio
import json
import signal
from pathlib import Path

import msgspec
import pytest
from command_line import Headrace
from staged_worker import StagedWorker, until_submitted

from headrace import Client
from headrace_contracts.names import DEFAULT_TENANT
from headrace_contracts.tasks import SpeechToTextInput, TextToImageInput
from headrace_storage.lookup import find_job

pytestmark = pytest.mark.slow
RED = {"text": "red and blue", "finish_reason": "stop", "seed": 7}


async def test_text_goes_to_standard_output_and_the_rest_beside_it(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "write", "prompt=Name two colours.", "--id", "r1")
    job = await until_submitted(client, "r1")
    await worker.start(job)
    await worker.succeed(job, RED)

    ended = await command.end()

    assert (ended.code, ended.out) == (0, "red and blue\n")
    assert "started on staged" in ended.err
    assert "r1 succeeded on staged: queued 0.25 s, run 1.50 s" in ended.err


async def test_values_take_the_types_of_their_fields(client: Client, headrace_command: Headrace) -> None:
    command = await headrace_command(
        "submit", "draw", "prompt=7=seven", "steps=20", "guidance_scale=7.5", "seed=3", "format=jpeg", "--lane", "high"
    )
    ended = await command.end()
    assert ended.code == 0, ended.err
    job = await find_job(client.connection, DEFAULT_TENANT, ended.out.strip())
    assert job is not None
    assert job.lane == "high"
    assert msgspec.msgpack.decode(job.body.input, type=TextToImageInput) == TextToImageInput(
        prompt="7=seven", steps=20, guidance_scale=7.5, seed=3, format="jpeg"
    )


async def test_a_file_a_text_file_and_standard_input(
    client: Client, headrace_command: Headrace, tmp_path: Path
) -> None:
    recording, words = tmp_path / "speech.wav", tmp_path / "words.txt"
    recording.write_bytes(b"RIFF")
    words.write_text("@Headrace\n")
    from_files = await (
        await headrace_command("submit", "hear", f"audio=@{recording}", f"initial_prompt=@{words}", "vad_filter=true")
    ).end()
    piped = await (
        await headrace_command("submit", "hear", "audio=-", "initial_prompt=@@Headrace", "vad_filter=1", stdin=b"RIFF")
    ).end()
    for ended in (from_files, piped):
        assert ended.code == 0, ended.err
        job = await find_job(client.connection, DEFAULT_TENANT, ended.out.strip())
        assert job is not None
        sent = msgspec.msgpack.decode(job.body.input, type=SpeechToTextInput)
        assert (sent.audio.inline, sent.initial_prompt, sent.vad_filter) == (b"RIFF", "@Headrace", True)


async def test_files_are_saved_and_their_paths_printed(
    client: Client, worker: StagedWorker, headrace_command: Headrace, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    command = await headrace_command("run", "draw", "prompt=star", "--id", "r2", "-o", str(folder))
    job = await until_submitted(client, "r2")
    picture = await worker.store(client, job, "image-0.png", b"a picture")
    await worker.succeed(job, {"images": ["image-0.png"], "seeds": [7], "width": 8, "height": 8}, (picture,))

    ended = await command.end()

    assert (ended.code, ended.out) == (0, f"{folder / 'image-0.png'}\n")
    assert (folder / "image-0.png").read_bytes() == b"a picture"


async def test_text_is_printed_while_it_is_written(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "write", "prompt=x", "--id", "r3", "--stream")
    job = await until_submitted(client, "r3")
    await worker.say(job, "red")
    assert command.process.stdout is not None
    async with asyncio.timeout(30):
        assert await command.process.stdout.read(3) == b"red"  # the job still runs
    await worker.succeed(job, RED)
    ended = await command.end()
    assert (ended.code, ended.out) == (0, " and blue\n")


async def test_a_stream_that_starts_again_ends_with_the_whole_text(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "write", "prompt=x", "--id", "r4", "--stream")
    job = await until_submitted(client, "r4")
    await worker.say(job, "green")
    await worker.retry(job, "wrong colour")
    await worker.say(job, "red", attempt=2)
    await worker.succeed(job, RED)
    ended = await command.end()
    assert ended.code == 0
    assert ended.out.endswith("red and blue\n")
    assert "run again, with another text" in ended.err


async def test_json_is_the_whole_result_and_nothing_else(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "write", "prompt=x", "--id", "r5", "--json")
    job = await until_submitted(client, "r5")
    await worker.succeed(job, RED)
    ended = await command.end()
    printed = json.loads(ended.out)
    assert (printed["id"], printed["status"], printed["output"]) == ("r5", "succeeded", RED)


async def test_a_job_that_fails_is_exit_code_1(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "draw", "prompt=star", "--id", "r6")
    job = await until_submitted(client, "r6")
    await worker.retry(job, "no ink")
    await worker.fail(job, "still no ink")
    ended = await command.end()
    assert (ended.code, ended.out) == (1, "")
    assert "attempt 1 failed: no ink [model_error]; again in 0.5 s" in ended.err
    assert "error: still no ink [model_error, fault: model]" in ended.err


async def test_ctrl_c_leaves_the_job_alone(client: Client, worker: StagedWorker, headrace_command: Headrace) -> None:
    command = await headrace_command("run", "draw", "prompt=star", "--id", "r7")
    job = await until_submitted(client, "r7")
    await worker.start(job)
    assert command.process.stderr is not None
    async with asyncio.timeout(30):
        assert await command.process.stderr.readline() == b"started on staged\n"

    command.process.send_signal(signal.SIGINT)

    ended = await command.end()
    assert ended.code == 130
    assert "job r7 goes on: `headrace result r7` waits for it, `headrace cancel r7` stops it" in ended.err
    assert (await job.status()).state == "running"


async def test_ctrl_c_cancels_the_job_where_that_is_wanted(
    client: Client, worker: StagedWorker, headrace_command: Headrace
) -> None:
    command = await headrace_command("run", "draw", "prompt=star", "--id", "r8", "--cancel-on-interrupt")
    job = await until_submitted(client, "r8")
    await worker.start(job)
    assert command.process.stderr is not None
    async with asyncio.timeout(30):
        assert await command.process.stderr.readline() == b"started on staged\n"

    command.process.send_signal(signal.SIGINT)

    ended = await command.end()
    assert (ended.code, ended.err) == (130, "r8 canceling\n")
    assert (await job.status()).state == "canceled"


async def test_submit_prints_an_id_for_each_job(client: Client, headrace_command: Headrace) -> None:
    one = await (await headrace_command("submit", "draw", "prompt=star")).end()
    many = await (await headrace_command("submit", "draw", "prompt=star", "--repeat", "3")).end()
    assert len(one.out.split()) == 1
    assert len(set(many.out.split())) == 3
    for job_id in (one.out + many.out).split():
        assert (await (await client.find(job_id)).status()).state == "queued"
