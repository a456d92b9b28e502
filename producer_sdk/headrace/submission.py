"""What a submitter asks for beside the input, and how many jobs are sent at once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import HeadraceError, InvalidInput, UndecodableMessage
from headrace_contracts.job import JobBody, Scalar
from headrace_contracts.names import Lane
from headrace_contracts.trace_context import TraceContext, trace_context

# Publishes awaiting their receipt. Four times the rate of one after another; more gains little and hides a full queue.
IN_FLIGHT = 64

T = TypeVar("T")


class Order(msgspec.Struct, frozen=True):
    """How a job is to be treated; not checked before `body`."""

    lane: str
    timeout_s: float | None
    ttl_s: float | None
    metadata: Mapping[str, Scalar]
    batch: str | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        if self.lane not in list(Lane):
            raise InvalidInput("lane", f"{self.lane!r} is none of {', '.join(Lane)}")
        if self.traceparent is not None and self.trace is None:
            raise InvalidInput("traceparent", f"{self.traceparent[:80]!r} is no traceparent of W3C trace context")

    @property
    def trace(self) -> TraceContext | None:
        """What the submitter says that the job's spans are below."""
        return trace_context(self.traceparent)

    def body(self, raw: msgspec.Raw) -> JobBody:
        """The message for an input that is encoded already, checked as a worker will check it.

        Raises:
            InvalidInput: one of the fields is wrong.
        """
        fields = {"timeout_s": self.timeout_s, "ttl_s": self.ttl_s, "metadata": self.metadata, "batch": self.batch}
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            return codec.decode(codec.encode({"input": raw, **given}, Encoding.MSGPACK), JobBody, Encoding.MSGPACK)
        except UndecodableMessage as error:
            raise InvalidInput("job", error.reason) from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidInput("metadata", f"cannot be sent: {error}") from error


@contextlib.contextmanager
def at_position(position: int) -> Iterator[None]:
    """Let errors name the place of an input among many: `inputs[3].steps`."""
    try:
        yield
    except InvalidInput as error:
        field = error.field.removeprefix("input").removeprefix(".")
        raise InvalidInput(f"inputs[{position}]" + (f".{field}" if field else ""), error.problem) from error


async def in_flight(calls: Sequence[Callable[[], Awaitable[T]]]) -> tuple[list[T], HeadraceError | None]:
    """Run `calls`, IN_FLIGHT at a time, until one fails; those under way then are finished.

    Returns:
        What the successful ones returned, in order, and the first failure.
    """
    waiting = iter(enumerate(calls))
    done: dict[int, T] = {}
    failures: list[HeadraceError] = []

    async def work() -> None:
        for position, call in waiting:
            try:
                done[position] = await call()
            except HeadraceError as error:
                failures.append(error)
            if failures:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(min(IN_FLIGHT, len(calls))):
            group.create_task(work())
    return [done[position] for position in sorted(done)], failures[0] if failures else None
