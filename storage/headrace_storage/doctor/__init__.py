"""Is this broker safe, set up as Headrace needs it, and able to work? Small checks over one record of what was seen."""

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.settings import Settings
from headrace_storage.blobs import open_blobs
from headrace_storage.connection import Connection
from headrace_storage.doctor.finding import Finding, Level
from headrace_storage.doctor.observation import Observation, Sight
from headrace_storage.doctor.observe import observe
from headrace_storage.doctor.probe import denials, try_blobs
from headrace_storage.doctor.queue_checks import (
    check_blobs,
    check_consumers,
    check_rights,
    check_room,
    check_streams,
    check_workers,
)
from headrace_storage.doctor.safety import dangers, examine_safety
from headrace_storage.doctor.server_checks import (
    check_clock,
    check_health,
    check_max_payload,
    check_storage_limit,
    check_sync,
    check_version,
)
from headrace_storage.topology import StorageLimits

__all__ = ["CHECKS", "Finding", "Level", "Observation", "dangers", "examine", "examine_safety"]

# In the order in which they are shown: what everything rests on first.
CHECKS = (
    check_version,
    check_sync,
    check_health,
    check_storage_limit,
    check_max_payload,
    check_clock,
    check_streams,
    check_room,
    check_consumers,
    check_workers,
    check_blobs,
    check_rights,
)


async def examine(
    connection: Connection, settings: Settings, clock: Clock, limits: StorageLimits | None = None
) -> list[Finding]:
    """Look at everything and say what is well and what is not.

    Changes nothing, but that it opens the object store, which makes its bucket, and stores and removes a probe there.

    Args:
        connection: the broker.
        settings: where its monitoring port and the object store are.
        clock: ours, to hold the broker's against.
        limits: what the streams should have been made with.

    Raises:
        BrokerUnavailable: the connection was lost on the way.
    """
    seen = await observe(connection, settings.nats, clock, limits)
    # Trying what is denied would only wait for answers that do not come.
    if settings.s3 is not None or seen.blobs_sight is not Sight.DENIED:
        seen = msgspec.structs.replace(
            seen,
            blobs_place="JetStream" if settings.s3 is None else settings.s3.endpoint_url,
            blobs_failure=await try_blobs(open_blobs(settings, connection.nc), settings.tenant),
        )
    seen = msgspec.structs.replace(seen, denials=await denials(connection, settings.tenant))
    return [finding for check in CHECKS for finding in check(seen)]
