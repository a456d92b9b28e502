"""What each role may see of how full the broker is: a scaler everything, and a question that is denied harms nobody."""

import pytest
from secured import TRUSTED, SecuredBroker

from headrace_contracts.names import Bucket, Stream
from headrace_storage.auth.roles import Role
from headrace_storage.broker_levels import broker_levels

pytestmark = pytest.mark.slow


async def test_a_scaler_sees_every_stream_and_the_servers_limit(secured: SecuredBroker) -> None:
    async with secured.connection(Role.SCALER) as connection:
        levels = await broker_levels(connection, None)

    assert levels.healthy
    assert {*Stream, *(f"KV_{bucket}" for bucket in Bucket)} <= {stream.name for stream in levels.streams}
    assert levels.storage_limit_bytes is not None
    assert secured.refused(Role.SCALER) == []


async def test_a_role_that_may_see_nothing_has_no_numbers_and_no_error(secured: SecuredBroker) -> None:
    async with secured.connection(Role.CONSUMER, TRUSTED) as connection:
        levels = await broker_levels(connection, None)

    assert levels.dead_letters is None
    assert levels.storage_limit_bytes is None
