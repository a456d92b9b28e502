"""`key=value` arguments become a model's input, typed as the task's fields are.

steps=20            by the field's type: number, true/false, text; JSON for lists and objects
audio=@speech.wav   a file; for other fields the text in it (`@@` is a plain `@`)
prompt=-            standard input
"""

import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, get_args, get_origin

import click
import msgspec

from headrace.cli.failures import did_you_mean
from headrace_contracts.errors import InvalidInput
from headrace_contracts.file import File
from headrace_contracts.tasks.registry import Task, input_type

_NUMBERS: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def parse(task: Task, arguments: tuple[str, ...]) -> dict[str, object]:
    """The input that these arguments spell.

    Raises:
        click.UsageError: one is not `key=value`, or repeated.
        InvalidInput: no such field, or its value has another type.
    """
    kinds = {field.name: _kind(field.type) for field in msgspec.structs.fields(input_type(task))}
    values: dict[str, object] = {}
    from_stdin: str | None = None
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise click.UsageError(f'{argument[:80]!r} is not key=value, as in prompt="a red star"')
        if key in values:
            raise click.UsageError(f"{key} is given twice")
        if key not in kinds:
            names = tuple(kinds)
            takes = f"is not a field of this task's input, which takes {', '.join(names)}"
            raise InvalidInput(f"input.{key[:80]}", takes + did_you_mean(key, names))
        if text == "-":
            if from_stdin is not None:
                raise click.UsageError(f"{from_stdin} and {key} cannot both read standard input")
            from_stdin = key
        values[key] = _file(key, text) if kinds[key] is File else _value(key, kinds[key], _text(key, text))
    return values


def _kind(annotation: object) -> object:
    """The type of a field without its limits and without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is UnionType or str(origin) == "typing.Union":
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _kind(members[0]) if len(members) == 1 else annotation
    return annotation


def _file(key: str, text: str) -> bytes | Path:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        raise InvalidInput(f"input.{key}", f"is a file: write {key}=@PATH (URLs are not fetched)")
    return Path(text[1:]).expanduser()


def _text(key: str, text: str) -> str:
    """The text meant: as it is, of a file, or of standard input (a newline at the end belongs to the tool before)."""
    if text.startswith("@@"):
        return text[1:]
    if text != "-" and not text.startswith("@"):
        return text
    try:
        data = sys.stdin.buffer.read() if text == "-" else Path(text[1:]).expanduser().read_bytes()
        return data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise InvalidInput(f"input.{key}", f"cannot read {text[1:]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input.{key}", f"its text is not UTF-8: {error.reason}") from error


def _value(key: str, kind: object, text: str) -> object:
    if isinstance(kind, type) and issubclass(kind, str):
        return text
    wanted = _NUMBERS.get(kind)
    try:
        return msgspec.json.decode(text) if wanted is None else msgspec.convert(text.strip(), kind, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidInput(f"input.{key}", f"{text[:80]!r} is not {wanted or 'JSON'}") from error
