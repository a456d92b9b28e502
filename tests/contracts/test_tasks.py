"""What each task refuses: the error names the field, and the limit."""

import base64
import json
import math

import msgspec
import pytest

from headrace_contracts.codec import Encoding
from headrace_contracts.errors import InvalidInput
from headrace_contracts.file import MAX_INLINE_BYTES
from headrace_contracts.limits import Limits
from headrace_contracts.tasks.registry import Task, decode_input

IMAGE, SPEECH, TEXT = Task.TEXT_TO_IMAGE, Task.SPEECH_TO_TEXT, Task.TEXT_GENERATION
BLOB = {"$blob": "default/a", "sha256": "0" * 64, "size_bytes": 10}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (IMAGE, {}, "input.prompt: is required"),
        (IMAGE, {"prompt": ""}, "input.prompt: Expected `str` of length >= 1"),
        (IMAGE, {"prompt": "x", "promt": "y"}, "input.promt: is not a field"),
        (IMAGE, {"prompt": 5}, "input.prompt: Expected `str`, got `int`"),
        (IMAGE, {"prompt": "x", "steps": 0}, "input.steps: Expected `int` >= 1"),
        (IMAGE, {"prompt": "x", "steps": 101}, "input.steps: 101 is over this model's limit of 100"),
        (IMAGE, {"prompt": "x", "steps": "20"}, "input.steps: Expected `int | null`, got `str`"),
        (IMAGE, {"prompt": "x", "width": 100}, "input.width: Expected `int` that's a multiple of 8"),
        (IMAGE, {"prompt": "x", "width": 4096, "height": 4096}, "input.width: 16777216 pixels"),
        (IMAGE, {"prompt": "x", "num_images": 5}, "input.num_images: 5 is over this model's limit of 4"),
        (IMAGE, {"prompt": "x", "seed": -1}, "input.seed: Expected `int` >= 0"),
        (IMAGE, {"prompt": "x", "format": "gif"}, "input.format: Invalid enum value 'gif'"),
        (IMAGE, {"prompt": "x" * 20_001}, "input.prompt: 20001 characters is over this model's limit of 20000"),
        (IMAGE, {"prompt": "a\0b"}, "input.prompt: holds a NUL character"),
        (IMAGE, {"prompt": "x", "negative_prompt": "\0"}, "input.negative_prompt: holds a NUL character"),
        (IMAGE, {"prompt": "x", "width": 1, "height": 1}, "input.width: Expected `int` >= 8"),
        (IMAGE, {"prompt": "x", "height": 2**63 - 8}, "input.height: 73786976294838206400 pixels"),
        (IMAGE, {"prompt": "x", "steps": 2**63}, "input.steps: 9223372036854775808 is over this model's limit"),
        (IMAGE, {"prompt": "x", "seed": 2**63}, "input.seed: Expected `int` <= 9223372036854775807"),
        (IMAGE, {"prompt": "x", "seed": 2**64 - 1}, "input.seed: Expected `int` <= 9223372036854775807"),
        (IMAGE, {"prompt": "x", "guidance_scale": -1}, "input.guidance_scale"),
        (SPEECH, {}, "input.audio: is required"),
        (SPEECH, {"audio": "http://10.0.0.1/a.wav"}, "text and URLs are not fetched"),
        (SPEECH, {"audio": {}}, 'input.audio: a file has exactly one of "$blob" and "$inline"'),
        (SPEECH, {"audio": {"$blob": "a"}}, '"$blob" reference needs "sha256" and "size_bytes"'),
        (SPEECH, {"audio": {**BLOB, "size_bytes": 10**9}}, "input.audio: 1000000000 bytes is over this model's limit"),
        (SPEECH, {"audio": BLOB, "language": "english"}, "input.language"),
        (SPEECH, {"audio": BLOB, "task": "sing"}, "input.task: Invalid enum value 'sing'"),
        (TEXT, {}, "give exactly one of `prompt` and `messages`"),
        (TEXT, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "exactly one of"),
        (TEXT, {"messages": []}, "input.messages: Expected `array` of length >= 1"),
        (TEXT, {"messages": [{"role": "robot", "content": "b"}]}, "input.messages[0].role: Invalid enum value"),
        (TEXT, {"prompt": "a", "max_tokens": 5000}, "input.max_tokens: 5000 tokens is over this model's limit of 4096"),
        (TEXT, {"prompt": "a", "temperature": -0.1}, "input.temperature"),
        (TEXT, {"prompt": "a", "top_p": 0}, "input.top_p"),
        (TEXT, {"messages": [{"role": "user", "content": "a\0"}]}, "input.messages: holds a NUL character"),
        (TEXT, {"prompt": "a", "stop": ["x" * 20_001]}, "input.stop: 20001 characters is over this model's limit"),
        (SPEECH, {"audio": BLOB, "initial_prompt": "\0"}, "input.initial_prompt: holds a NUL character"),
    ],
)
@pytest.mark.parametrize("encoding", Encoding)
def test_a_wrong_input_names_its_field(task: Task, given: dict[str, object], message: str, encoding: Encoding) -> None:
    data = json.dumps(given).encode() if encoding is Encoding.JSON else msgspec.msgpack.encode(given)
    with pytest.raises(InvalidInput) as refused:
        decode_input(task, data, encoding, Limits())
    assert message in refused.value.message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("task", "field"), [(IMAGE, "guidance_scale"), (TEXT, "temperature"), (TEXT, "top_p")])
def test_what_is_no_number_is_refused(task: Task, field: str, number: float) -> None:
    """MessagePack has a form for them; JSON has none."""
    data = msgspec.msgpack.encode({"prompt": "x", field: number})
    with pytest.raises(InvalidInput, match=rf"input\.{field}: Expected `float`"):
        decode_input(task, data, Encoding.MSGPACK, Limits())


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (rb'{"prompt": "a\ud800b"}', Encoding.JSON),
        (rb'{"prompt": "a\udc00"}', Encoding.JSON),
        (b'{"prompt": "a\xed\xa0\x80"}', Encoding.JSON),
        (b"\x81\xa6prompt\xa3\xed\xa0\x80", Encoding.MSGPACK),
        (b"\x81\xa6prompt\xa1\xff", Encoding.MSGPACK),
        (b'{"prompt": "x", "guidance_scale": NaN}', Encoding.JSON),
        (b'{"prompt": "x", "seed": 1180591620717411303424}', Encoding.JSON),
    ],
)
def test_bytes_that_are_no_text_or_number_are_refused(data: bytes, encoding: Encoding) -> None:
    with pytest.raises(InvalidInput, match=r"^input"):
        decode_input(IMAGE, data, encoding, Limits())


def test_an_inline_file_over_the_limit_says_what_to_do() -> None:
    audio = {"$inline": base64.b64encode(b"x" * (MAX_INLINE_BYTES + 1)).decode()}
    with pytest.raises(InvalidInput, match='upload the file and send "\\$blob"'):
        decode_input(SPEECH, json.dumps({"audio": audio}).encode(), Encoding.JSON, Limits())


def test_a_file_is_either_stored_or_inline() -> None:
    with pytest.raises(InvalidInput, match="exactly one of"):
        decode_input(SPEECH, json.dumps({"audio": {**BLOB, "$inline": "AA=="}}).encode(), Encoding.JSON, Limits())


def test_limits_are_the_models_own() -> None:
    given = json.dumps({"prompt": "x", "steps": 5}).encode()
    assert decode_input(IMAGE, given, Encoding.JSON, Limits(max_steps=5)).steps == 5
    with pytest.raises(InvalidInput, match="limit of 4"):
        decode_input(IMAGE, given, Encoding.JSON, Limits(max_steps=4))
