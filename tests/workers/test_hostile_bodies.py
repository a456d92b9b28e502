"""Bodies made to hurt: deep, huge, or with a huge part in every place that is told back. Each ends in one result."""

import msgspec
import pytest
from rig import Rig

from headrace_contracts.errors import ErrorCode
from headrace_contracts.names import Stream
from headrace_contracts.result import Status

pytestmark = pytest.mark.slow

# What is left of 8 MiB for a body, beside a subject and a header.
LARGEST = (8 << 20) - 256


def deep(levels: int) -> list[bytes]:
    """Bodies whose input, or another field, is nested: in JSON lists and maps, and in MessagePack."""
    return [
        b'{"input":' + b"[" * levels + b"]" * levels + b"}",
        b'{"input":{"echo":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}}",
        b'{"input":{},"metadata":{"a":' + b"[" * levels + b"]" * levels + b"}}",
        b'{"x":' + b"[" * levels + b"]" * levels + b',"input":{}}',
        b"[" * levels,
        b"\x81\xa5input" + b"\x91" * levels + b"\xc0",
        b"\x81\xa5input" + b"\x81\xa1a" * levels + b"\xc0",
        b"\x82\xa5input\x80\xa8metadata\x81\xa1a" + b"\x91" * levels + b"\xc0",
    ]


HUGE = {
    "name of an unknown field": b'{"input":{},"%s":1}' % (b"x" * (LARGEST - 20)),
    "name of an unknown field of the input": b'{"input":{"%s":1}}' % (b"x" * (LARGEST - 20)),
    "wrong enumeration": b'{"input":{"behaviour":"%s"}}' % (b"x" * (LARGEST - 40)),
    "metadata": b'{"input":{},"metadata":{"a":"%s"}}' % (b"x" * (LARGEST - 60)),
    "many labels": b'{"input":{},"metadata":%s}' % msgspec.json.encode({f"k{n}": n for n in range(300_000)}),
    "key of a label": b'{"input":{},"metadata":{"%s":[]}}' % (b"x" * (LARGEST - 60)),
    "number": b'{"input":{"steps":%s}}' % (b"9" * (LARGEST - 40)),
    "no body": b"x" * LARGEST,
}


@pytest.mark.parametrize("levels", [900, 10_000, 1_000_000])
async def test_deep_bodies(rig: Rig, levels: int) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    ids = [f"seq-{await rig.publish(body)}" for body in deep(levels) if len(body) < LARGEST]
    for job_id in ids:
        result = await rig.result(job_id)
        assert result.status is Status.FAILED
        assert result.error is not None
        assert result.error.code in (ErrorCode.UNDECODABLE, ErrorCode.INVALID_INPUT)
        assert len(result.error.message) < 2000
    assert (await rig.run(echo="alive")).status is Status.SUCCEEDED
    assert worker.returncode is None


@pytest.mark.parametrize("what", HUGE)
async def test_huge_bodies(rig: Rig, what: str) -> None:
    await rig.add_model()
    worker = await rig.start_worker()
    result = await rig.result(f"seq-{await rig.publish(HUGE[what])}")
    assert result.status is Status.FAILED
    assert result.error is not None
    assert result.error.code in (ErrorCode.UNDECODABLE, ErrorCode.INVALID_INPUT)
    assert len(result.error.message) < 3000
    assert (await rig.run(echo="alive")).status is Status.SUCCEEDED
    assert worker.returncode is None


async def test_metadata_has_a_limit_that_leaves_room_for_the_result(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    most = await rig.submit_body({"input": {}, "metadata": {"a": "x" * 65_000}})
    result = await rig.result(most.job_id)
    assert (result.status, len(str(result.metadata["a"]))) == (Status.SUCCEEDED, 65_000)
    refused = await rig.result(f"seq-{await rig.publish(msgspec.json.encode(over_the_limit()))}")
    assert refused.error is not None
    assert "`metadata` takes 66008 bytes as JSON and must take at most 65536" in refused.error.message


def over_the_limit() -> dict[str, object]:
    return {"input": {}, "metadata": {"a": "x" * 66_000}}


async def test_the_largest_message_that_is_no_job_is_kept_without_its_body(rig: Rig) -> None:
    """There is no room for the reason beside it; the worker must not fail to bury it again and again."""
    await rig.add_model()
    await rig.start_worker()
    job_id = f"seq-{await rig.publish(b'x' * (8 << 20))}"
    assert (await rig.result(job_id)).status is Status.FAILED
    kept = await rig.connection.js.get_last_msg(Stream.DEAD, f"dead.acme.{rig.model}.{job_id}")
    assert (kept.headers or {})["Headrace-Left-Out-Bytes"] == str(8 << 20)
