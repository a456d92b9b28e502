"""Two thousand messages that are no jobs, among jobs: each gets its one result, and no worker is lost."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stage import MODEL, Setting, Stage, play

from headrace_contracts.codec import Encoding, encode
from headrace_contracts.errors import ErrorCode, InvalidInput, UndecodableMessage
from headrace_contracts.job import decode_job
from headrace_contracts.limits import Limits
from headrace_contracts.tasks.registry import Task, decode_input
from headrace_contracts.tasks.synthetic import SyntheticInput
from headrace_loadgen.check.history import History
from headrace_loadgen.records import Accepted, Submitting
from headrace_loadgen.system.testbed import TENANT

pytestmark = pytest.mark.slow

COUNT = 2000
SEED = 20
SUBJECT = f"jobs.{TENANT}.{MODEL}.normal"
Message = tuple[bytes, dict[str, str]]


def messages(rng: random.Random) -> Iterator[Message]:
    """Jobs that were damaged on the way, and plain noise; only those that are no valid job."""
    asked = SyntheticInput(seed=7, steps=3, output_bytes=100, echo="x" * 20)
    while True:
        encoding = rng.choice(list(Encoding))
        whole = encode({"input": asked, "timeout_s": 60.0, "metadata": {"a": 1}}, encoding)
        headers = {} if rng.random() < 0.3 else {"Content-Type": encoding.value, "Headrace-Version": "1"}
        damaged = rng.choice([_flipped, _cut, _spliced, _noise, _nested, _mislabeled])(whole, headers, rng)
        if not _valid(*damaged):
            yield damaged


def _flipped(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data), headers


def _cut(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    return whole[: rng.randrange(len(whole))], headers


def _spliced(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    at = rng.randrange(len(whole))
    return whole[:at] + rng.randbytes(rng.randint(1, 30)) + whole[at:], headers


def _noise(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    return rng.randbytes(rng.randrange(0, 2000)), headers


def _nested(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    depth = rng.choice([10, 1000, 100_000])
    opening = rng.choice([b"[", b'{"input":', b"\x91", b"\x81\xa5input"])
    return opening * (depth // len(opening)), headers


def _mislabeled(whole: bytes, headers: dict[str, str], rng: random.Random) -> Message:
    kinds = ["text/plain", "application/json", "application/msgpack", "\u00e9", "application/json; charset=utf-16", ""]
    return whole, {"Content-Type": rng.choice(kinds)}


def _valid(data: bytes, headers: dict[str, str]) -> bool:
    try:
        job = decode_job(SUBJECT, headers, data, 1, datetime.now(UTC))
        decode_input(Task.SYNTHETIC, job.body.input, job.encoding, Limits())
    except (UndecodableMessage, InvalidInput):
        return False
    return True


async def noise_among_jobs(stage: Stage) -> None:
    """Publish everything as a client without our SDK would."""
    rng = random.Random(SEED)
    connection, journal, clock = stage.bed.watch, stage.clients._journal, stage.clock
    innocents = []
    source = messages(rng)
    for number in range(COUNT):
        data, headers = next(source)
        ack = await connection.js.publish(SUBJECT, data, headers=dict(headers) or None)
        journal.write(Submitting(clock.monotonic(), f"seq-{ack.seq}", MODEL, None))
        journal.write(Accepted(clock.monotonic(), f"seq-{ack.seq}"))
        stage.clients.accepted.add(f"seq-{ack.seq}")
        if number % 40 == 0:
            innocents.append(await stage.submit())
    await stage.until_ended(*innocents)


async def test_every_message_is_answered_and_no_worker_is_lost(tmp_path: Path) -> None:
    judged = await play(tmp_path, Setting(batch=4), noise_among_jobs)
    assert judged.violated == {}
    ends = Counter(
        job.result.error.code if job.result and job.result.error else None
        for job in History.of(judged.evidence).jobs.values()
    )
    assert ends[None] == COUNT // 40
    assert ends.keys() == {None, ErrorCode.UNDECODABLE, ErrorCode.INVALID_INPUT}
    assert ends[ErrorCode.UNDECODABLE] > COUNT / 2
    # The worker that got them is the one that ends when it is told to.
    assert judged.evidence.final.worker_exits == ("exit status 0", "exit status 0")
    # What could not be read is kept as it came.
    assert len(judged.evidence.final.dead) == ends[ErrorCode.UNDECODABLE]


def test_the_messages_are_the_same_for_the_same_seed() -> None:
    first, again = messages(random.Random(SEED)), messages(random.Random(SEED))
    assert [next(first) for _ in range(50)] == [next(again) for _ in range(50)]
