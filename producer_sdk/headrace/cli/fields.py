"""A model's input as rows of a table: field, type, default, limits. Pure."""

from typing import Any

from headrace_contracts.limits import Limits
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import input_schema

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "over {}",
    "maximum": "at most {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "like {}",
}


def field_rows(spec: ModelSpec) -> list[tuple[str, str, str, str]]:
    """One row per input field of the model's task."""
    schema: dict[str, Any] = input_schema(spec.task)  # Any: a JSON Schema
    types = schema["$defs"]
    struct = types[str(schema["$ref"]).rpartition("/")[2]]
    required = struct.get("required", [])
    rows = []
    for name, field in struct["properties"].items():
        default = spec.defaults.get(name, field.get("default"))
        shown = "(required)" if name in required else "" if default in (None, "", []) else str(default)
        rows.append((name, _type(field, types), shown, "; ".join([*_bounds(field), *_of_model(name, spec.limits)])))
    return rows


def _type(field: dict[str, Any], types: dict[str, Any]) -> str:
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        values = types[name].get("enum")
        return "file" if name == "File" else " | ".join(map(str, values)) if values else "object"
    if "anyOf" in field:
        return " | ".join(_type(kind, types) for kind in field["anyOf"] if kind.get("type") != "null")
    return str(
        {"integer": "int", "number": "float", "boolean": "bool", "string": "text", "array": "list"}.get(
            field.get("type", ""), field.get("type", "any")
        )
    )


def _bounds(field: dict[str, Any]) -> list[str]:
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return [text.format(kind[key]) for kind in kinds for key, text in _BOUNDS.items() if key in kind]


def _of_model(name: str, limits: Limits) -> list[str]:
    """The model's own limits of a field, in the words of its check."""
    pixels = f"width x height at most {limits.max_pixels} pixels"
    return {
        "audio": [f"at most {limits.max_file_bytes} bytes", f"at most {limits.max_audio_s:g} s"],
        "prompt": [f"at most {limits.max_prompt_chars} characters"],
        "negative_prompt": [f"at most {limits.max_prompt_chars} characters"],
        "initial_prompt": [f"at most {limits.max_prompt_chars} characters"],
        "messages": [f"at most {limits.max_prompt_chars} characters in all"],
        "echo": [f"at most {limits.max_prompt_chars} characters"],
        "steps": [f"at most {limits.max_steps}"],
        "num_images": [f"at most {limits.max_images}"],
        "width": [pixels],
        "height": [pixels],
        "max_tokens": [f"at most {limits.max_output_tokens}"],
    }.get(name, [])
