"""Bytes of the NATS protocol that the client library takes at their word. Pure."""

_VERSION = b"NATS/1.0"
_LINE = b"\r\n"


def without_status(headers: bytes) -> bytes:
    """The header block of a stored message without a status, inline (`NATS/1.0 404`) or as a header (`Status: 404`).

    The server speaks so of a request that came to nothing. A client that publishes a message with such a line has it
    stored and delivered, and whoever pulls would take the job for the end of its request, again and again.
    """
    first, *lines = headers.split(_LINE)
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() != b"status"]
    return _LINE.join([_VERSION if first.startswith(_VERSION) else first, *kept])
