"""Draw jobs of one model from its lanes.

Two ways to ask, so that a busy worker never takes a job that an idle one could run at once:
`take` gets what is there now and nobody waits for; `wait` waits for the next job of any lane.

The client's own `fetch` is not used: it holds messages back until its timeout and does not recover from a restart of
the server. Here every wait has an inbox of its own, ends at once on a reconnect, and ends when the server's idle
heartbeats stop.
"""

import asyncio
import contextlib

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Lane, Stream, consumer_name
from headrace_storage.connection import Connection
from headrace_storage.delivery import Delivery

# Longer waits cost the server less; the wait is renewed, so nothing depends on it.
WAIT_EXPIRES_S = 30.0
# Two and a bit of these without a sign of life end a wait: the longest time a lost request can go unnoticed.
IDLE_HEARTBEAT_S = 2.0
# A request that asks for what is there now is answered at once; a longer silence is a broken connection.
TAKE_TIMEOUT_S = 5.0

_ANSWER_TO = "$JS.ACK."
_HEARTBEAT = "100"
# How the server says that there is no such consumer: at once, or while a request waited for jobs.
_NO_RESPONDERS = "503"
_CONFLICT = "409"
_DELETED = "deleted"


class _PullRequest(msgspec.Struct, omit_defaults=True):
    """Body of a request to $JS.API.CONSUMER.MSG.NEXT; durations are nanoseconds."""

    batch: int
    expires: int = 0
    idle_heartbeat: int = 0
    no_wait: bool = False


class JobPuller:
    """Pulls from the three consumers of one model. One caller at a time."""

    def __init__(self, connection: Connection, model: str) -> None:
        self._connection = connection
        self._model = model
        self._kept: list[Delivery] = []
        self._ask = 0
        """Number of the present call: answers to earlier ones say nothing about it."""
        self._open_requests = 0
        self._interrupted = False
        self._gone = False
        self._closing = False
        self._changed = asyncio.Event()
        self._takes: Subscription | None = None
        self._takes_inbox = ""
        self._retiring: set[asyncio.Task[None]] = set()
        # The server forgets our requests when the connection is lost.
        connection.on_reconnect(self._interrupt)

    async def take(self, lane: Lane, count: int) -> list[Delivery]:
        """Up to `count` jobs that wait in `lane` now; none is waited for.

        Raises:
            BrokerUnavailable: the connection is down.
        """
        if self._kept or self._closing:
            return self._hand_over()
        if self._takes is None:
            self._takes_inbox = self._connection.nc.new_inbox()
            self._takes = await self._subscribe(self._takes_inbox)
        await self._request({lane: _PullRequest(batch=count, no_wait=True)}, self._takes_inbox)
        await self._collect(count, TAKE_TIMEOUT_S)
        return self._hand_over()

    async def wait(self) -> list[Delivery]:
        """The next job of any lane; empty now and then (after 30 s, or when the connection was lost), to ask again.

        More than one when jobs arrive in several lanes at the same moment.

        Raises:
            BrokerUnavailable: the connection is down, or a lane has no consumer.
        """
        if self._kept or self._closing:
            return self._hand_over()
        request = _PullRequest(1, expires=_nanoseconds(WAIT_EXPIRES_S), idle_heartbeat=_nanoseconds(IDLE_HEARTBEAT_S))
        inbox = self._connection.nc.new_inbox()
        subscription = await self._subscribe(inbox)
        try:
            await self._request(dict.fromkeys(Lane, request), inbox)
            await self._collect(1, 2.2 * IDLE_HEARTBEAT_S)
        finally:
            # Beside the job that came, not before it. What arrives until it is done is kept for the next call.
            retiring = asyncio.create_task(_retire(self._connection, subscription))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        if self._gone and not self._kept:
            # Deleted, or its leader is being chosen. Whoever asks again at once gets the same answer at once.
            raise BrokerUnavailable(self._connection.url, f"a lane of {self._model} has no consumer")
        return self._hand_over()

    def stop_waiting(self) -> None:
        """End a call that is under way, with what it has, and every later one at once: the worker is stopping."""
        self._closing = True
        self._changed.set()

    async def close(self) -> list[Delivery]:
        """Stop asking; the jobs that arrived meanwhile: somebody has to run them or give them back."""
        self.stop_waiting()
        if self._takes is not None:
            await _retire(self._connection, self._takes)
            self._takes = None
        while self._retiring:
            await asyncio.wait(self._retiring)
        return self._hand_over()

    async def _subscribe(self, inbox: str) -> Subscription:
        with self._connection.errors():
            return await self._connection.nc.subscribe(f"{inbox}.*", cb=self._on_message)

    async def _request(self, requests: dict[Lane, _PullRequest], inbox: str) -> None:
        self._ask += 1
        self._open_requests = len(requests)
        self._interrupted = self._gone = False
        with self._connection.errors():
            for lane, request in requests.items():
                subject = f"$JS.API.CONSUMER.MSG.NEXT.{Stream.JOBS}.{consumer_name(self._model, lane)}"
                await self._connection.nc.publish(subject, msgspec.json.encode(request), reply=f"{inbox}.{self._ask}")

    async def _collect(self, enough: int, silence_s: float) -> None:
        """Return when there are enough jobs, every request has ended, or the connection or a consumer seems lost."""
        while len(self._kept) < enough and self._open_requests > 0:
            if self._interrupted or self._gone or self._closing:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(silence_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _on_message(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if message.reply.startswith(_ANSWER_TO):  # only a job has one; any client can set a header named `Status`
            self._kept.append(Delivery(self._connection, message))
        elif status != _HEARTBEAT and message.subject.endswith(f".{self._ask}"):
            self._open_requests -= 1
            deleted = status == _CONFLICT and _DELETED in headers.get("Description", "").lower()
            self._gone = self._gone or deleted or status == _NO_RESPONDERS
        self._changed.set()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._changed.set()

    def _hand_over(self) -> list[Delivery]:
        kept, self._kept = self._kept, []
        return kept


async def _retire(connection: Connection, subscription: Subscription) -> None:
    """Unsubscribe, which ends the requests on the server, without losing a message that is on its way.

    `unsubscribe()` drops what arrives after it; `drain()` sends its ping before the UNSUB that waits in the buffer. So
    UNSUB goes out first, and the drain's round trip then guarantees that everything sent to us has arrived.
    """
    with contextlib.suppress(nats.errors.Error, TimeoutError):  # a lost connection has ended the requests already
        await connection.nc._send_unsubscribe(subscription._id)
        await asyncio.sleep(0)
        await subscription.drain()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
