"""The NATS client, with four of its habits mended.

It waits by `asyncio.wait_for`: in Python 3.11 a cancel that meets the answer there is forgotten, the canceled task goes
on, and whoever waits for its end waits for ever. A client that is closed while it reconnects would go on with that.

What it had not sent when a connection broke, it sends on the next one: an answer to a delivery would then act on
whoever holds the job by that time.

A request that the server refuses ends in a timeout, and bytes that are no text end its reading for good.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client

from headrace_storage.refusals import Refusals
from headrace_storage.wire import without_status

T = TypeVar("T")

_API = "$JS.API."


async def cancelable(request: Coroutine[Any, Any, T]) -> T:
    """The result of `request`, which is left to itself when we are canceled."""
    asking = asyncio.create_task(request)
    try:
        await asyncio.wait({asking})
    except asyncio.CancelledError:
        asking.cancel()
        # Nobody else asks how it ended.
        asking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise
    return await asking


class CancelableClient(Client):  # type: ignore[misc]  # the client has no types
    """The NATS client; everything in it that waits for an answer goes through the methods below."""

    def __init__(self, refusals: Refusals, api_prefix: str) -> None:
        super().__init__()
        self.refusals = refusals
        self._api_prefix = api_prefix

    async def publish(self, subject: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - the client's signature
        """As the client's; the API of JetStream is asked where this account has it."""
        if subject.startswith(_API):
            subject = f"{self._api_prefix}.{subject.removeprefix(_API)}"
        await super().publish(subject, *args, **options)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        # Whoever publishes chooses these bytes. One that the client cannot decode would end its reading for good.
        if not subject.isascii():
            subject = subject.decode(errors="replace").encode()
        if headers and reply.startswith(b"$JS.ACK."):
            headers = without_status(headers)
        await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None
        return found

    async def request(self, subject: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - the client's signature
        """As the client's; raises `Refused` where the role may not ask."""
        return await self.refusals.unless_refused(subject, super().request(subject, *args, **options))

    async def flush(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - the client's own signature
        """As the client's."""
        await cancelable(super().flush(*args, **options))

    async def _connect_to_server(self, *args: Any) -> None:  # noqa: ANN401 - the client's own signature
        await cancelable(super()._connect_to_server(*args))

    async def _process_connect_init(self) -> None:
        await cancelable(super()._process_connect_init())

    async def _attempt_reconnect(self) -> None:
        """As the client's, after everything unsent was thrown away: who sent it was not answered and tries again.

        Closing in the orderly way would also wait for a peer that does not read, which may be for minutes.
        """
        _reset(self._transport)
        self._pending.clear()
        self._pending_data_size = 0
        await super()._attempt_reconnect()


# SO_LINGER on, 0 seconds: closing discards what the kernel still holds.
_DISCARD = struct.pack("ii", 1, 0)


def _reset(transport: Any) -> None:  # noqa: ANN401 - the client's own class, without types
    """Break a TCP connection now, with all that is in its buffers; other transports are left to the client."""
    writer = getattr(transport, "_io_writer", None)
    if writer is None:
        return
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
    writer.transport.abort()
