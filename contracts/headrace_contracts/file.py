"""A file inside a job: a reference to the blob store, or the bytes themselves.

{"$blob": "<key>", "sha256": "...", "size_bytes": 48044, "content_type": "audio/wav"}
{"$inline": "<base64>", "content_type": "audio/wav"}        (MessagePack: raw bytes)
"""

import msgspec

# A larger file would crowd out jobs in a stream meant for small messages; clients upload it instead.
MAX_INLINE_BYTES = 256 * 1024


class File(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Exactly one of `blob` (with `sha256` and `size_bytes`) and `inline`."""

    blob: str | None = msgspec.field(default=None, name="$blob")
    inline: bytes | None = msgspec.field(default=None, name="$inline")
    sha256: str | None = None
    size_bytes: int | None = None
    content_type: str | None = None

    def __post_init__(self) -> None:
        if (self.blob is None) == (self.inline is None):
            raise ValueError('a file has exactly one of "$blob" and "$inline"')
        if self.blob is not None and (self.sha256 is None or self.size_bytes is None):
            raise ValueError('a "$blob" reference needs "sha256" and "size_bytes"')
        if self.inline is not None and len(self.inline) > MAX_INLINE_BYTES:
            raise ValueError(
                f'"$inline" is {len(self.inline)} bytes and the limit is {MAX_INLINE_BYTES}: '
                'upload the file and send "$blob"'
            )


class Artifact(msgspec.Struct, frozen=True):
    """A stored file that a result refers to; `name` is unique within the result."""

    name: str
    blob: str = msgspec.field(name="$blob")
    sha256: str
    size_bytes: int
    content_type: str
