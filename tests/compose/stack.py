"""The compose stack under test: built from a copy of the clone, up under a name and ports of its own, then gone."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.client import CommandFailed, Docker

from headrace_contracts.settings import Settings, load_settings

Seen = TypeVar("Seen")

REPOSITORY = Path(__file__).parents[2]
BUILD_DEADLINE_S = 1500.0
UP_DEADLINE_S = 300.0
DOWN_DEADLINE_S = 120.0
LOOK_EVERY_S = 0.2
# Names of its own, so that a build of the test is never taken for a release.
IMAGES = {"HEADRACE_IMAGE": "headrace/control:test", "HEADRACE_WORKER_IMAGE": "headrace/worker:test"}
PORTS = ("NATS_PORT", "NATS_MONITOR_PORT", "S3_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")


class Stack:
    """One project of Compose on one Engine. `up` starts it, `down` removes it with its volumes."""

    def __init__(self, docker: Docker, clone: Path, *overlays: str) -> None:
        self.docker = docker
        self.project = f"headrace-test-{secrets.token_hex(3)}"
        self.folder = clone / "compose"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._files = [f"{name}.yml" for name in ("docker-compose", *overlays)]
        self._left_out: set[str] = set()
        self._environment_file = clone.parent / f"{self.project}.env"
        settings: dict[str, object] = {**self.ports, **IMAGES}
        if docker.host.startswith("unix://"):
            settings["DOCKER_SOCKET"] = docker.host.removeprefix("unix://")
        self._environment_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def compose(self, *words: str, given: bytes | None = None, timeout_s: float = 120.0) -> str:
        """What `docker compose WORDS` printed, `given` on its input.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self.compose_bytes(*words, given=given, timeout_s=timeout_s).decode()

    def compose_bytes(self, *words: str, given: bytes | None = None, timeout_s: float = 120.0) -> bytes:
        """As `compose`, for what is no text."""
        program = str(Path(sys.executable).with_name("docker-compose"))
        files = [word for name in self._files for word in ("--file", name)]
        command = [program, "--project-name", self.project, "--env-file", str(self._environment_file), *files, *words]
        ran = subprocess.run(
            command, cwd=self.folder, env=self._environment, input=given, capture_output=True, timeout=timeout_s
        )
        if ran.returncode != 0:
            last = "\n".join((ran.stdout + ran.stderr).decode(errors="replace").splitlines()[-40:])
            raise CommandFailed(f"docker compose {' '.join(words)} ended with {ran.returncode}:\n{last}")
        return ran.stdout

    @property
    def _environment(self) -> dict[str, str]:
        """Without what a person has set for a stack of their own."""
        ours = ("COMPOSE_", "HEADRACE_", "NATS_", "S3_", "AWS_", "OTEL_", "DOCKER_SOCKET", *PORTS)
        return {name: value for name, value in self.docker.environment.items() if not name.startswith(ours)}

    def config(self) -> Any:
        """The services as Compose reads them, all profiles included."""
        return json.loads(self.compose("--profile", "*", "config", "--format", "json"))

    def services(self) -> list[str]:
        """Those that `up` starts here."""
        every = self.compose("config", "--services").split()
        return [name for name in every if name not in self._left_out]

    def leave_out(self, services: set[str]) -> None:
        """Do not start these: their images cannot be had."""
        self._left_out |= services

    def up(self) -> None:
        """Start it and wait until it is healthy; on failure the message has the log of what failed."""
        try:
            self.compose("up", "--detach", "--wait", "--no-build", *self.services(), timeout_s=UP_DEADLINE_S)
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            states = self.compose("ps", "--all")
            raise AssertionError(f"{error}\n{states}\n{self.compose('logs', '--tail', '15', '--no-color')}") from error

    def client(self, role: str = "client") -> Settings:
        """Settings of a program on this machine: `client` is a producer, `client/admin` may all."""
        folder = self.folder.parent.parent / f"{self.project}-client"
        if not folder.exists():
            self.compose("cp", "setup:/credentials/client", str(folder))
        path = folder / role.removeprefix("client").strip("/") / "headrace.toml"
        return load_settings({"HEADRACE_CONFIG": str(path)})

    def down(self) -> None:
        """Remove its containers, networks and volumes. Twice is fine."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", timeout_s=DOWN_DEADLINE_S)

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes of the project that are there."""
        label = f"label=com.docker.compose.project={self.project}"
        listings = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [name for words in listings for name in self.docker(*words, "--quiet", "--filter", label).split()]

    def container(self, service: str) -> str:
        """Id of the service's container."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def workers(self, model: str | None = None) -> list[str]:
        """Ids of the worker containers that run, of one model or of all."""
        filters = [
            f"label=com.docker.compose.project={self.project}",
            "label=headrace.worker",
            *([f"label=headrace.model={model}"] if model else []),
        ]
        words = [word for rule in filters for word in ("--filter", rule)]
        return self.docker("ps", "--quiet", "--no-trunc", *words).split()

    def inspect(self, container: str) -> Any:
        """All that the Engine says of a container."""
        return json.loads(self.docker("inspect", container))[0]

    def crash(self, container: str) -> None:
        """End its first process as a crash would, so that its restart policy applies.

        `docker kill` counts as a wish of the operator, who has to start it again: only where the process is not
        ours to see, as with an Engine on another machine, it is killed and started so.
        """
        state = self.inspect(container)
        cgroup = Path(f"/proc/{state['State']['Pid']}/cgroup")
        if os.geteuid() == 0 and cgroup.exists() and state["Id"] in cgroup.read_text():
            os.kill(state["State"]["Pid"], signal.SIGKILL)
            return
        self.docker("kill", container)
        if state["HostConfig"]["RestartPolicy"]["Name"] != "no":
            self.docker("start", container)

    def prometheus(self, path: str) -> Any:
        """`data` of an answer of Prometheus' API, as at `targets`."""
        url = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def logs(self, service: str) -> str:
        """The last lines of a service, for messages of tests that fail."""
        return self.compose("logs", "--tail", "30", "--no-color", service)


def backlog_fires(stack: Stack, model: str) -> bool:
    """Whether Prometheus has read the backlog alert from the scaler."""
    query = f"query?query=headrace_alert_firing%7Bmodel%3D%22{model}%22%2Calert%3D%22backlog%22%7D"
    return any(sample["value"][1] == "1" for sample in stack.prometheus(query)["result"])


def rule_fires(stack: Stack, model: str) -> bool:
    """Whether the backlog rule in compose/prometheus does, and would wake somebody."""
    firing = (alert["labels"] for alert in stack.prometheus("alerts")["alerts"] if alert["state"] == "firing")
    return ("HeadraceBacklog", model) in {(labels["alertname"], labels.get("model")) for labels in firing}


def is_back(stack: Stack, container: str, started_at: str) -> bool:
    """Whether a container was started again, and is healthy."""
    state = stack.inspect(container)["State"]
    return state["StartedAt"] != started_at and state["Health"]["Status"] == "healthy"


def say(text: str) -> None:
    """Progress: the stack takes minutes."""
    print(f"  compose: {text}", flush=True)


Start = Callable[..., Stack]
"""Brings a stack up with the overlays that it is called with."""


class Step:
    """A step that is told with its seconds."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        say(f"{self._what}: {'failed after ' if kind else ''}{time.monotonic() - self._began:.1f} s")


async def until(what: str, look: Callable[[], Seen], deadline_s: float) -> Seen:
    """What `look` gave when it first was true; it is called in a thread, again and again: only asking tells.

    Raises:
        AssertionError: it was not true in time; the message has what it last gave.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        seen = await asyncio.to_thread(look)
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}; last: {seen!r}"
        await asyncio.sleep(LOOK_EVERY_S)


def clone(to: Path) -> Path:
    """A copy of all files that git knows or would take: a build that needs any other file fails."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return to


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
