"""Real jobs for the stack's three models, and how one sees that their results are right."""

import asyncio
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from recordings import SPEECH, clips, word_errors, words_of
from shapes import look

from headrace import Client, Handle, JobResult

# A job may find no worker, and wait for one: a container, libraries and weights.
JOB_DEADLINE_S = 240.0
MODELS = ("tiny-shapes", "whisper-tiny-en", "smollm2-135m")
CLIP = "dashwood-7s.wav"


async def a_picture_is_drawn(client: Client) -> bytes:
    """It shows what was asked for; its file."""
    job = await client.submit("tiny-shapes", prompt="a yellow cross on a black background", seed=11)
    result = await succeeded(job)
    picture = await result.artifacts[0].read()
    assert picture.startswith(b"\x89PNG")
    seen = look(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")))
    assert (seen.colour, seen.shape, seen.background) == ("yellow", "cross", "black")
    return picture


async def speech_is_written_down(client: Client) -> None:
    """Hardly a word of a recording is wrong."""
    result = await succeeded(await client.submit("whisper-tiny-en", audio=SPEECH / CLIP))
    said = words_of(clips()[CLIP])
    assert word_errors(words_of(result.text or ""), said) / len(said) < 0.15, result.text


async def a_question_is_answered(client: Client) -> None:
    """With the fact."""
    job = await client.submit("smollm2-135m", prompt="What is the capital of France?", max_tokens=20, temperature=0.0)
    assert "Paris" in ((await succeeded(job)).text or "")


async def succeeded(job: Handle) -> JobResult:
    """Its result, which must be a success."""
    return (await job.result(JOB_DEADLINE_S)).raise_for_status()


async def all_succeeded(jobs: Iterable[Handle]) -> list[JobResult]:
    """Their results, each a success, in order."""
    return list(await asyncio.gather(*(succeeded(job) for job in jobs)))
