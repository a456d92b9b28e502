"""One receipt of a job from the broker, and the four ways to answer it.

JetStream does not fence: an answer from a worker whose lease has lapsed acts on whoever holds the job now. Whether an
answer may still be given is the caller's lease to decide; nothing here asks.
"""

from collections.abc import Mapping
from datetime import datetime

from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Lane
from headrace_storage.connection import Connection

ANSWER_TIMEOUT_S = 5.0


class Delivery:
    """A message of the JOBS stream, delivered to us for the `num_delivered`-th time (from 1)."""

    def __init__(self, connection: Connection, message: Msg) -> None:
        metadata = message.metadata
        self._connection = connection
        self._reply = message.reply
        self.lane = Lane(metadata.consumer.rpartition("-")[2])
        self.subject: str = message.subject
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self.stream_sequence: int = metadata.sequence.stream
        self.num_delivered: int = metadata.num_delivered
        self.stored_at: datetime = metadata.timestamp

    async def ack(self) -> None:
        """Remove the job from the stream; returns when the server has done so."""
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give the job back, to be delivered again after `delay_s` seconds."""
        await self._answer(b"-NAK" if delay_s <= 0 else b'-NAK {"delay": %d}' % round(delay_s * 1e9))

    async def term(self, reason: str) -> None:
        """Remove the job from the stream; the reason appears in the server's advisory."""
        await self._answer(f"+TERM {reason}"[:200].encode())

    async def in_progress(self, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Start the lease anew; returns when the server has done so."""
        await self._answer(b"+WPI", timeout_s)

    async def _answer(self, payload: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Raise `BrokerUnavailable` where the server does not confirm.

        Nothing is sent while disconnected: the client would keep it, and an answer that arrives after the reconnect
        acts on whoever holds the job by then.
        """
        if not self._connection.nc.is_connected:
            raise BrokerUnavailable(self._connection.url, "not connected")
        await self._connection.request(self._reply, payload, timeout_s)
