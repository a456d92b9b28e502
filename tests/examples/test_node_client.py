"""The Node client never saw our code: what it can do, a client in any language can."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from example_runs import Ran, System

from headrace_contracts.codec import Encoding
from headrace_contracts.job import JobBody
from headrace_contracts.names import DEFAULT_TENANT, Lane
from headrace_contracts.result import Result
from headrace_contracts.settings import NatsSettings
from headrace_storage.blobs import JetStreamBlobs
from headrace_storage.connection import Connection
from headrace_storage.events import last_event
from headrace_storage.jobs import submit_job
from headrace_workers.engines.synthetic import artifact_bytes

NODE = Path(__file__).parents[2] / "examples" / "node"
CLIENT = NODE / "client.mjs"
SPEECH = Path(__file__).parents[2] / "compose" / "headrace_local" / "data" / "speech" / "dashwood-7s.wav"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None,
        reason="NOT TESTED: without node and npm, nothing shows that other languages can use the contract",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """The client's packages, in the versions of the lock file."""
    done = NODE / "node_modules" / ".package-lock.json"
    if not done.is_file() or done.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        installed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=240)
        assert installed.returncode == 0, installed.stderr


def result_of(ran: Ran) -> Result:
    """The result it printed, which must be one by our own schema."""
    assert ran.out, ran.err
    return msgspec.json.decode(ran.out, type=Result)


def events_of(ran: Ran) -> list[tuple[str, dict[str, object]]]:
    lines = [line.partition(" ") for line in ran.err.splitlines()]
    return [(name, json.loads(rest)) for name, _, rest in lines if rest.startswith("{")]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_job_is_submitted_followed_read_and_its_file_checked(synthetic: System, encoding: str) -> None:
    job = json.dumps({"echo": "grüße", "steps": 3, "step_s": 0.05, "output_bytes": 300_000, "seed": 7})
    flags = ["--msgpack"] if encoding == "msgpack" else []

    ran = await synthetic.run("node", CLIENT, "echo", job, "--out", encoding, *flags)

    assert ran.status == 0, ran.err
    result = result_of(ran)
    assert result.id.startswith("seq-")
    assert msgspec.json.decode(result.output)["echo"] == "grüße"
    [artifact] = result.artifacts
    data = (synthetic.folder / encoding / artifact.name).read_bytes()
    assert data == artifact_bytes(7, 300_000)
    assert hashlib.sha256(data).hexdigest() == artifact.sha256
    events = events_of(ran)
    assert events[0][0] == "started"
    # The last ones may come after the result, which ends the run.
    steps = [facts["step"] for name, facts in events if name == "progress"]
    assert steps == [1, 2, 3][: len(steps)]
    assert steps


async def test_a_job_with_an_id_of_its_own_is_stored_once(synthetic: System) -> None:
    job = json.dumps({"echo": "once"})

    first = await synthetic.run("node", CLIENT, "echo", job, "--id", "node-once")
    again = await synthetic.run("node", CLIENT, "echo", job, "--id", "node-once")

    assert result_of(first).id == "node-once"
    assert "already submitted: job node-once" in again.err
    assert again.out == first.out


async def test_a_file_that_is_not_the_promised_one_is_refused(synthetic: System) -> None:
    command = ("node", CLIENT, "echo", '{"output_bytes": 1000}', "--id", "node-damaged")
    [artifact] = result_of(await synthetic.run(*command)).artifacts
    async with Connection(NatsSettings(url=synthetic.url)) as connection, JetStreamBlobs(connection.nc) as blobs:
        await blobs.put(artifact.blob, bytes(1000), artifact.content_type)

    again = await synthetic.run(*command)

    assert again.status == 1
    assert f"artifact {artifact.name} has other bytes than promised" in again.err


async def test_a_wrong_input_comes_back_as_the_result(synthetic: System) -> None:
    ran = await synthetic.run("node", CLIENT, "echo", '{"steps": "many"}')

    assert ran.status == 1
    error = result_of(ran).error
    assert error is not None
    assert (error.code, error.fault, error.retryable) == ("invalid_input", "input", False)
    assert error.message.startswith("input.steps: ")


async def test_a_model_that_is_not_there_comes_back_as_the_result(synthetic: System) -> None:
    ran = await synthetic.run("node", CLIENT, "eccho", "{}", "--wait-s", "30")

    assert ran.status == 1
    error = result_of(ran).error
    assert error is not None
    assert error.code == "unknown_model"


async def test_a_running_job_is_canceled_and_a_finished_one_is_not(synthetic: System) -> None:
    running = asyncio.create_task(
        synthetic.run("node", CLIENT, "echo", '{"steps": 100, "step_s": 2}', "--id", "node-cancel")
    )
    async with Connection(NatsSettings(url=synthetic.url)) as connection, asyncio.timeout(30):
        while await last_event(connection, DEFAULT_TENANT, "node-cancel", "started") is None:
            await asyncio.sleep(0.02)

    assert (await synthetic.run("node", NODE / "cancel.mjs", "echo", "node-cancel")).out == "canceled\n"

    ran = await running
    assert (ran.status, result_of(ran).status) == (1, "canceled")
    assert (await synthetic.run("node", NODE / "cancel.mjs", "echo", "node-cancel")).out == "already canceled\n"
    # Its worker takes the next job, which it could not do for the 200 s of the canceled one.
    following = await synthetic.run("node", CLIENT, "echo", '{"echo": "next"}', "--wait-s", "60")
    assert result_of(following).status == "succeeded"


async def test_a_result_of_a_msgpack_job_from_python_is_read(synthetic: System) -> None:
    """The encodings of the two sides are one: bytes of msgspec, read by @msgpack/msgpack, times included."""
    async with Connection(NatsSettings(url=synthetic.url)) as connection:
        body = JobBody(input=msgspec.Raw(msgspec.msgpack.encode({"echo": "shared"})))
        await submit_job(connection, DEFAULT_TENANT, "echo", Lane.NORMAL, body, Encoding.MSGPACK, "node-shared")

    ran = await synthetic.run("node", CLIENT, "echo", '{"echo": "shared"}', "--id", "node-shared")

    assert "already submitted" in ran.err
    result = result_of(ran)
    assert msgspec.json.decode(result.output)["echo"] == "shared"
    assert result.created_at <= result.completed_at


@pytest.mark.models
@pytest.mark.parametrize("flags", [[], ["--msgpack"]], ids=["json", "msgpack"])
async def test_a_recording_is_uploaded_and_written_down(bundled: System, flags: list[str]) -> None:
    ran = await bundled.run("node", CLIENT, "whisper-tiny-en", "{}", "--file", f"audio={SPEECH}", *flags)

    assert ran.status == 0, ran.err
    assert "john dashwood" in json.loads(ran.out)["output"]["text"].lower()


@pytest.mark.models
async def test_the_command_of_the_docs_draws_a_picture(bundled: System) -> None:
    job = '{"prompt":"a red star on a blue background"}'

    ran = await bundled.run("node", CLIENT, "tiny-shapes", job, "--out", "pictures")

    assert ran.status == 0, ran.err
    assert (bundled.folder / "pictures" / "image-0.png").read_bytes().startswith(b"\x89PNG")
