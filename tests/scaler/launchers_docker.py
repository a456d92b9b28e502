"""A Docker Engine as a place for workers, with a project of its own and an image that is a shell and little else."""

import contextlib
import io
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from launchers_places import BrokenGpu

from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import SlotKind
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.docker.launcher import DockerLauncher
from headrace_scaler.launchers.port import Order
from headrace_scaler.policy.observation import Need

IMAGE = "headrace-test-worker:1"
# As a worker behaves towards whoever starts it, and starts in no time.
STAND_IN = """\
#!/bin/sh
case "$*" in *no-such-model*) echo 'error: there is no model no-such-model' >&2; exit 1;; esac
trap 'exit 0' TERM
echo "$*; GPUS=$CUDA_VISIBLE_DEVICES; LAUNCHED=$HEADRACE_LAUNCHED_AT"
while :; do sleep 1 & wait $!; done
"""


def missing() -> str:
    """Why there is no Engine to test with; empty if there is one."""
    if shutil.which("docker") is None:
        return "there is no docker client on PATH"
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else "no Docker Engine answers"


def docker(*arguments: str, data: bytes | None = None) -> str:
    """What the client says."""
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class DockerPlace:
    """Containers of one compose project, which is this place's alone."""

    slot = "cpu"
    keeps_stopped = True

    def __init__(self) -> None:
        self.project = f"test-{uuid.uuid4().hex[:8]}"
        self.model = "m"
        if not docker("images", "--quiet", IMAGE):
            docker("import", "--change", 'ENTRYPOINT ["/worker"]', "-", IMAGE, data=_image())
        for model in (self.model, "no-such-model"):
            self.template(model)

    def template(self, model: str, *options: str, project: str = "") -> str:
        """The container of a model's service."""
        project = project or self.project
        labels = (f"com.docker.compose.project={project}", f"com.docker.compose.service=w-{model}")
        given = [part for label in (*labels, f"headrace.model={model}") for part in ("--label", label)]
        return docker("create", *given, *options, IMAGE, "prepared")

    @contextlib.asynccontextmanager
    async def launcher(self) -> AsyncIterator[DockerLauncher]:
        environment = {"COMPOSE_PROJECT_NAME": self.project}
        async with DockerLauncher(ScalerSettings(cpu_slots=3), environment, SystemClock(), gpus=BrokenGpu()) as one:
            yield one

    def order(self, worker: str = "", slot: str = "", size: int = 1) -> Order:
        slot = slot or self.slot
        kind = SlotKind.CPU if slot == "cpu" else SlotKind.GPU
        return Order(worker or f"w-{uuid.uuid4().hex[:8]}", self.model, slot, Need(kind, size))

    def failing_order(self) -> Order:
        return msgspec.structs.replace(self.order(), model="no-such-model")

    def crash(self, worker: str) -> None:
        docker("kill", "--signal", "KILL", self.container(worker))

    def hang(self, worker: str) -> None:
        docker("kill", "--signal", "STOP", self.container(worker))

    def processes(self) -> int:
        return len(docker("ps", "--quiet", *self._ours("headrace.worker")).splitlines())

    def container(self, worker: str) -> str:
        """Id of a worker's container."""
        return docker("ps", "--all", "--quiet", *self._ours(f"headrace.worker={worker}"))

    def log(self, worker: str) -> str:
        """What it has printed, once it has."""
        until = time.monotonic() + 60
        while not (said := docker("logs", self.container(worker))) and time.monotonic() < until:
            time.sleep(0.02)
        return said

    def signals(self, worker: str) -> int:
        """How often the Engine has sent it SIGTERM."""
        wanted = ("--filter", f"container={self.container(worker)}", "--filter", "event=kill")
        said = docker("events", "--since", "10m", "--until", "0s", *wanted, "--format", "{{.Actor.Attributes.signal}}")
        return said.split().count("15")

    def clear(self) -> None:
        """Remove every container of the project."""
        if found := docker("ps", "--all", "--quiet", *self._ours()).split():
            docker("rm", "--force", *found)

    def _ours(self, *labels: str) -> list[str]:
        wanted = (f"com.docker.compose.project={self.project}", *labels)
        return [part for label in wanted for part in ("--filter", f"label={label}")]


def _image() -> bytes:
    """A root of this machine's own shell and `sleep`, with the libraries they are linked to."""
    files = {"worker": STAND_IN.encode()}
    for program in ("sh", "sleep"):
        path = Path(shutil.which(program) or "")
        files[f"bin/{program}"] = path.read_bytes()
        for word in subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout.split():
            if word.startswith("/"):
                files[word.lstrip("/")] = Path(word).read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
