"""`compose/check.sh`: what lacks before `docker compose up` is one sentence that says how to mend it."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "compose" / "check.sh"
PORTS = ("NATS_PORT", "NATS_MONITOR_PORT", "S3_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")


def check(*overlays: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CHECK), *overlays], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def client() -> str:
    found = shutil.which("docker")
    if found is None:
        pytest.skip("NOT TESTED: there is no docker client on PATH: nothing shows what compose/check.sh says")
    return found


@pytest.fixture
def engine(client: str) -> None:
    if subprocess.run([client, "version"], capture_output=True, timeout=60).returncode:
        pytest.skip("NOT TESTED: no Docker Engine answers: nothing shows what compose/check.sh says of one")


@pytest.fixture
def free() -> dict[str, str]:
    """Ports that nobody has, for every variable."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        first = one.getsockname()[1]
    return {name: str(first) for name in PORTS}


def test_an_engine_that_does_not_answer(client: str, tmp_path: Path) -> None:
    done = check(DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line == (
        "error: The Docker Engine does not answer: start it (sudo systemctl start docker), or point DOCKER_HOST at it."
    )


def test_an_overlay_that_is_not_there_is_a_wrong_argument() -> None:
    done = check("gup")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no overlay gup: ")
    assert "gpu" in done.stderr


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_where_nothing_lacks_it_says_nothing(free: dict[str, str]) -> None:
    done = check(**free, NEEDED_GB="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("variable", PORTS)
def test_a_port_that_is_taken_is_named_with_its_variable(free: dict[str, str], variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = check(**{**free, variable: str(port)}, NEEDED_GB="0")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: Port {port} of this machine, for ")
    assert f"{variable}=1" in line


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_disk_without_room(free: dict[str, str]) -> None:
    done = check(**free, NEEDED_GB="1000000")
    assert done.returncode == 1
    assert "GB free, and 1000000 GB are needed: make room" in done.stderr


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_the_gpu_overlay_without_a_driver(free: dict[str, str]) -> None:
    runtimes = subprocess.run(["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True)
    if "nvidia" in runtimes.stdout:
        pytest.skip("this Engine has NVIDIA's runtime")
    done = check("gpu", **free, NEEDED_GB="0")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: The Docker Engine has no NVIDIA runtime")
    assert "nvidia-ctk runtime configure" in line
