"""Bytes to values: every way a client may say which encoding it uses, and every way to get it wrong."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts import codec
from headrace_contracts.codec import Encoding
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.job import JobBody
from headrace_contracts.names import Header

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=4)
)
MAPS = st.dictionaries(st.text(), JSON_VALUES, max_size=20)


@given(MAPS, st.sampled_from(Encoding))
def test_a_body_without_content_type_is_sniffed(value: dict[str, object], encoding: Encoding) -> None:
    data = codec.encode(value, encoding)
    assert codec.encoding_of(None, data) is encoding
    assert codec.decode(data, dict, encoding) == value


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", Encoding.JSON),
        ("Application/JSON; charset=utf-8", Encoding.JSON),
        ("application/msgpack", Encoding.MSGPACK),
        ("application/x-msgpack", Encoding.MSGPACK),
        ("application/vnd.msgpack", Encoding.MSGPACK),
    ],
)
@pytest.mark.parametrize("spelling", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_the_content_type_header_decides(content_type: str, expected: Encoding, spelling: str) -> None:
    assert codec.encoding_of({spelling: content_type}, b"whatever") is expected


@pytest.mark.parametrize("data", [b"", b" ", b"[1]", b"hello", b"\x93\x01\x02\x03", b"\xff\xfe{", b"\x00" * 8])
def test_bytes_that_start_no_map_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableMessage, match="neither a JSON object nor a MessagePack map"):
        codec.encoding_of(None, data)


def test_an_unknown_content_type_is_refused_and_names_the_known_ones() -> None:
    with pytest.raises(UndecodableMessage, match=r"text/plain.*application/json"):
        codec.encoding_of({"Content-Type": "text/plain"}, b"{}")


@given(st.binary(max_size=200), st.sampled_from(Encoding))
def test_any_bytes_either_decode_or_are_undecodable(data: bytes, encoding: Encoding) -> None:
    with contextlib.suppress(UndecodableMessage):
        codec.decode(data, JobBody, encoding)


@pytest.mark.parametrize("encoding", Encoding)
def test_truncated_bodies_are_undecodable(encoding: Encoding) -> None:
    whole = codec.encode({"input": {"prompt": "x" * 50}, "timeout_s": 3.0}, encoding)
    for size in range(len(whole)):
        with pytest.raises(UndecodableMessage):
            codec.decode(whole[:size], JobBody, encoding)


def test_a_decode_error_names_the_path() -> None:
    with pytest.raises(UndecodableMessage, match=r"Expected `float \| null`, got `str` - at `\$\.timeout_s`"):
        codec.decode(b'{"input": {}, "timeout_s": "soon"}', JobBody, Encoding.JSON)


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(UndecodableMessage):
        codec.decode(
            b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            msgspec.defstruct("D", [("input", list)]),
            Encoding.JSON,
        )


def test_headers_are_found_in_any_case() -> None:
    assert codec.header({"nats-msg-id": "a"}, Header.JOB_ID) == "a"
    assert codec.header({}, Header.JOB_ID) is None
