"""The models that come with Headrace: valid, with their weights at hand, and pinned in one version everywhere."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from headrace_contracts.codec import Encoding
from headrace_contracts.errors import InvalidSpec
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import Task, decode_input
from headrace_local.examples import cli_example, nats_examples
from headrace_local.models import WEIGHT_PACKAGES, ModelUnavailableError, bundled_models, check_installed, find_model
from headrace_workers.weights.origin import origin

ROOT = Path(__file__).parents[2]

REQUIRED = {
    Task.TEXT_TO_IMAGE: {"prompt": "a red circle on a blue background"},
    Task.SPEECH_TO_TEXT: {"audio": {"$inline": "UklGRg=="}},
    Task.TEXT_GENERATION: {"prompt": "Hello"},
}


@pytest.fixture(params=bundled_models(), ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    bundled: ModelSpec = request.param
    return bundled


def test_there_is_one_for_each_kind_of_work() -> None:
    assert sorted(spec.task for spec in bundled_models()) == sorted(set(Task) - {Task.SYNTHETIC})


def test_its_defaults_are_inputs_within_its_own_limits(spec: ModelSpec) -> None:
    raw = msgspec.json.encode({**spec.defaults, **REQUIRED[spec.task]})
    decode_input(spec.task, raw, Encoding.JSON, spec.limits)


def test_its_weights_and_libraries_are_here(spec: ModelSpec) -> None:
    check_installed(spec)
    assert origin(spec) is not None


def test_its_examples_name_it(spec: ModelSpec) -> None:
    assert cli_example(spec).startswith(f"headrace run {spec.name} ")
    assert f" jobs.default.{spec.name}.normal " in nats_examples(spec)[1]


def test_weight_packages_are_pinned_alike_for_pip_for_uv_and_in_error_messages() -> None:
    lines = (ROOT / "requirements" / "demo-weights.txt").read_text().splitlines()
    for_pip = {line for line in lines if line and not line.startswith("#")}
    for_uv = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["weights"])
    assert for_pip == for_uv == set(WEIGHT_PACKAGES.values())


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelUnavailableError, match=r"smollm2-135m, tiny-shapes, whisper-tiny-en.*\.toml"):
        find_model("gpt-9")


def test_a_path_is_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntask = "synthetic"\nengine = "synthetic"\n')
    assert find_model(str(path)).name == "mine"
    with pytest.raises(InvalidSpec, match=r"missing\.toml"):
        find_model(str(tmp_path / "missing.toml"))
