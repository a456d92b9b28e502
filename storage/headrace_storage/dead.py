"""The DEAD stream: original messages of jobs that could not be run, with the reason; kept, read, run again, dropped."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

import msgspec
import nats.js.errors

from headrace_contracts.errors import MessageTooLarge, NoDeadLetter
from headrace_contracts.names import DeadHeader, Stream, check_token, dead_subject
from headrace_storage.connection import Connection
from headrace_storage.publishing import publish
from headrace_storage.reading import BATCH_MESSAGES, Stored, next_batch, subject_counts
from headrace_storage.removing import remove_message

# Of an engine's last words, what is kept: headers have to stay far below the server's limit.
LAST_LINES_CHARS = 2048
_OURS = {header.lower() for header in DeadHeader}


class DeadLetter(msgspec.Struct, frozen=True):
    """One message of the DEAD stream."""

    sequence: int
    """Its place in DEAD; names it where several have one job id."""
    tenant: str
    """As `model`: `nameless` where the original cannot be part of a subject."""
    model: str
    job_id: str
    original_subject: str
    reason: str
    last_lines: tuple[str, ...]
    """What the engine wrote last; empty if it was not kept."""
    headers: dict[str, str]
    """Those the message was published with, without the broker's own."""
    size_bytes: int
    """Of the body as it was published."""
    data: bytes | None
    """The body; None if it was not asked for, or did not fit beside the reason when it was kept."""
    body_kept: bool
    """Whether DEAD has the body."""
    buried_at: datetime


async def bury(
    connection: Connection,
    tenant: str,
    model: str,
    job_id: str,
    *,
    original_subject: str,
    headers: Mapping[str, str],
    data: bytes,
    reason: str,
    sequence: int,
    last_lines: Sequence[str] = (),
) -> None:
    """Keep a message, its headers and why it was given up; burying it again keeps one.

    Args:
        connection: where to.
        tenant: with `model` and `job_id`, the place it is kept at.
        model: as above.
        job_id: as above.
        original_subject: where it was published.
        headers: its headers.
        data: its body, unchanged; left out if it does not fit a message beside the reason, which it may by a few bytes.
        reason: one line for the operator.
        sequence: its sequence in JOBS: names the message, so that a repetition is recognised.
        last_lines: what the engine that died of it wrote last; the newest LAST_LINES_CHARS characters are kept.

    Raises:
        QueueFull: the stream is full; nothing may be removed from JOBS then.
        BrokerUnavailable: no answer.
    """
    one_line = " ".join(reason.split())[:500]
    ours = {
        DeadHeader.REASON.value: one_line,
        DeadHeader.SUBJECT.value: original_subject,
        "Nats-Msg-Id": f"dead-{sequence}",
    }
    if last_lines:
        ours[DeadHeader.LAST_LINES.value] = _joined(last_lines)
    subject = dead_subject(tenant, model, job_id)
    try:
        await publish(connection, subject, data, {**_kept(headers), **ours})
    except MessageTooLarge:
        # The largest job leaves no room for a reason. Headers are as much a client's as the body is.
        left_out = {DeadHeader.LEFT_OUT_BYTES.value: str(len(data))}
        await publish(connection, subject, b"", {**ours, **left_out})


async def count_letters(connection: Connection, tenant: str = "*", model: str = "*") -> int:
    """How many dead letters there are.

    Raises:
        BrokerUnavailable: no answer.
    """
    return sum((await subject_counts(connection, Stream.DEAD, _pattern(tenant, model, "*"))).values())


async def newest_letters(connection: Connection, limit: int, tenant: str = "*", model: str = "*") -> list[DeadLetter]:
    """At most `limit` dead letters without their bodies, newest first; of one tenant or model, if named.

    Raises:
        BrokerUnavailable: no answer.
    """
    pattern = _pattern(tenant, model, "*")
    first, last = await _bounds(connection)
    wanted = min(limit, await count_letters(connection, tenant, model))
    found: list[DeadLetter] = []
    # The server reads forwards only, so the stream is read in windows from its end, each twice the one before.
    width, high = max(64, wanted), last
    while len(found) < wanted and high >= first:
        low = max(first, high - width + 1)
        window = [_without_body(letter) async for letter in _between(connection, pattern, low, high)]
        found += reversed(window)
        high, width = low - 1, 2 * width
    return found[:limit]


async def oldest_letters(connection: Connection, tenant: str = "*", model: str = "*") -> AsyncIterator[DeadLetter]:
    """All dead letters that are there now, oldest first, a page at a time; they may be removed on the way.

    Raises:
        BrokerUnavailable: no answer.
    """
    first, last = await _bounds(connection)
    async for letter in _between(connection, _pattern(tenant, model, "*"), first, last):
        yield letter


async def letters_of(connection: Connection, job_id: str, tenant: str = "*", model: str = "*") -> list[DeadLetter]:
    """All dead letters of one job id, oldest first: of any tenant and model, unless they are named.

    Raises:
        NoDeadLetter: there is none.
        BrokerUnavailable: no answer.
    """
    pattern = _pattern(tenant, model, check_token("job id", job_id))
    first, last = await _bounds(connection)
    letters = [letter async for letter in _between(connection, pattern, first, last)]
    if not letters:
        raise NoDeadLetter(job_id)
    return letters


async def remove_letter(connection: Connection, letter: DeadLetter, *, erase: bool = True) -> None:
    """Take a letter out of DEAD; no error if it is gone.

    Args:
        connection: the broker.
        letter: which.
        erase: overwrite it on the broker's disk too, which takes 30 times as long.
    """
    await remove_message(connection, Stream.DEAD, letter.sequence, erase=erase)


async def remove_letters(connection: Connection, tenant: str = "*", model: str = "*") -> int:
    """Take all letters out of DEAD that are there now; how many there were.

    Raises:
        BrokerUnavailable: no answer; some may be gone.
    """
    _, last = await _bounds(connection)
    payload = msgspec.json.encode({"filter": _pattern(tenant, model, "*"), "seq": last + 1})
    answer = await connection.api(f"STREAM.PURGE.{Stream.DEAD}", payload)
    return int(answer.get("purged", 0))


def _joined(lines: Sequence[str]) -> str:
    """The newest lines as a header's value."""
    return "".join(c if c.isprintable() else " " for c in " | ".join(lines))[-LAST_LINES_CHARS:].strip()


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """A message's headers without the broker's, and without those that would look like a worker's word."""
    return {
        key: value for key, value in headers.items() if not key.lower().startswith("nats-") and key.lower() not in _OURS
    }


def _pattern(tenant: str, model: str, job_id: str) -> str:
    for kind, value in (("tenant", tenant), ("model", model)):
        if value != "*":
            check_token(kind, value)
    return f"dead.{tenant}.{model}.{job_id}"


async def _bounds(connection: Connection) -> tuple[int, int]:
    """First and last sequence of DEAD; the last is smaller than the first if it is empty."""
    try:
        answer = await connection.api(f"STREAM.INFO.{Stream.DEAD}")
    except nats.js.errors.NotFoundError:
        return 1, 0
    state = answer["state"]
    return int(state["first_seq"]), int(state["last_seq"])


async def _between(connection: Connection, pattern: str, low: int, high: int) -> AsyncIterator[DeadLetter]:
    """Letters under `pattern` with sequences from `low` to `high`, oldest first."""
    while 0 < low <= high:
        batch = await next_batch(connection, Stream.DEAD, pattern, low, min(BATCH_MESSAGES, high - low + 1))
        for letter in map(_letter, batch.messages):
            if letter.sequence > high:
                return
            yield letter
        low = batch.next_sequence


def _without_body(letter: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(letter, data=None)


def _letter(message: Stored) -> DeadLetter:
    headers = message.headers
    _, tenant, model, job_id = message.subject.split(".")
    last_lines = headers.get(DeadHeader.LAST_LINES, "")
    left_out = headers.get(DeadHeader.LEFT_OUT_BYTES)
    return DeadLetter(
        sequence=message.sequence,
        tenant=tenant,
        model=model,
        job_id=job_id,
        original_subject=headers.get(DeadHeader.SUBJECT, ""),
        reason=headers.get(DeadHeader.REASON, ""),
        last_lines=tuple(last_lines.split(" | ")) if last_lines else (),
        headers=_kept(headers),
        size_bytes=len(message.data) if left_out is None else int(left_out),
        data=message.data if left_out is None else None,
        body_kept=left_out is None,
        buried_at=message.stored_at,
    )
