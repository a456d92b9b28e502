"""A worker that is sent hostile files: each job ends as the input's fault, and nothing else changes."""

import asyncio
import base64

import msgspec
import psutil
import pytest
from hostile import naming_others, wav_header
from lives import command_of
from recordings import SPEECH
from rig import DEADLINE_S, Rig
from test_confinement import Listener

from headrace_contracts.event import Retrying
from headrace_contracts.limits import Limits
from headrace_contracts.result import Result
from headrace_local.models import find_model

pytestmark = [pytest.mark.slow, pytest.mark.models]

CLIP = SPEECH / "amiable-3s.wav"
NURSERY = "headrace_workers.decoding"


async def serve_whisper(rig: Rig) -> int:
    """Start a worker with the speech model; its pid."""
    whisper = find_model("whisper-tiny-en")
    await rig.add_model(
        task=whisper.task,
        engine=whisper.engine,
        weights=whisper.weights,
        limits=Limits(max_decode_s=5.0, max_audio_s=600.0),
    )
    (rig.folder / "scratch").mkdir()
    rig.environment["TMPDIR"] = str(rig.folder / "scratch")
    worker = await rig.start_worker()
    return worker.pid


async def hear(rig: Rig, content: bytes) -> Result:
    return await rig.run(audio={"$inline": base64.b64encode(content).decode()})


def children_of(worker: int) -> dict[str, int]:
    """Module to pid of the worker's own processes."""
    commands = {child.pid: command_of(child) for child in psutil.Process(worker).children()}
    return {command[2]: pid for pid, command in commands.items() if len(command) > 2}


async def assert_nothing_is_left(rig: Rig) -> None:
    """A job's folder goes after its result: soon the worker's own one is empty."""
    [scratch] = (rig.folder / "scratch").iterdir()
    async with asyncio.timeout(DEADLINE_S):
        while any(scratch.iterdir()):
            await asyncio.sleep(0.01)


async def test_hostile_files_end_as_invalid_input_and_cost_no_process(rig: Rig) -> None:
    worker = await serve_whisper(rig)
    heard = await hear(rig, CLIP.read_bytes())
    assert heard.status == "succeeded"
    assert heard.timings.fetch_s > 0, "decoding takes time"
    processes, rss = children_of(worker), psutil.Process(worker).memory_info().rss
    assert set(processes) == {"headrace_workers.engine_process", NURSERY}
    async with Listener() as listener:
        files = naming_others(rig.folder, CLIP, listener.port)
        files["no recording"] = bytes(5000)
        files["one channel too many"] = wav_header(16_000, 33, 6600) + bytes(6600)
        del files["mov with a reference"]  # a film of its own bytes: it is heard
        for name, content in files.items():
            result = await hear(rig, content)
            assert result.status == "failed", name
            assert result.error is not None
            assert (result.error.code, result.error.fault) == ("invalid_input", "input"), name
            assert result.error.message.startswith("input.audio: ")
            assert result.attempts == 0, "no engine was given it"
            assert b"amiable" not in msgspec.json.encode(result)
        assert listener.heard == 0
    assert (await hear(rig, CLIP.read_bytes())).status == "succeeded"
    assert children_of(worker) == processes
    assert psutil.Process(worker).memory_info().rss - rss < 20e6
    await assert_nothing_is_left(rig)


async def test_a_nursery_that_dies_costs_an_attempt_and_no_job(rig: Rig) -> None:
    worker = await serve_whisper(rig)
    assert (await hear(rig, CLIP.read_bytes())).status == "succeeded"
    before = children_of(worker)
    # Stopped first, so that the job is inside when it dies.
    nursery = psutil.Process(before[NURSERY])
    nursery.suspend()
    job = await rig.submit(audio={"$inline": base64.b64encode(CLIP.read_bytes()).decode()})
    await rig.until(lambda status: status.engines[0].held == 1)
    nursery.kill()
    events = await rig.events(job, Retrying)
    assert events[-1].code == "internal"
    assert "could not decode the input" in events[-1].message
    assert (await rig.result(job)).status == "succeeded"
    after = children_of(worker)
    assert after["headrace_workers.engine_process"] == before["headrace_workers.engine_process"]
    assert after[NURSERY] != before[NURSERY]


async def test_a_job_that_is_canceled_while_it_is_decoded_ends_at_once(rig: Rig) -> None:
    worker = await serve_whisper(rig)
    nursery = psutil.Process(children_of(worker)[NURSERY])
    nursery.suspend()
    job = await rig.submit(audio={"$inline": base64.b64encode(CLIP.read_bytes()).decode()})
    await rig.until(lambda status: status.engines[0].held == 1)
    await rig.cancel(job)
    await rig.until(lambda status: status.engines[0].held == 0)
    nursery.resume()
    assert (await rig.result(job)).status == "canceled"
    assert (await hear(rig, CLIP.read_bytes())).status == "succeeded"
    await assert_nothing_is_left(rig)
