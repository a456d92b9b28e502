"""A job that died of its model runs again from DEAD once the model is mended, and once only."""

import msgspec
import pytest
from rig import Rig

from headrace_contracts.errors import ErrorCode
from headrace_contracts.result import Status
from headrace_storage.dead import letters_of
from headrace_storage.redrive import redrive

pytestmark = pytest.mark.slow


async def test_a_redriven_job_has_a_result_of_its_own(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    died = await rig.result(f"seq-{await rig.publish(b'{')}")
    assert died.error is not None
    assert died.error.code is ErrorCode.UNDECODABLE
    [letter] = await letters_of(rig.connection, died.id)
    # As an operator who mends what a client sent would do it: the same letter, another body.
    mended = msgspec.structs.replace(letter, data=b'{"input": {"echo": "mended"}}')
    done = await redrive(rig.connection, mended)
    result = await rig.result(done.new_id)
    assert (result.status, result.id) == (Status.SUCCEEDED, done.new_id)
    await rig.until_drained()
    assert (await redrive(rig.connection, mended)).already_there
    assert (await rig.result(died.id)).status is Status.FAILED, "the old result stays"
