"""What is asked of a Docker Engine. Every question has a deadline, every refusal is a sentence that says what to do."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from typing import Self

import aiohttp
from aiodocker import Docker, DockerError

from headrace_scaler.launchers.docker.container import MODEL, PROJECT, WORKER, Json
from headrace_scaler.launchers.port import LaunchError

# The Engine answers within milliseconds; with a full disk or a frozen containerd it may not answer at all.
ANSWER_DEADLINE_S = 10.0
_ONE_OFF = "com.docker.compose.oneoff"
# Room for the log of a crash.
_LAST_LINES = 200
_NOT_FOUND, _CONFLICT = 404, 409
# The client's own, for a socket that nobody answers.
_NO_CONNECTION = 900


class NameTakenError(Exception):
    """There is a container of this name."""


class Engine:
    """The containers of one compose project on one Engine, found by DOCKER_HOST or the usual socket.

    Args:
        deadline_s: of one answer.
    """

    def __init__(self, deadline_s: float = ANSWER_DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._docker: Docker | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._docker is not None:
            await self._docker.close()

    async def cores(self) -> int:
        """Cores of the machine that the Engine is on."""
        async with self._asked() as docker:
            return int((await docker.system.info())["NCPU"])

    async def project_of(self, container: str) -> str | None:
        """The compose project of a container; None if it is none, or of no project."""
        with contextlib.suppress(KeyError):
            found = await self.inspect(container)
            return None if found is None else str(found["Config"]["Labels"][PROJECT])
        return None

    async def inspect(self, container: str) -> Json | None:
        """All that is known of a container; None if it is not there."""
        async with self._asked() as docker:
            try:
                return dict(await docker.containers.container(container).show())
            except DockerError as error:
                if error.status == _NOT_FOUND:
                    return None
                raise

    async def workers(self, project: str) -> list[Json]:
        """Containers of workers, as listed: `Id`, `Names`, `Labels`, `State`."""
        return await self._listed([f"{PROJECT}={project}", WORKER])

    async def template(self, project: str, model: str) -> Json:
        """The container that a model's workers are made after.

        Raises:
            LaunchError: there is none.
        """
        listed = await self._listed([f"{PROJECT}={project}", f"{MODEL}={model}"])
        for one in listed:
            # Those of `docker compose run` have the label too, and what their command line changed.
            copied = WORKER in one["Labels"] or one["Labels"].get(_ONE_OFF) == "True"
            if not copied and (found := await self.inspect(one["Id"])) is not None:
                return found
        raise LaunchError(
            f"the compose project {project} has no service for model {model}: add one with the label "
            f"`{MODEL}: {model}` to its file, and run `docker compose up`"
        )

    async def create(self, name: str, container: Json) -> str:
        """Make a container; its id.

        Raises:
            NameTakenError: there is one of this name.
        """
        async with self._asked() as docker:
            try:
                made = await docker.containers.create(container, name=name)
            except DockerError as error:
                if error.status == _CONFLICT:
                    raise NameTakenError(name) from error
                raise
            return str(made.id)

    async def connect(self, container: str, network: str) -> None:
        """Put a container on one more network."""
        async with self._asked() as docker:
            await (await docker.networks.get(network)).connect({"Container": container})

    async def start(self, container: str) -> None:
        """Start it; if it runs already, nothing."""
        async with self._asked() as docker:
            await docker.containers.container(container).start()

    async def rename(self, container: str, name: str) -> None:
        """Give it another name."""
        async with self._asked(over=True) as docker:
            await docker.containers.container(container).rename(name)

    async def stop(self, container: str, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after a grace, which the Engine keeps by itself, also if nobody waits for the answer."""
        async with self._asked(grace_s, over=True) as docker:
            # It takes whole seconds.
            await docker.containers.container(container).stop(t=math.ceil(grace_s), timeout=None)

    async def terminate(self, container: str) -> None:
        """SIGTERM, and nothing more."""
        async with self._asked(over=True) as docker:
            await docker.containers.container(container).kill(signal="SIGTERM")

    async def remove(self, container: str) -> None:
        """Remove one that does not run."""
        async with self._asked(over=True) as docker:
            await docker.containers.container(container).delete(v=True)

    async def last_lines(self, container: str) -> str:
        """The end of its log; empty if it is not there."""
        lines: list[str] = []
        async with self._asked(over=True) as docker:
            lines = await docker.containers.container(container).log(stdout=True, stderr=True, tail=_LAST_LINES)
        return "".join(lines)

    async def _listed(self, labels: list[str]) -> list[Json]:
        async with self._asked() as docker:
            found = await docker.containers.list(all=True, filters={"label": labels})
            return [dict(one._container) for one in found]

    @contextlib.asynccontextmanager
    async def _asked(self, more_s: float = 0.0, *, over: bool = False) -> AsyncIterator[Docker]:
        """The client, for one question.

        Args:
            more_s: what the answer may take beyond the deadline of any.
            over: no refusal if it is so already, as for a container that is gone.

        Raises:
            LaunchError: no answer, or a refusal.
        """
        deadline_s = self._deadline_s + more_s
        try:
            async with asyncio.timeout(deadline_s):
                yield self._client()
        except DockerError as error:
            if error.status == _NO_CONNECTION:
                raise LaunchError(_unreachable(error.message)) from error
            if not (over and _over(error)):
                raise LaunchError(_sentence(error)) from error
        # Before OSError, which it is one of.
        except TimeoutError as error:
            raise LaunchError(
                f"the Docker Engine has not answered within {deadline_s:g} s: restart it, if `docker ps` hangs too"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise LaunchError(_unreachable(str(error))) from error

    def _client(self) -> Docker:
        if self._docker is None:
            try:
                self._docker = Docker()
            except AssertionError as error:  # the client's way to say so
                raise LaunchError(_unreachable("there is no socket /var/run/docker.sock")) from error
        return self._docker


def _over(error: DockerError) -> bool:
    """Whether what was asked for is so already: a container that is gone, or about to be, or does not run."""
    said = ("No such container", "is not running", "is already in progress", "marked for removal")
    return error.status in (_NOT_FOUND, _CONFLICT) and any(words in error.message for words in said)


def _sentence(error: DockerError) -> str:
    message = " ".join(error.message.split())
    for part, advice in _ADVICE.items():
        if part in message:
            return f"the Docker Engine refuses: {message}: {advice}"
    return f"the Docker Engine refuses: {message}"


_ADVICE: Mapping[str, str] = {
    "could not select device driver": "install the NVIDIA Container Toolkit, or leave the gpu overlay out",
    "No such image": "build it again (docker compose build), then docker compose up",
    "no space left": "make room on its disk (docker system prune)",
}


def _unreachable(message: str) -> str:
    if "ermission denied" in message:
        return "the Docker Engine's socket may not be used: run the scaler with the group of /var/run/docker.sock"
    return f"the Docker Engine does not answer ({message}): start it, or point DOCKER_HOST at it"
