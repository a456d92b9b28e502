"""Pulling from a hub, against a real HTTP server that speaks its protocol and can misbehave."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Mode

from headrace_contracts.errors import WeightsError
from headrace_contracts.model import EngineKind, ModelSpec, Task
from headrace_workers.weights import ensure, locate
from headrace_workers.weights.lockfile import read_lock
from headrace_workers.weights.origin import HubModel
from headrace_workers.weights.pull import Pulled, pull

REPO = "acme/tiny"
FILES = {
    "README.md": b"# Tiny",
    ".gitattributes": b"*.safetensors filter=lfs",
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": bytes(range(256)) * 20,
    "pytorch_model.bin": b"\x80\x02" * 2000,
    "onnx/model.onnx": b"onnx" * 1000,
}
WANTED = ["config.json", "model.safetensors", "tokenizer.json"]
SPEC = ModelSpec(
    name="tiny", task=Task.TEXT_GENERATION, engine=EngineKind.TRANSFORMERS, weights=f"hub:{REPO}", version="1"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        server.commit(REPO, FILES)
        yield server


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "models.lock"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pull_spec(hub: HubServer, cache: Path, lock: Path, *, update: bool = False) -> Pulled:
    return pull(SPEC, cache, lock, update=update, endpoint=hub.url)


def accepted(cache: Path) -> list[str]:
    """Folders of the cache that are in place, whatever they hold."""
    return sorted(p.name for p in (cache / "weights").glob("*") if p.is_dir() and not p.name.startswith("."))


def test_a_pull_brings_the_needed_files_and_locks_them(hub: HubServer, cache: Path, lock: Path) -> None:
    pulled = pull_spec(hub, cache, lock)
    assert sorted(p.name for p in pulled.folder.iterdir()) == [*WANTED[:1], "manifest.json", *WANTED[1:]]
    assert all((pulled.folder / name).read_bytes() == FILES[name] for name in WANTED)
    entry = json.loads(lock.read_text())["models"][0]
    assert (entry["repo"], entry["commit"]) == (REPO, pulled.commit)
    assert [file["path"] for file in entry["files"]] == WANTED
    assert all(len(file["sha256"]) == 64 and file["size_bytes"] == len(FILES[file["path"]]) for file in entry["files"])
    assert pulled.size_bytes == sum(len(FILES[name]) for name in WANTED)


def test_a_pulled_model_is_found_by_the_lock_and_without_it(hub: HubServer, cache: Path, lock: Path) -> None:
    assert locate(SPEC, cache) is None
    pulled = pull_spec(hub, cache, lock)
    assert locate(SPEC, cache) == locate(SPEC, cache, lock_file=lock) == ensure(SPEC, cache) == pulled.folder


def test_a_model_that_was_not_pulled_says_so(cache: Path) -> None:
    with pytest.raises(WeightsError, match="headrace models pull"):
        ensure(SPEC, cache)


def test_the_lock_holds_the_commit_when_the_branch_moves(
    hub: HubServer, cache: Path, lock: Path, tmp_path: Path
) -> None:
    first = pull_spec(hub, cache, lock)
    moved = hub.commit(REPO, {**FILES, "config.json": b'{"model_type": "qwen3"}'})
    again = pull_spec(hub, tmp_path / "other", lock)
    assert again.commit == first.commit != moved
    assert (again.folder / "config.json").read_bytes() == FILES["config.json"]

    updated = pull_spec(hub, cache, lock, update=True)
    assert updated.commit == moved
    assert read_lock(lock).models[0].commit == moved
    assert locate(SPEC, cache) == updated.folder != first.folder


def test_a_second_pull_fetches_nothing_and_checks_every_byte(hub: HubServer, cache: Path, lock: Path) -> None:
    first = pull_spec(hub, cache, lock)
    hub.requests.clear()
    assert pull_spec(hub, cache, lock) == first
    assert hub.requests == []

    (first.folder / "model.safetensors").write_bytes(bytes(len(FILES["model.safetensors"])))
    assert pull_spec(hub, cache, lock) == first
    assert (first.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_under_the_locked_commit_are_refused(
    hub: HubServer, cache: Path, lock: Path, tmp_path: Path, name: str
) -> None:
    first = pull_spec(hub, cache, lock)
    changed = bytes(reversed(FILES[name]))
    hub.rewrite(REPO, first.commit, {**FILES, name: changed})
    locked = lock.read_bytes()
    with pytest.raises(WeightsError, match=f"{name} of {REPO} .* is not what .*models.lock says: refused"):
        pull_spec(hub, tmp_path / "other", lock)
    assert accepted(tmp_path / "other") == []
    assert lock.read_bytes() == locked


def test_another_commit_than_the_locked_one_is_refused(hub: HubServer, cache: Path, lock: Path, tmp_path: Path) -> None:
    pull_spec(hub, cache, lock)
    hub.commit(REPO, {**FILES, "config.json": b"{}"})
    hub.mode = Mode.OTHER_COMMIT
    with pytest.raises(WeightsError, match=r"pins acme/tiny to commit .* answers with"):
        pull_spec(hub, tmp_path / "other", lock)


def test_a_locked_commit_that_is_gone_says_what_to_do(hub: HubServer, cache: Path, lock: Path, tmp_path: Path) -> None:
    pull_spec(hub, cache, lock)
    lock.write_text(lock.read_text().replace(read_lock(lock).models[0].commit, "0" * 40))
    with pytest.raises(WeightsError, match="--update"):
        pull_spec(hub, tmp_path / "other", lock)


def test_a_download_that_is_cut_goes_on_where_it_was(hub: HubServer, cache: Path, lock: Path) -> None:
    # huggingface_hub writes pieces of 10 MiB: what came before the cut in an unfinished piece comes again.
    piece = 10 * 1024 * 1024
    large = b"weights!" * (piece // 8 + 1000)
    hub.commit(REPO, {**FILES, "model.safetensors": large})
    hub.mode, hub.cut_at_bytes = Mode.CUT_ONCE, piece + 500
    pulled = pull_spec(hub, cache, lock)
    assert (pulled.folder / "model.safetensors").read_bytes() == large
    assert f"bytes={piece}-" in [ranged for _, path, ranged in hub.requests if path.startswith("/cdn/")]


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        (Mode.WRONG_BYTES, r"model.safetensors of acme/tiny came with other bytes than http"),
        (Mode.WRONG_SMALL_BYTES, r"config.json of acme/tiny came with other bytes than http"),
        (Mode.HTML_API, r"acme/tiny is not that of a model hub: a login page"),
        (Mode.HTML_FILE, r"config.json of acme/tiny is not that of a model hub: a login page"),
        (Mode.HTML_CDN, r"model.safetensors of acme/tiny came from .* with another size .* login page"),
        (Mode.UNAUTHORIZED, r"refuses acme/tiny .*HTTP 401.*: check the repository's name and HF_TOKEN"),
        (Mode.GATED, r"acme/tiny is gated: accept its terms"),
        # Several tries with a second between them.
        (Mode.CUT_ALWAYS, r"cannot fetch model.safetensors of acme/tiny .*: try again"),
    ],
)
def test_a_hub_that_fails_leaves_nothing_accepted(
    hub: HubServer, cache: Path, lock: Path, mode: Mode, sentence: str
) -> None:
    hub.mode = mode
    with pytest.raises(WeightsError, match=sentence) as raised:
        pull_spec(hub, cache, lock)
    assert "\n" not in str(raised.value)
    assert accepted(cache) == []
    assert not lock.exists()
    assert locate(SPEC, cache) is None

    hub.mode = Mode.OK
    assert pull_spec(hub, cache, lock).folder == locate(SPEC, cache)


def test_a_failed_pull_keeps_what_was_right(hub: HubServer, cache: Path, lock: Path) -> None:
    hub.mode = Mode.WRONG_BYTES
    with pytest.raises(WeightsError):
        pull_spec(hub, cache, lock)
    hub.mode = Mode.OK
    hub.requests.clear()
    pull_spec(hub, cache, lock)
    assert [path for path in hub.downloads() if path.endswith("config.json")] == []


def test_no_answer_at_all_is_one_sentence(hub: HubServer, cache: Path, lock: Path) -> None:
    with HubServer() as gone:
        pass
    with pytest.raises(WeightsError, match=r"cannot fetch acme/tiny .*try again"):
        pull_spec(gone, cache, lock)


def test_a_repository_that_does_not_exist(hub: HubServer, cache: Path, lock: Path) -> None:
    with pytest.raises(WeightsError, match="has no repository acme/none"):
        pull("acme/none", cache, lock, endpoint=hub.url)


def test_a_repository_that_was_renamed_is_found(hub: HubServer, cache: Path, lock: Path) -> None:
    hub.renamed["acme/former"] = REPO
    pulled = pull("acme/former", cache, lock, endpoint=hub.url)
    assert (pulled.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert read_lock(lock).models[0].repo == "acme/former"


def test_a_file_name_that_leaves_the_folder_is_refused(hub: HubServer, cache: Path, lock: Path) -> None:
    hub.commit(REPO, {**FILES, "../../evil.json": b"{}"})
    with pytest.raises(WeightsError, match="outside its folder"):
        pull_spec(hub, cache, lock)


def test_a_repository_with_pickles_only_is_refused(hub: HubServer, cache: Path, lock: Path) -> None:
    hub.commit("acme/pickled", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02" * 2000})
    with pytest.raises(WeightsError, match=r"acme/pickled: pytorch_model\.bin is a pickle"):
        pull("acme/pickled", cache, lock, endpoint=hub.url)
    assert hub.downloads() == []


def test_a_pipeline_brings_its_components_in_the_variant(hub: HubServer, cache: Path, lock: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet"],
        "scheduler": ["diffusers", "DDIM"],
    }
    index |= {"safety_checker": [None, None]}
    names = ["unet/config.json", "unet/d.safetensors", "unet/d.fp16.safetensors", "scheduler/scheduler_config.json"]
    others = ["vae_1_0/d.safetensors", "safety_checker/model.safetensors", "everything.safetensors", "unet/d.bin"]
    files = {name: name.encode() for name in names + others} | {"model_index.json": json.dumps(index).encode()}
    hub.commit("acme/pipe", files)

    def pulled(variant: str | None) -> set[str]:
        model = HubModel("acme/pipe", variant=variant)
        return {f.path for f in read_lock(pull_lock(model)).find(model).files}  # type: ignore[union-attr]

    def pull_lock(model: HubModel) -> Path:
        pull(model, cache, lock, endpoint=hub.url)
        return lock

    common = {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"}
    assert pulled(None) == {*common, "unet/d.safetensors"}
    assert pulled("fp16") == {*common, "unet/d.fp16.safetensors"}
    assert len(read_lock(lock).models) == 2


def test_the_command_pulls_and_prints_one_line(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    model_file = tmp_path / "tiny.toml"
    model_file.write_text(f'name="tiny"\ntask="text-generation"\nengine="transformers"\nweights="hub:{REPO}"\n')
    done = run_command(hub, tmp_path, str(model_file), "--cache", str(cache))
    assert done.returncode == 0, done.stderr
    entry = read_lock(tmp_path / "models.lock").models[0]
    assert done.stdout.splitlines() == [f"{locate(SPEC, cache)}  commit {entry.commit}  0.0 MB"]


def test_the_command_fails_with_one_sentence(hub: HubServer, cache: Path, tmp_path: Path) -> None:
    hub.mode = Mode.HTML_API
    done = run_command(hub, tmp_path, REPO, "--engine", "transformers", "--cache", str(cache))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Error: the answer about acme/tiny is not that of a model hub" in done.stderr
    assert "Traceback" not in done.stderr


def run_command(hub: HubServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from headrace_workers.weights.pull_cli import pull; pull()"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
