"""What happens to a job before its end: messages on `events.<tenant>.<model>.<job_id>.<event>`.

Events are for people and progress bars. They may be lost with the broker's memory; the result never is.
"""

from datetime import datetime

import msgspec

from headrace_contracts.errors import ErrorCode


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Common to all events; the tag is the last token of the subject."""

    job_id: str
    at: datetime
    attempt: int


class Started(Event, frozen=True, tag="started"):
    """An engine began to run the job."""

    worker: str
    delivery: int = 0
    """Which delivery of the job by the broker it runs, from 1: attempts that cost nothing have one, too."""


class Progress(Event, frozen=True, tag="progress"):
    """`step` of `total` are done; the unit is the task's (denoising steps, seconds of audio).

    Steps that follow each other within 40 ms are told together.
    """

    step: float
    total: float


class Chunk(Event, frozen=True, tag="chunk"):
    """The next piece of a streamed output; `seq` counts from 0 without gaps within an attempt."""

    seq: int
    text: str


class Log(Event, frozen=True, tag="log"):
    """A line for the submitter."""

    message: str


class Retrying(Event, frozen=True, tag="retrying"):
    """This attempt failed; the job went back to the queue for `delay_s`."""

    code: ErrorCode
    message: str
    delay_s: float


AnyEvent = Started | Progress | Chunk | Log | Retrying


def event_name(event: AnyEvent) -> str:
    """Last token of the event's subject."""
    return str(type(event).__struct_config__.tag)
