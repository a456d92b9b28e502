"""Model files: what is right reads, what is wrong is named."""

from pathlib import Path

import msgspec
import pytest

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.model import EngineKind, ModelSpec, load_spec, parse_spec, runs_as
from headrace_contracts.scaling import Scaling
from headrace_contracts.tasks.registry import Task

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


# Every field of a spec, with another value than the one it has in `SPEC`.
SPEC = ModelSpec("echo", Task.SYNTHETIC, EngineKind.SYNTHETIC)
NO_WORKER_READS = {"description": "other words", "scaling": Scaling(min_workers=1, max_workers=9)}
WORKERS_READ: dict[str, object] = {
    "weights": "path:/elsewhere",
    "version": "2",
    "defaults": {"steps": 3},
    "options": {"dtype": "float16"},
    "limits": msgspec.structs.replace(SPEC.limits, max_steps=7),
    "timeouts": msgspec.structs.replace(SPEC.timeouts, run_s=7),
    "retry": msgspec.structs.replace(SPEC.retry, max_attempts=7),
    "recycle": msgspec.structs.replace(SPEC.recycle, jobs=7),
    "batching": msgspec.structs.replace(SPEC.batching, max_size=7),
    "resources": msgspec.structs.replace(SPEC.resources, threads=7),
    "price_per_s": 0.5,
    "allow_remote_code": True,
}


def test_other_bounds_and_other_words_leave_workers_as_they_are() -> None:
    for field, value in NO_WORKER_READS.items():
        changed = msgspec.structs.replace(SPEC, **{field: value})
        assert changed != SPEC
        assert runs_as(changed) == runs_as(SPEC), field


def test_whatever_a_worker_reads_makes_it_run_as_something_else() -> None:
    changed = [msgspec.structs.replace(SPEC, **{field: value}) for field, value in WORKERS_READ.items()]
    assert len({runs_as(spec) for spec in (SPEC, *changed)}) == 1 + len(changed)
    # The engine and its task go together; with the name they are the rest.
    assert {*WORKERS_READ, *NO_WORKER_READS, "name", "task", "engine"} == set(ModelSpec.__struct_fields__)


def test_the_order_in_which_options_were_written_does_not_matter() -> None:
    one = msgspec.structs.replace(SPEC, options={"a": 1, "b": 2})
    other = msgspec.structs.replace(SPEC, options={"b": 2, "a": 1})
    assert runs_as(one) == runs_as(other)
