"""Which strings can be a blob's key, for every store alike.

A key comes out of job messages, so it is not to be trusted: JetStream turns it into a subject, and a subject longer
than the server's control line ends the connection for good; S3 has keys that look like paths out of the bucket.
"""

import re
from typing import Final

from headrace_contracts.errors import BlobError, BlobNotFound

# In base64 this is a subject of 700 characters, far below the 4,096 of a control line; S3 itself stops at 1,024.
MAX_KEY_CHARS: Final = 512

_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def is_key(key: str) -> bool:
    """Whether `key` can be one: names of `A-Za-z0-9_.-` joined by `/`, none starting with `.` or `-`."""
    return len(key) <= MAX_KEY_CHARS and _KEY.fullmatch(key) is not None


def check_new(key: str) -> None:
    """Raise BlobError if nothing can be stored under `key`."""
    if not is_key(key):
        raise BlobError(
            key[:MAX_KEY_CHARS],
            f"is no key: use up to {MAX_KEY_CHARS} characters, names of A-Z a-z 0-9 _ . - joined by /",
        )


def check_existing(key: str) -> None:
    """Raise BlobNotFound if nothing can be stored under `key`, since then nothing is."""
    if not is_key(key):
        raise BlobNotFound(key[:MAX_KEY_CHARS])
