"""The three models behind the whole system, asked by a NATS client that never saw the SDK.

The jobs are plain JSON with no header; what comes back is checked by its pixels, its words and a fact.
"""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import numpy as np
import pytest
import pytest_asyncio
from loaded import CACHE
from nats.aio.client import Client
from PIL import Image
from recordings import SPEECH, clips, wav, word_errors, words_of
from shapes import look

from headrace_contracts.settings import Settings
from headrace_local.models import find_model
from headrace_local.nats_server import RANDOM_PORT
from headrace_local.system import LocalSystem

pytestmark = pytest.mark.models

MODELS = ("tiny-shapes", "whisper-tiny-en", "smollm2-135m")
DEADLINE_S = 120.0


class RawClient:
    """Publish, subscribe, read JSON: what any language's NATS client can do."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.js = nc.jetstream()

    async def ask(self, model: str, task_input: object, **body: object) -> dict:
        ack = await self.js.publish(f"jobs.default.{model}.normal", json.dumps({"input": task_input, **body}).encode())
        return await self.result(model, f"seq-{ack.seq}")

    async def result(self, model: str, job_id: str) -> dict:
        subscription = await self.js.subscribe(f"results.default.{model}.{job_id}", ordered_consumer=True)
        message = await subscription.next_msg(DEADLINE_S)
        await subscription.unsubscribe()
        return json.loads(message.data)

    async def artifact(self, result: dict) -> bytes:
        store = await self.js.object_store("headrace")
        return (await store.get(result["artifacts"][0]["$blob"])).data


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RawClient]:
    folder = tmp_path_factory.mktemp("system")
    specs = [find_model(name) for name in MODELS]
    async with LocalSystem(specs, folder, Settings(), port=RANDOM_PORT) as system:
        assert await system.wait_settled() == []
        nc = await nats.connect(system.settings.nats.url)
        yield RawClient(nc)
        await nc.close()


@pytest.fixture(scope="module", autouse=True)
def weights_of_the_tests() -> None:
    """The worker finds the imported language model where the engines' tests keep it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CACHE_DIR", str(CACHE))
        yield


@pytest.mark.parametrize(
    "asked", [("yellow", "cross", "black"), ("white", "ring", "green"), ("purple", "square", "cyan")]
)
async def test_a_picture_is_what_was_asked_for(client: RawClient, asked: tuple[str, str, str]) -> None:
    colour, shape, background = asked
    result = await client.ask("tiny-shapes", {"prompt": f"a {colour} {shape} on a {background} background", "seed": 11})
    assert result["status"] == "succeeded", result
    assert result["usage"]["images"] == 1
    seen = look(np.asarray(Image.open(io.BytesIO(await client.artifact(result))).convert("RGB")))
    assert (seen.colour, seen.shape, seen.background) == asked


async def test_the_same_seed_gives_the_same_picture(client: RawClient) -> None:
    task_input = {"prompt": "a small orange star on white", "seed": 5, "steps": 8}
    pictures = [await client.artifact(await client.ask("tiny-shapes", task_input)) for _ in range(2)]
    assert pictures[0] == pictures[1]
    assert pictures[0] != await client.artifact(await client.ask("tiny-shapes", {**task_input, "seed": 6}))


async def test_what_is_said_is_written_down(client: RawClient) -> None:
    errors = total = 0
    for clip, words in clips().items():
        result = await client.ask("whisper-tiny-en", {"audio": inline((SPEECH / clip).read_bytes())})
        assert result["status"] == "succeeded", result
        said = words_of(words)
        errors += word_errors(words_of(result["output"]["text"]), said)
        total += len(said)
    assert errors / total < 0.1


async def test_the_language_model_knows_a_fact_and_streams_it(client: RawClient) -> None:
    result = await client.ask("smollm2-135m", {"prompt": "What is the capital of France?", "max_tokens": 20})
    assert "Paris" in result["output"]["text"]
    assert result["usage"]["tokens_out"] > 0
    events = await client.js.subscribe(f"events.default.smollm2-135m.{result['id']}.chunk", ordered_consumer=True)
    pieces = []
    while "".join(pieces) != result["output"]["text"]:
        chunk = json.loads((await events.next_msg(DEADLINE_S)).data)
        assert chunk["seq"] == len(pieces)
        pieces.append(chunk["text"])


async def test_the_same_seed_gives_the_same_text(client: RawClient) -> None:
    task_input = {"prompt": "Write a line about rain.", "max_tokens": 12, "temperature": 0.9, "seed": 3}
    texts = [(await client.ask("smollm2-135m", task_input))["output"]["text"] for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0] != (await client.ask("smollm2-135m", {**task_input, "seed": 4}))["output"]["text"]


async def test_bad_inputs_are_answered_with_the_field_and_the_reason(client: RawClient, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    empty = wav(tmp_path / "empty.wav", 0).read_bytes()
    cases = [
        ("tiny-shapes", {"prompt": "a red star on blue", "width": 64, "height": 64}, "input.width"),
        ("tiny-shapes", {"prompt": "a red star " * 20}, "input.prompt"),
        ("whisper-tiny-en", {"audio": inline(picture.getvalue())}, "input.audio"),
        ("whisper-tiny-en", {"audio": inline(empty)}, "input.audio"),
        ("whisper-tiny-en", {"audio": inline(b"")}, "input.audio"),
        ("whisper-tiny-en", {"audio": inline(a_clip()), "language": "fr"}, "input.language"),
        ("whisper-tiny-en", {"audio": "http://127.0.0.1/a.wav"}, "input.audio"),
        ("tiny-shapes", {"prompt": "a red\0 star"}, "input.prompt"),
        ("tiny-shapes", {"prompt": "a red star", "width": 8, "height": 2**40}, "input.width"),
        ("tiny-shapes", {"prompt": "a red star", "seed": 2**63}, "input.seed"),
        ("smollm2-135m", {"prompt": "x", "stop": ["y" * 30_000]}, "input.stop"),
        ("smollm2-135m", {"prompt": "\ua66e" * 7000}, "input.prompt"),  # few characters, several tokens each
    ]
    for model, task_input, field in cases:
        result = await client.ask(model, task_input)
        assert result["status"] == "failed", (model, task_input, result)
        assert (result["error"]["code"], result["error"]["fault"]) == ("invalid_input", "input")
        assert result["error"]["message"].startswith(field), result["error"]
        assert result["attempts"] <= 1


async def test_a_missing_blob_and_one_with_another_hash_are_answered(client: RawClient) -> None:
    store = await client.js.object_store("headrace")
    data = a_clip()
    await store.put("default/inputs/clip", data)
    reference = {"$blob": "default/inputs/clip", "sha256": "0" * 64, "size_bytes": len(data)}
    wrong = await client.ask("whisper-tiny-en", {"audio": reference})
    assert (wrong["status"], wrong["error"]["code"]) == ("failed", "blob_mismatch")
    missing = await client.ask("whisper-tiny-en", {"audio": {**reference, "$blob": "default/inputs/none"}})
    assert (missing["status"], missing["error"]["code"]) == ("failed", "blob_missing")
    foreign = await client.ask("whisper-tiny-en", {"audio": {**reference, "$blob": "other/inputs/clip"}})
    assert foreign["error"]["message"].startswith("input.audio")


async def test_three_models_work_side_by_side(client: RawClient) -> None:
    results = await asyncio.gather(
        client.ask("tiny-shapes", {"prompt": "a blue circle on red"}),
        client.ask("whisper-tiny-en", {"audio": inline(a_clip())}),
        client.ask("smollm2-135m", {"prompt": "Say hello.", "max_tokens": 5}),
    )
    assert {result["status"] for result in results} == {"succeeded"}


def a_clip() -> bytes:
    return (SPEECH / next(iter(clips()))).read_bytes()


def inline(data: bytes) -> dict[str, str]:
    return {"$inline": base64.b64encode(data).decode()}
