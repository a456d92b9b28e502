"""What every rule of the reaper is given, and what it tells."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from headrace_contracts.clock import Clock
from headrace_contracts.errors import BlobForbidden, BlobUnavailable, BrokerUnavailable, HeadraceError, QueueFull
from headrace_storage.connection import Connection
from headrace_storage.leadership import Deposed

T = TypeVar("T")

# Acts under way together: most of their time is a disk sync of the broker, which does many at once.
ACTS_AT_ONCE = 16

_FOR_ALL = (BrokerUnavailable, QueueFull, BlobUnavailable, BlobForbidden, Deposed)


class Rule(StrEnum):
    """One reason to act each; the word a report names it by."""

    UNROUTABLE = "unroutable"
    CONSUMERS = "consumers"
    EXPIRED = "expired"
    ENDED = "ended"
    ARTIFACTS = "artifacts"
    INPUTS = "inputs"
    ATTEMPTS = "attempts"


class Act(msgspec.Struct, frozen=True):
    """Something the reaper did."""

    rule: Rule
    what: str
    """Subject, key or name of what it was done to."""
    done: str
    """What was done, in a few words."""


class Trouble(msgspec.Struct, frozen=True):
    """A rule that could not be carried through; it is tried again at its next turn."""

    rule: Rule
    error: str


Report = Callable[[Act | Trouble], None]


class Duty:
    """The means of a rule.

    Args:
        connection: the broker.
        clock: for the age of things.
        check: raises Deposed if we may not act now; every act calls it right before.
        tell: takes what was done.
    """

    def __init__(self, connection: Connection, clock: Clock, check: Callable[[], None], tell: Report) -> None:
        self.connection = connection
        self.clock = clock
        self.check = check
        self.tell = tell

    async def each(self, rule: Rule, items: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
        """`act` on all items, some at a time. What is wrong with one item is told, and does not hold up the others.

        Raises:
            BrokerUnavailable, QueueFull, BlobUnavailable, BlobForbidden: the others would fail as well.
            Deposed: we do not lead any more.
        """
        for start in range(0, len(items), ACTS_AT_ONCE):
            self.check()
            together = items[start : start + ACTS_AT_ONCE]
            for outcome in await asyncio.gather(*(act(item) for item in together), return_exceptions=True):
                if isinstance(outcome, _FOR_ALL) or not isinstance(outcome, Exception | None):
                    raise outcome
                if outcome is not None:
                    self.tell(Trouble(rule, reason_of(outcome)))


def reason_of(error: Exception) -> str:
    """What to say of an error: the words of ours, and the type only of others, which may quote a prompt."""
    return str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__} in the reaper"
