"""Header blocks of stored messages: what looks like a status of the server is none."""

import pytest

from headrace_storage.wire import without_status


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        (b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0 404\r\n\r\n", b"NATS/1.0\r\n\r\n"),
        (b"NATS/1.0 409 Consumer Deleted\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0\r\nStatus: 404\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0\r\n sTATUS : 404\r\nStatus-Of: x\r\n\r\n", b"NATS/1.0\r\nStatus-Of: x\r\n\r\n"),
        (b"NATS/1.0", b"NATS/1.0"),
        (b"", b""),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_a_status_is_taken_out(given: bytes, clean: bytes) -> None:
    assert without_status(given) == clean
