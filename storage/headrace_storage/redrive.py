"""Run a dead letter again: its message is published under a new id, then the letter is removed.

A new id, because a result is final: under the old one the job has ended. The id is made of the letter's place in DEAD,
so that whoever repeats a redrive whose receipt was lost sends the same job, and not a second one.
"""

import msgspec

from headrace_contracts import codec
from headrace_contracts.errors import HeadraceError, UndecodableMessage
from headrace_contracts.job import decode_job
from headrace_contracts.names import Header, Stream
from headrace_storage.connection import Connection
from headrace_storage.dead import DeadLetter, remove_letter
from headrace_storage.publishing import publish
from headrace_storage.reading import messages_from
from headrace_storage.results import find_result

MAX_ID_CHARS = 64

# In lower case. The first two are what the forwarder of an ingress stream says of a job: its id, which would win over
# the new one, and when it was accepted, from which its waiting would count.
_OF_THE_OLD_JOB = ("headrace-job-id", "headrace-submitted-at", Header.REDRIVE_OF.lower())


class NotRedrivable(HeadraceError):
    """A dead letter has no message that could be published again."""

    def __init__(self, letter: DeadLetter, reason: str) -> None:
        self.job_id = letter.job_id
        self.reason = reason
        super().__init__(f"dead letter {letter.job_id} cannot be redriven: {reason}")


class Redriven(msgspec.Struct, frozen=True):
    """A letter whose message is a job again."""

    old_id: str
    new_id: str
    tenant: str
    model: str
    already_there: bool
    """An earlier redrive had published it; nothing was published now."""


def new_id_of(letter: DeadLetter) -> str:
    """The id a letter's job runs under next, as in `my-job-r17`; the same at every call. At most 64 characters."""
    base = letter.job_id
    if codec.header(letter.headers, Header.REDRIVE_OF) is not None:
        # It was redriven before: `my-job-r17` becomes `my-job-r40`.
        head, mark, number = base.rpartition("-r")
        base = head if mark and head and number.isdecimal() else base
    suffix = f"-r{letter.sequence}"
    return base[: MAX_ID_CHARS - len(suffix)] + suffix


def why_it_may_fail_again(letter: DeadLetter) -> str | None:
    """Why the message as it is can only die again; None if it may run. Pure."""
    try:
        decode_job(
            letter.original_subject, {**letter.headers, Header.JOB_ID: "x"}, letter.data or b"", 1, letter.buried_at
        )
    except UndecodableMessage as error:
        return error.reason
    return None


async def redrive(connection: Connection, letter: DeadLetter) -> Redriven:
    """Publish a letter's message as a job under a new id, and then remove the letter. Safe to repeat.

    Raises:
        NotRedrivable: its body was not kept, or it is no message of the JOBS stream.
        QueueFull: the queue takes no more; the letter stays.
        MessageTooLarge: it does not fit beside the new headers; the letter stays.
        BrokerUnavailable: no receipt; the letter stays, and a repetition does not run the job twice.
    """
    if letter.data is None:
        raise NotRedrivable(letter, f"its body of {letter.size_bytes} bytes was not kept: it did not fit")
    if letter.original_subject.count(".") != 3 or not letter.original_subject.startswith("jobs."):
        raise NotRedrivable(letter, f"it was published to {letter.original_subject[:100]!r}, which is no job's subject")
    new_id = new_id_of(letter)
    already_there = await _exists(connection, letter, new_id)
    if not already_there:
        headers = {key: value for key, value in letter.headers.items() if key.lower() not in _OF_THE_OLD_JOB}
        headers |= {Header.REDRIVE_OF.value: letter.job_id, Header.JOB_ID.value: new_id}
        ack = await publish(connection, letter.original_subject, letter.data, headers)
        already_there = ack.duplicate
    await remove_letter(connection, letter, erase=False)
    return Redriven(letter.job_id, new_id, letter.tenant, letter.model, already_there)


async def _exists(connection: Connection, letter: DeadLetter, new_id: str) -> bool:
    """Whether an earlier redrive's job waits, runs or has ended. The broker's own window for this is 2 minutes."""
    try:
        if await find_result(connection, letter.tenant, new_id) is not None:
            return True
    except UndecodableMessage:
        return True
    async for message in messages_from(connection, Stream.JOBS, letter.original_subject):
        if codec.header(message.headers, Header.JOB_ID) == new_id:
            return True
    return False
