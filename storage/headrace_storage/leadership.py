"""Leadership: among processes that could all do something, the one that does it now.

A lease is one key of the LEASES bucket, whose entries the broker removes after a time without a renewal. It is taken
and renewed by compare-and-set on its revision, so two candidates never both get it. A holder trusts only its own
monotonic clock: 0.7 of that time after it *sent* the last renewal that was confirmed, it counts itself as deposed and
acts no more, while the broker keeps the others out for the rest. A holder that was frozen finds out when it wakes.

What may be in flight at that moment is bounded by a request's timeout, and the broker's clock may jump: whatever a
leader does must be safe to do twice, or be refused by its `token`, which grows with every term.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from uuid import uuid4

import msgspec
import nats.js.errors

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.names import Bucket, check_token
from headrace_storage.connection import Connection
from headrace_storage.publishing import ServerError

# Shares of the lease's time. Renewing every fifth survives two lost renewals; what is left after 0.7 is for a request
# of ours that is still on its way.
RENEW_EVERY = 0.2
TRUST_FOR = 0.7
# How long a process that stops waits for its lease to be given back; the others get it after its time anyway.
RELEASE_DEADLINE_S = 2.0


class LeaseName(StrEnum):
    """What there is to lead."""

    REAPER = "reaper"
    SCALER = "scaler"


class Deposed(Exception):
    """Somebody else may lead by now: whatever was about to be done must not be done."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the lease {name!r} is not held any more")


class Claim(msgspec.Struct, frozen=True):
    """Value of a lease: who holds it. `nonce` tells two lives of one holder apart."""

    holder: str
    nonce: str


async def end_all_terms(connection: Connection) -> None:
    """Free every lease: only for whoever knows that no holder is left, as when all ran on one machine and have ended.

    Raises:
        BrokerUnavailable: no answer.
    """
    with connection.errors():
        await connection.js.purge_stream(f"KV_{Bucket.LEASES}")


async def leader_of(connection: Connection, name: str) -> str | None:
    """Who holds a lease, for people; None if nobody does. Asks, and takes part in nothing.

    Raises:
        BrokerUnavailable: no answer.
    """
    with connection.errors():
        try:
            entry = await connection.js.get_last_msg(
                f"KV_{Bucket.LEASES}", f"$KV.{Bucket.LEASES}.{check_token('lease', name)}"
            )
        except nats.js.errors.NotFoundError:  # nobody, or nothing on this broker yet
            return None
    try:
        return msgspec.json.decode(entry.data or b"", type=Claim).holder
    except msgspec.DecodeError:
        return None


class Leadership:
    """One candidate for one lease; not for use by several tasks at once.

    Args:
        connection: the broker.
        name: of the lease, one token.
        holder: who we are, for people.
        clock: for our own trust in the lease.
    """

    def __init__(self, connection: Connection, name: str, holder: str, clock: Clock) -> None:
        self._connection = connection
        self._name = check_token("lease", name)
        self._key = f"$KV.{Bucket.LEASES}.{name}"
        self._claim = Claim(holder, uuid4().hex)
        self._clock = clock
        self._ttl_s = 0.0
        self._revision: int | None = None
        """Of our entry; None while we do not lead."""
        self._confirmed_at = 0.0
        self.token = 0
        """Revision with which the present term began: larger than that of any term before."""
        self.holder: str | None = None
        """Who held the lease when we last looked; None if nobody did."""

    @property
    def held(self) -> bool:
        """Whether we lead beyond doubt, now."""
        return self._revision is not None and self._left_s() > 0

    def check(self) -> None:
        """Call right before every act of a leader.

        Raises:
            Deposed: we do not lead beyond doubt.
        """
        if not self.held:
            raise Deposed(self._name)

    async def acquire(self) -> bool:
        """Try once to take the lease: if it is free, or was ours.

        Raises:
            BrokerUnavailable: no answer; the lease may be ours, and runs out if we do not come back.
        """
        self._revision = None
        if not self._ttl_s:
            self._ttl_s = await self._time_to_live()
        expected, claim = await self._read()
        self.holder = None if claim is None else claim.holder
        if claim is not None and claim != self._claim:
            return False
        asked_at = self._clock.monotonic()
        revision = await self._write(expected, self._ttl_s * RENEW_EVERY)
        if revision is None:
            return False
        self._revision, self._confirmed_at, self.token = revision, asked_at, revision
        self.holder = self._claim.holder
        return self.held

    async def during(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work` while the lease is held, renewing it beside; then give it back.

        Returns:
            Whether the work ended by itself. False: it was canceled, because we were deposed.
        """
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            finished = working.done()
        finally:
            working.cancel()
            renewing.cancel()
            await asyncio.wait({working, renewing})
            await self.release()
        if not renewing.cancelled():
            renewing.result()
        if finished:
            try:
                working.result()
            except* Deposed:
                finished = False
        return finished

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Stand for the lease for ever; `work` runs whenever we hold it, and is canceled when we do not."""
        while True:
            with contextlib.suppress(BrokerUnavailable):
                if await self.acquire():
                    await self.during(work)
            await asyncio.sleep(RENEW_EVERY * self._ttl_s or 1.0)

    async def release(self) -> None:
        """Give the lease back, if it is ours: the next candidate need not wait for its end."""
        revision, self._revision = self._revision, None
        if revision is None:
            return
        with contextlib.suppress(BrokerUnavailable, nats.js.errors.APIError):
            # A marker, as the buckets of other NATS clients have it; refused if the lease is another's by now.
            await self._put(b"", revision, RELEASE_DEADLINE_S, {"KV-Operation": "DEL"})

    def _left_s(self) -> float:
        """Seconds for which we may still trust the lease."""
        return self._confirmed_at + TRUST_FOR * self._ttl_s - self._clock.monotonic()

    async def _renew(self) -> None:
        """Keep the lease; returns when it is lost."""
        interval_s = RENEW_EVERY * self._ttl_s
        while self.held:
            await asyncio.sleep(min(interval_s, self._left_s()))
            if not self.held:
                break
            assert self._revision is not None
            asked_at = self._clock.monotonic()
            try:
                revision = await self._write(self._revision, max(0.001, min(interval_s, self._left_s())))
                if revision is None:
                    revision = await self._adopt()
                    asked_at = self._confirmed_at
            except BrokerUnavailable:
                continue
            self._revision = revision
            self._confirmed_at = asked_at
        # Not `_revision = None`: the entry may still be ours, and then it is given back.

    async def _adopt(self) -> int | None:
        """The revision of a renewal whose answer was lost; None if another candidate has the lease.

        When it was sent is not known, so it confirms nothing: the next renewal does.
        """
        revision, claim = await self._read()
        return revision if claim == self._claim else None

    async def _time_to_live(self) -> float:
        with self._errors():
            info = await self._connection.js.stream_info(f"KV_{Bucket.LEASES}")
        return float(info.config.max_age or 0.0)

    async def _read(self) -> tuple[int, Claim | None]:
        """Revision of the entry (0: there is none) and the claim in it; None if the lease is free.

        Asked of the stream's leader: a replica may not have seen the newest entry.
        """
        with self._errors():
            try:
                entry = await self._connection.js.get_last_msg(f"KV_{Bucket.LEASES}", self._key)
            except nats.js.errors.NotFoundError:
                return 0, None
        assert entry.seq is not None
        try:
            return entry.seq, msgspec.json.decode(entry.data or b"", type=Claim)
        except msgspec.DecodeError:  # given back; or written by hand, and then nobody's
            return entry.seq, None

    async def _write(self, expected: int, timeout_s: float) -> int | None:
        """Our claim in the place of revision `expected`: its own revision, or None if that is not the last one.

        Raises:
            BrokerUnavailable: no answer; it may be there all the same.
        """
        with self._errors():
            try:
                return await self._put(msgspec.json.encode(self._claim), expected, timeout_s)
            except nats.js.errors.APIError as error:
                if error.err_code == ServerError.WRONG_LAST_SEQUENCE:
                    return None
                raise

    async def _put(self, data: bytes, expected: int, timeout_s: float, headers: dict[str, str] | None = None) -> int:
        conditions = {**(headers or {}), "Nats-Expected-Last-Subject-Sequence": str(expected)}
        with self._connection.errors():
            ack = await self._connection.js.publish(self._key, data, headers=conditions, timeout=timeout_s)
        return int(ack.seq)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """A refusal (a full disk, no bucket yet, a cluster without a leader) is as good as no answer."""
        try:
            with self._connection.errors():
                yield
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(self._connection.url, str(error.description)) from error
