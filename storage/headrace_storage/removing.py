"""Take single messages out of a stream."""

import msgspec
import nats.js.errors

from headrace_contracts.names import Stream
from headrace_storage.connection import Connection

# "sequence not found" and "no message found": which one depends on whether the stream was ever that long.
_ALREADY_GONE = (10043, 10057)


async def remove_message(connection: Connection, stream: Stream, sequence: int, *, erase: bool) -> None:
    """Take a message out of a stream; no error if it is gone.

    Args:
        connection: the broker.
        stream: where it is.
        sequence: its place there.
        erase: overwrite it on the broker's disk too, which takes 30 times as long.

    Raises:
        BrokerUnavailable: no answer.
    """
    payload = msgspec.json.encode({"seq": sequence, "no_erase": not erase})
    try:
        await connection.api(f"STREAM.MSG.DELETE.{stream}", payload)
    except nats.js.errors.APIError as error:
        if error.err_code not in _ALREADY_GONE:
            raise
