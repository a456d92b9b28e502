"""Bytes to values and back, in JSON or MessagePack.

The encoding of a message is its Content-Type header; without one it is sniffed. A result answers in the encoding of
its job. Every message body is a map, and no first byte starts a map in both encodings, so sniffing cannot mistake one.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec

from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.names import Header

T = TypeVar("T")


class Encoding(StrEnum):
    """The two encodings; the value is the media type we write."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"


# All three names are in use for MessagePack; none is registered under the plain ones.
_MEDIA_TYPES = {
    "application/json": Encoding.JSON,
    "application/msgpack": Encoding.MSGPACK,
    "application/x-msgpack": Encoding.MSGPACK,
    "application/vnd.msgpack": Encoding.MSGPACK,
}


def header(headers: Mapping[str, str] | None, name: Header) -> str | None:
    """Value of a header, whatever the case it was written in (NATS keeps case, clients differ)."""
    if not headers:
        return None
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), None)


def encoding_of(headers: Mapping[str, str] | None, data: bytes) -> Encoding:
    """How `data` is encoded.

    Raises:
        UndecodableMessage: the Content-Type is none of ours, or there is none and the bytes start no map.
    """
    content_type = header(headers, Header.CONTENT_TYPE)
    if content_type is not None:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in _MEDIA_TYPES:
            known = ", ".join(_MEDIA_TYPES)
            raise UndecodableMessage("message", data, f"Content-Type {content_type[:80]!r} is none of {known}")
        return _MEDIA_TYPES[media_type]
    start = data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
    if start == b"{":
        return Encoding.JSON
    if data[:1] and (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return Encoding.MSGPACK
    raise UndecodableMessage("message", data, "it starts neither a JSON object nor a MessagePack map")


def encoding_to_answer_in(headers: Mapping[str, str] | None, data: bytes) -> Encoding:
    """The encoding of a message, or JSON where it cannot be told: for a result about bytes that are no job."""
    try:
        return encoding_of(headers, data)
    except UndecodableMessage:
        return Encoding.JSON


def encode(value: object, encoding: Encoding) -> bytes:
    """Encode a struct or plain value."""
    return msgspec.msgpack.encode(value) if encoding is Encoding.MSGPACK else msgspec.json.encode(value)


def decode(data: bytes | msgspec.Raw, kind: type[T], encoding: Encoding) -> T:
    """Decode and validate.

    Raises:
        UndecodableMessage: with the path of the offending field, as in "Expected `int`, got `str` - at `$.steps`".
    """
    try:
        if encoding is Encoding.MSGPACK:
            return msgspec.msgpack.decode(data, type=kind)
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        what = getattr(kind, "__name__", str(kind))
        # Nested too deeply: some hundred levels end the decoder, whose own words are about Python.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UndecodableMessage(what, bytes(data), reason or type(error).__name__) from error
