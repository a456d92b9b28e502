"""How full a stream is, as an error says it."""

from enum import StrEnum

import msgspec


class FullLimit(StrEnum):
    """The limit of a stream that a message met; the values are the server's names for them."""

    MESSAGES = "max_msgs"
    BYTES = "max_bytes"
    MESSAGES_PER_SUBJECT = "max_msgs_per_subject"
    UNKNOWN = "unknown"


class Fill(msgspec.Struct, frozen=True):
    """How full a stream is at the limit that was met: messages or bytes, as the limit says."""

    stream: str
    limit: FullLimit
    used: int
    allowed: int
