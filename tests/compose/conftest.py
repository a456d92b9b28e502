"""An Engine with the stack's images, and the stack up: once for all tests of a module."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.base_images import DEBIAN_PYTHON, provide_python
from engine.client import Docker
from engine.debian import NotTestable
from engine.server import running
from engine.stand_ins import is_stand_in, provide
from stack import BUILD_DEADLINE_S, Stack, Start, Step, clone, say

# Packages and the base image, so that a second run starts at once.
TOOLS = Path(sys.prefix) / "tools" / "engine"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """The Engine of this machine, or one that is started for the tests."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    machine = running(TOOLS, tmp_path_factory.mktemp("engine"))
    try:
        with Step("a Docker Engine"):
            docker = machine.__enter__()
    except NotTestable as error:
        pytest.skip(f"NOT TESTED: nothing shows that the compose stack runs: {error}")
    say(f"Engine {docker('version', '--format', '{{.Server.Version}}')} at {docker.host}")
    try:
        with pytest.MonkeyPatch.context() as environment:
            # As a user has it: tests that only ask for an Engine find this one.
            programs = (str(Path(docker.program).parent), str(Path(sys.executable).parent))
            environment.setenv("PATH", os.pathsep.join((*programs, os.environ["PATH"])))
            environment.setenv("DOCKER_HOST", docker.host)
            yield docker
    finally:
        with Step("the Engine let go"):
            machine.__exit__(None, None, None)


@pytest.fixture(scope="session")
def built(engine: Docker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone; its two images are on the Engine."""
    folder = clone(tmp_path_factory.mktemp("clone") / "headrace")
    try:
        with Step("the base image"):
            provide_python(engine, DEBIAN_PYTHON, TOOLS)
    except NotTestable as error:
        pytest.skip(f"NOT TESTED: nothing shows that the images build: {error}")
    stack = Stack(engine, folder)
    with Step("both images built"):
        stack.compose("build", "topology", "worker-tiny-shapes", timeout_s=BUILD_DEADLINE_S)
    return folder


@pytest.fixture(scope="session")
def start(engine: Docker, built: Path) -> Start:
    """Brings a stack up: `start(overlay, ...)`. The caller takes it down."""

    def up(*overlays: str) -> Stack:
        stack = Stack(engine, built, *overlays)
        missing = set()
        for name, service in stack.config()["services"].items():
            image = service["image"]
            if image.startswith("headrace/") or service.get("profiles"):
                continue
            if not provide(engine, image, TOOLS):
                missing.add(name)
                say(f"NOT TESTED: {name}: {image} cannot be pulled, and nothing stands in for it")
            elif is_stand_in(engine, image):
                say(f"{image} is a stand-in out of packages")
        stack.leave_out(missing)
        try:
            with Step(f"up {' '.join(overlays)}".strip()):
                stack.up()
        except BaseException:
            stack.down()
            raise
        return stack

    return up
