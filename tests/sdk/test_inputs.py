"""What a caller may give as input, what is sent for it, and what is refused before anything is sent."""

import io
import os
from pathlib import Path

import msgspec
import pytest
from staged_worker import DRAW, ECHO, HEAR, WRITE, StagedWorker

from headrace import Client, InvalidInput
from headrace.inputs import INLINE_BYTES, prepare, upload
from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks import SpeechToTextInput
from headrace_contracts.tasks.registry import decode_input
from headrace_storage.lookup import find_job

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def heard(audio: object) -> tuple[SpeechToTextInput, int]:
    """What a worker would read of an input, and how many files are to be uploaded for it."""
    prepared = await prepare(HEAR, "default", {"audio": audio})
    decoded = decode_input(HEAR.task, prepared.input, Encoding.MSGPACK, HEAR.limits)
    assert isinstance(decoded, SpeechToTextInput)
    return decoded, len(prepared.uploads)


async def test_a_file_may_be_a_path_bytes_or_open(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"RIFF")
    with path.open("rb") as file:
        for given in (path, b"RIFF", bytearray(b"RIFF"), memoryview(b"RIFF"), io.BytesIO(b"RIFF"), file):
            decoded, uploads = await heard(given)
            assert decoded.audio.inline == b"RIFF"
            assert uploads == 0


async def test_the_type_of_a_file_follows_from_its_name(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"RIFF")
    assert (await heard(path))[0].audio.content_type in ("audio/x-wav", "audio/wav")
    assert (await heard(b"RIFF"))[0].audio.content_type == "application/octet-stream"


@pytest.mark.parametrize(("size_bytes", "uploads"), [(INLINE_BYTES, 0), (INLINE_BYTES + 1, 1)])
async def test_a_large_file_is_referred_to(tmp_path: Path, size_bytes: int, uploads: int) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(os.urandom(size_bytes))
    for given in (path, path.read_bytes()):
        decoded, to_upload = await heard(given)
        assert to_upload == uploads
        assert (decoded.audio.blob is None) == (uploads == 0)


async def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        os.write(writer, b"RIFF")
        reading = os.open(pipe, os.O_RDONLY)
        os.close(writer)
        writer = reading
        with os.fdopen(os.dup(reading), "rb") as file:
            assert (await heard(file))[0].audio.inline == b"RIFF"
    finally:
        os.close(writer)


async def test_an_upload_is_made_once(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(os.urandom(100_000))
    job = await client.submit("hear", audio=path)
    sent = await find_job(client.connection, "default", job.id)
    assert sent is not None
    file = msgspec.msgpack.decode(sent.body.input, type=SpeechToTextInput).audio
    store = await client.blobs()
    first = await store.stat(file.blob or "")
    assert (first.size_bytes, first.sha256) == (100_000, file.sha256)

    await client.submit("hear", audio=path)

    assert (await store.stat(file.blob or "")).stored_at == first.stored_at


async def test_an_artifact_is_the_input_of_the_next_job(client: Client, worker: StagedWorker) -> None:
    draw = await client.submit("draw", prompt="a red star")
    artifact = await worker.store(client, draw, "speech.wav", b"RIFF")
    await worker.succeed(draw, {"images": []}, (artifact,))
    [made] = (await draw.result(30)).artifacts

    assert (await heard(made))[0].audio.blob == artifact.blob


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (DRAW, {}, "input.prompt: is required"),
        (DRAW, {"prompt": ""}, r"input.prompt: Expected `str` of length >= 1"),
        (DRAW, {"prompt": "star", "stepz": 3}, "input.stepz: is not a field of this task's input"),
        (DRAW, {"prompt": 7}, "input.prompt: Expected `str`, got `int`"),
        (DRAW, {"prompt": "star", "steps": "3"}, r"input.steps: Expected `int \| null`, got `str`"),
        (DRAW, {"prompt": "star", "width": 12}, "input.width: .*multiple of 8"),
        (DRAW, {"prompt": "star", "seed": 2**70}, "input.seed: int cannot be sent"),
        (DRAW, {"prompt": "star", "seed": object()}, "input.seed: object cannot be sent"),
        (DRAW, {"prompt": "x" * 201}, "input.prompt: 201 characters is over this model's limit of 200 characters"),
        (DRAW, {"prompt": "x" * 100_000_000}, "input.prompt: .* is over this model's limit of 200 characters"),
        (WRITE, {}, "input: give exactly one of `prompt` and `messages`"),
        (WRITE, {"messages": [{"role": "robot", "content": "hi"}]}, "input.messages.*role: Invalid enum value 'robot'"),
        (ECHO, {"behaviour": "dance"}, "input.behaviour: Invalid enum value 'dance'"),
        (HEAR, {"audio": "https://example.com/a.wav"}, "input.audio: text is no file: .*URLs are not fetched"),
        (HEAR, {"audio": {"$blob": "k"}}, 'input.audio: a "\\$blob" reference needs "sha256" and "size_bytes"'),
        (HEAR, {"audio": 7}, "input.audio: Expected `object`, got `int`"),
        (HEAR, {"audio": bytes(300_001)}, "input.audio: 300001 bytes is over this model's limit of 300000 bytes"),
        (HEAR, {"audio": io.StringIO("RIFF")}, 'input.audio: the file is open as text: open it with mode "rb"'),
        (HEAR, {"audio": io.BytesIO(bytes(10**8))}, "input.audio: 300001 bytes is over"),
        (HEAR, {"audio": Path("/nowhere/a.wav")}, "input.audio: cannot read /nowhere/a.wav: No such file"),
        (HEAR, {"audio": Path("/")}, "input.audio: cannot read /: Is a directory"),
        (HEAR, {"audio": Path("/dev/zero")}, "input.audio: 300001 bytes is over"),
    ],
)
async def test_a_wrong_input_names_its_field(spec: ModelSpec, values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await prepare(spec, "default", values)


async def test_a_file_that_changes_during_its_upload_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(bytes(100_000))
    prepared = await prepare(HEAR, "default", {"audio": path})
    path.write_bytes(os.urandom(100_000))

    with pytest.raises(InvalidInput, match="the file changed while it was being uploaded"):
        await upload(await client.blobs(), prepared.uploads[0], SystemClock())
