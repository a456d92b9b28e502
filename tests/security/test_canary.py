"""What a submitter sends stays between the submitter and the result: a word that is looked for everywhere else."""

import asyncio
import os
import secrets
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from secured import DEADLINE_S, MODEL, OTHER, TENANTS, TRUSTED, SecuredBroker

import headrace
from headrace_contracts.result import Status
from headrace_local.models import find_model
from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model

pytestmark = pytest.mark.slow

CANARY = f"canary{secrets.token_hex(8)}"
WHISPER = "whisper-tiny-en"
SPEECH = Path(__file__).parents[2] / "compose" / "headrace_local" / "data" / "speech" / "young-man-3s.wav"


class Listener:
    """Hears everything in the operator's account, and keeps what must not have the canary."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, bytes]] = []
        self.heard = 0

    async def note(self, message: Msg) -> None:
        self.heard += 1
        kind, _, rest = message.subject.partition(".")
        headers = repr(message.headers).encode()
        own = rest.startswith(f"{TRUSTED}.")
        if kind in ("$KV", "alerts", "control") or message.subject.startswith("$JS.EVENT."):
            self.kept.append((message.subject, headers + message.data))
        elif kind == "dead":
            self.kept.append((message.subject, headers))
        elif kind in ("results", "events") and own:
            # Its output and metadata are its own; what is said of it beside them is not.
            said = (
                msgspec.json.decode(message.data) if message.data[:1] == b"{" else msgspec.msgpack.decode(message.data)
            )
            private = {"output", "metadata", "text"}
            self.kept.append((message.subject, repr({k: v for k, v in said.items() if k not in private}).encode()))
        elif kind in ("jobs", "results", "events") and not own:
            self.kept.append((message.subject, headers + message.data))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredBroker]:
    broker = SecuredBroker(tmp_path_factory.mktemp("canary") / "broker")
    broker.temporary = tmp_path_factory.mktemp("scratch")
    try:
        await broker.start(*TENANTS)
        await broker.set_up()
        await broker.ensure_worker()
        yield broker
    finally:
        await broker.stop()


@pytest_asyncio.fixture
async def listener(served: SecuredBroker) -> AsyncIterator[Listener]:
    listener = Listener()
    async with served.connection(Role.ADMIN) as admin:
        await admin.nc.subscribe(">", cb=listener.note)
        await admin.nc.flush()
        yield listener


async def check_nowhere(served: SecuredBroker, listener: Listener) -> None:
    assert listener.heard > 10, "it listened to nothing"
    assert [subject for subject, said in listener.kept if CANARY.encode() in said] == []
    for log in (served.folder / "worker.log", served.folder / "nats.log"):
        assert CANARY not in log.read_text(), log
    assert served.temporary is not None
    # A job's folder is removed after its result is there.
    async with asyncio.timeout(DEADLINE_S):
        while any(files for _, _, files in os.walk(served.temporary)):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("task_input", "order", "status"),
    [
        ({}, {}, Status.SUCCEEDED),
        ({"output_bytes": 1000, "steps": 3}, {}, Status.SUCCEEDED),
        ({"behaviour": "error"}, {}, Status.FAILED),
        ({"behaviour": "out_of_memory"}, {}, Status.FAILED),
        ({"behaviour": "crash"}, {}, Status.FAILED),
        ({"steps": 100, "step_s": 0.05}, {"timeout_s": 0.3}, Status.FAILED),
        ({}, {"ttl_s": 1e-6}, Status.EXPIRED),
        ({"steps": 100, "step_s": 0.05}, {}, Status.CANCELED),
    ],
    ids=["success", "artifact", "model error", "out of memory", "crash", "timeout", "expired", "cancel"],
)
async def test_the_word_is_nowhere(
    served: SecuredBroker,
    listener: Listener,
    task_input: dict[str, object],
    order: dict[str, float],
    status: Status,
) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(
            MODEL, echo=f"my {CANARY} secret", metadata={"note": CANARY, f"key-{CANARY}": 1}, **task_input, **order
        )
        if status is Status.CANCELED:
            async for _ in job.events():
                break
            await job.cancel()
        result = await job.result(DEADLINE_S)
    assert result.status is status, result.error
    assert result.metadata["note"] == CANARY, "the submitter has it back"
    await check_nowhere(served, listener)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"input": {"echo": f"{CANARY} " * 4000}}, "invalid_input"),
        ({"input": {"echo": {"text": CANARY}}}, "invalid_input"),
        ({"input": {"echo": CANARY, "steps": 1000}}, "invalid_input"),
        ({"input": {"echo": CANARY, "steps": "x"}}, "invalid_input"),
        ({"input": {"echo": CANARY}, "ttl_s": "soon"}, "undecodable"),
        ({"input": {"echo": CANARY}, "unknown": CANARY}, "undecodable"),
        ({"metadata": {"note": CANARY}}, "undecodable"),
    ],
)
async def test_a_refusal_does_not_quote_the_prompt(
    served: SecuredBroker, listener: Listener, data: dict[str, object], code: str
) -> None:
    async with served.connection(Role.PRODUCER, TRUSTED) as raw:
        result = await refused(raw, msgspec.json.encode(data))
    assert result.error.code == code
    await check_nowhere(served, listener)


async def test_a_message_that_is_cut_off_is_not_quoted(served: SecuredBroker, listener: Listener) -> None:
    async with served.connection(Role.PRODUCER, TRUSTED) as raw:
        for data in (f'{{"input": {{"echo": "{CANARY}'.encode(), f"{CANARY}".encode(), f'"{CANARY}"'.encode()):
            assert (await refused(raw, data)).error.code == "undecodable"
    await check_nowhere(served, listener)


async def refused(connection: Connection, data: bytes) -> headrace.JobResult:
    from headrace_storage.results import wait_result

    receipt = await connection.js.publish(f"jobs.{TRUSTED}.{MODEL}.normal", data)
    async with asyncio.timeout(DEADLINE_S):
        return await wait_result(connection, TRUSTED, MODEL, f"seq-{receipt.seq}")


async def test_another_tenant_hears_nothing(served: SecuredBroker) -> None:
    heard: list[Msg] = []

    async def note(message: Msg) -> None:
        heard.append(message)

    async with served.connection(Role.CONSUMER, OTHER) as other:
        for subject in (f"results.{OTHER}.>", f"events.{OTHER}.>"):
            await other.nc.subscribe(subject, cb=note)
        await other.nc.flush()
        async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
            await (await client.submit(MODEL, echo=CANARY, steps=3, step_s=0.05)).result(DEADLINE_S)
        await other.nc.flush()
    assert heard == []


@pytest.mark.models
async def test_the_word_in_a_recording_and_its_name_is_nowhere(
    served: SecuredBroker, listener: Listener, tmp_path: Path
) -> None:
    """In the file's name, in its INFO chunk, and in a file that is no recording."""
    async with served.connection(Role.ADMIN) as admin:
        await add_model(admin, find_model(WHISPER))
    await served.start_worker(WHISPER)
    named = tmp_path / f"{CANARY}.wav"
    named.write_bytes(with_comment(SPEECH.read_bytes(), CANARY))
    broken = tmp_path / f"{CANARY}-broken.wav"
    broken.write_bytes(b"RIFF" + CANARY.encode() * 8000)
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        spoken = await (await client.submit(WHISPER, audio=named, initial_prompt=CANARY)).result(3 * DEADLINE_S)
        assert spoken.status is Status.SUCCEEDED, spoken.error
        failed = await (await client.submit(WHISPER, audio=broken)).result(DEADLINE_S)
        assert failed.status is Status.FAILED
    await check_nowhere(served, listener)


def with_comment(wav: bytes, comment: str) -> bytes:
    """A WAV file with a LIST/INFO chunk: title and comment."""
    entries = b"".join(
        name + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
        for name, text in ((b"INAM", comment.encode()), (b"ICMT", comment.encode()))
    )
    chunk = b"LIST" + struct.pack("<I", 4 + len(entries)) + b"INFO" + entries
    body = wav[8:] + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body
