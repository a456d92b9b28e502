"""Model files: what is right reads, what is wrong is named."""

from pathlib import Path

import pytest

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.model import load_spec, parse_spec

GOOD = """
name = "shapes"
task = "text-to-image"
engine = "diffusers"
weights = "path:weights/shapes"
[limits]
max_steps = 50
[batching]
max_size = 4
"""


def test_a_model_file_reads_and_its_path_is_taken_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "shapes.toml"
    file.write_text(GOOD)
    spec = load_spec(file)
    assert spec.weights == f"path:{tmp_path}/weights/shapes"
    assert (spec.limits.max_steps, spec.batching.max_size) == (50, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("shapes", "my shapes"), "model name 'my shapes' is not valid"),
        (('"diffusers"', '"onnx"'), "Invalid enum value 'onnx' - at `$.engine`"),
        (('"diffusers"', '"transformers"'), "engine `transformers` does `text-generation`, not `text-to-image`"),
        (("path:weights", "file:weights"), "must be path:..., package:..., hub:org/name or none"),
        (("max_steps", "max_step"), "unknown field `max_step` - at `$.limits`"),
        (("max_size = 4", "max_size = 0"), "`max_size` is 0 and must be 1 to 1024"),
        (("[limits]", "[limits"), "shapes.toml"),
    ],
)
def test_a_wrong_file_is_named_with_key_and_reason(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(GOOD.replace(*change), "shapes.toml")
    assert message in str(refused.value)
    assert "shapes.toml" in str(refused.value)


def test_a_missing_file_is_an_invalid_spec(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"none\.toml"):
        load_spec(tmp_path / "none.toml")
