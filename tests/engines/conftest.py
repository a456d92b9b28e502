"""The three bundled models, loaded once per test module."""

import random

import pytest
from loaded import bench, bundled
from recording import Bench


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(bundled("tiny-shapes"), tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(bundled("whisper-tiny-en"), tmp_path_factory.mktemp("listener"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(bundled("smollm2-135m"), tmp_path_factory.mktemp("writer"))


@pytest.fixture(autouse=True)
def nobody_cancels(request: pytest.FixtureRequest) -> None:
    """A test's cancels and hooks end with it."""
    for name in ("painter", "listener", "writer"):
        if name in request.fixturenames:
            sink = request.getfixturevalue(name).sink
            sink.to_cancel.clear()
            sink.on_report = None


@pytest.fixture
def seeds() -> random.Random:
    return random.Random(0)
