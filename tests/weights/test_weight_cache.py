"""The cache: complete or absent, whoever makes it and however they die."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec, Task
from headrace_workers.weights import ensure, locate
from headrace_workers.weights.cache import Progress
from headrace_workers.weights.manifest import MANIFEST, read_manifest

SCRIPT = """
import os, signal, sys
from pathlib import Path
import msgspec
from headrace_contracts.model import ModelSpec
from headrace_workers.weights import ensure

def say(line):
    print(line, flush=True)

def importer(source, out, dtype, progress):
    (out / "config.json").write_text("{}")
    say("importing")
    if input() == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "model.safetensors").write_bytes(b"by " + str(os.getpid()).encode())
    return {}

say(ensure(msgspec.json.decode(sys.argv[1], type=ModelSpec), Path(sys.argv[2]), say, importer=importer))
"""


def small_import(source: Path, out: Path, dtype: str, progress: Progress) -> dict[str, str]:
    (out / "config.json").write_text("{}")
    (out / "nested").mkdir()
    (out / "nested" / "model.safetensors").write_bytes(source.read_bytes())
    return {"small": "1"}


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return spec_at(tmp_path / "small.gguf")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def spec_at(path: Path) -> ModelSpec:
    path.write_bytes(b"GGUF")
    return ModelSpec(
        name="small", task=Task.TEXT_GENERATION, engine=EngineKind.TRANSFORMERS, weights=f"path:{path}", version="1"
    )


def start(spec: ModelSpec, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCRIPT, msgspec.json.encode(spec).decode(), str(cache)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def partials(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "weights" / ".partial").iterdir())


def test_an_import_happens_once(spec: ModelSpec, cache: Path) -> None:
    folder = ensure(spec, cache, importer=small_import)

    def never(*_: object) -> dict[str, str]:
        raise AssertionError("imported again")

    assert folder == ensure(spec, cache, importer=never) == locate(spec, cache)
    assert folder is not None
    assert folder.name.startswith("small-float32-")
    manifest = read_manifest(folder)
    assert manifest is not None
    assert [file.path for file in manifest.files] == ["config.json", "nested/model.safetensors"]
    assert manifest.source == spec.weights
    assert manifest.versions == {"small": "1"}


def test_other_options_and_another_file_are_another_folder(spec: ModelSpec, cache: Path, tmp_path: Path) -> None:
    folder = ensure(spec, cache, importer=small_import)
    half = msgspec.structs.replace(spec, options={"dtype": "bfloat16"})
    assert locate(half, cache) is None
    assert ensure(half, cache, importer=small_import) != folder
    (tmp_path / "small.gguf").write_bytes(b"GGUF, newer")
    assert locate(spec, cache) is None


@pytest.mark.parametrize("name", ["config.json", "nested/model.safetensors", MANIFEST])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_folder_is_not_accepted_and_made_again(spec: ModelSpec, cache: Path, name: str, damage: str) -> None:
    folder = ensure(spec, cache, importer=small_import)
    assert folder is not None
    if damage == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    if (name, damage) != (MANIFEST, "cut"):  # its last byte is a line end
        assert locate(spec, cache) is None
    else:
        (folder / name).write_bytes(b"{")
        assert locate(spec, cache) is None
    assert ensure(spec, cache, importer=small_import) == folder == locate(spec, cache)
    assert (folder / "nested" / "model.safetensors").read_bytes() == b"GGUF"


def test_two_processes_import_once(spec: ModelSpec, cache: Path) -> None:
    with start(spec, cache) as first:
        assert line(first) == "importing"
        with start(spec, cache) as second:
            assert line(second).startswith("waiting for another process")
            assert locate(spec, cache) is None
            assert first.stdin is not None
            first.stdin.write("go\n")
            first.stdin.flush()
            folder = line(first)
            assert line(second) == folder == str(locate(spec, cache))
    assert (Path(folder) / "model.safetensors").read_text() == f"by {first.pid}"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_process_that_dies_leaves_nothing_accepted(spec: ModelSpec, cache: Path, tmp_path: Path) -> None:
    with start(spec, cache) as process:
        assert line(process) == "importing"
        process.communicate("die\n")
    assert process.returncode == -signal.SIGKILL
    assert locate(spec, cache) is None
    assert len(partials(cache)) == 1

    other = spec_at(tmp_path / "other.gguf")
    assert ensure(other, cache, importer=small_import) == locate(other, cache)
    assert partials(cache) == []
    assert ensure(spec, cache, importer=small_import) == locate(spec, cache)


def test_what_another_process_is_making_is_left_alone(spec: ModelSpec, cache: Path, tmp_path: Path) -> None:
    with start(spec, cache) as process:
        assert line(process) == "importing"
        ensure(spec_at(tmp_path / "other.gguf"), cache, importer=small_import)
        assert len(partials(cache)) == 1
        process.communicate("go\n")
    assert locate(spec, cache) is not None


def test_the_one_who_waits_takes_over_from_one_who_dies(spec: ModelSpec, cache: Path) -> None:
    with start(spec, cache) as first:
        assert line(first) == "importing"
        with start(spec, cache) as second:
            assert line(second).startswith("waiting")
            first.kill()
            assert line(second) == "importing"
            second.communicate("go\n")
    folder = locate(spec, cache)
    assert folder is not None
    assert (folder / "model.safetensors").read_text() == f"by {second.pid}"


def test_a_failed_import_leaves_nothing(spec: ModelSpec, cache: Path) -> None:
    def failing(source: Path, out: Path, dtype: str, progress: Progress) -> dict[str, str]:
        (out / "config.json").write_text("{}")
        raise WeightsError("no")

    with pytest.raises(WeightsError, match="no"):
        ensure(spec, cache, importer=failing)
    assert locate(spec, cache) is None
    assert partials(cache) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(spec: ModelSpec, tmp_path: Path) -> None:
    """As a volume that belongs to another user."""
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(WeightsError, match=r"weights cannot be kept in .*taken/weights \(.*\): .*HEADRACE_CACHE_DIR"):
        ensure(spec, tmp_path / "taken", importer=small_import)
