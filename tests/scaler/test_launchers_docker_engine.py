"""An Engine that is not there, not ours to use, silent, or away for a while; and its client, not installed."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiodocker.docker
import pytest
from launchers_docker import DockerPlace, missing

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import SettingsError
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.cli import _docker
from headrace_scaler.launchers.docker.engine import Engine
from headrace_scaler.launchers.docker.launcher import DockerLauncher
from headrace_scaler.launchers.port import LaunchError

NOT_ROOT = 65534


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Engine is looked for."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/e.sock")
    return tmp_path / "e.sock"


@contextlib.asynccontextmanager
async def passed_on(socket: Path, engine: str) -> AsyncIterator[None]:
    """Connections to a socket go on to the Engine's; as if it were restarted, they break at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_unix_connection(engine)
        writers.extend((writer, other_writer))
        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))

    async with await asyncio.start_unix_server(connect, socket):
        yield
        for writer in writers:
            writer.transport.abort()
    socket.unlink()


async def test_an_engine_that_is_not_there_is_one_sentence(socket: Path) -> None:
    launcher = DockerLauncher(ScalerSettings(gpus=False), {"COMPOSE_PROJECT_NAME": "p"}, SystemClock())
    async with launcher:
        with pytest.raises(
            LaunchError, match=r"the Docker Engine does not answer .*: start it, or point DOCKER_HOST at it"
        ):
            await launcher.running()


async def test_a_machine_without_any_engine_is_the_same_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(aiodocker.docker, "_sock_search_paths", [])
    async with Engine() as engine:
        with pytest.raises(LaunchError, match=r"no socket .*: start it, or point DOCKER_HOST at it"):
            await engine.cores()


async def test_an_engine_that_is_silent_is_given_up(socket: Path) -> None:
    held: list[asyncio.StreamWriter] = []

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_unix_server(hang, socket), Engine(deadline_s=0.2) as engine:
        with pytest.raises(LaunchError, match=r"has not answered within 0\.2 s"):
            await engine.workers("p")
        for writer in held:
            writer.transport.abort()


async def test_a_socket_that_is_not_ours_to_use_says_which_group_may(socket: Path) -> None:
    async with await asyncio.start_unix_server(lambda *_: None, socket):
        socket.chmod(0)
        with somebody_else():
            async with Engine() as engine:
                with pytest.raises(LaunchError, match=r"run the scaler with the group of /var/run/docker\.sock"):
                    await engine.workers("p")


@pytest.mark.docker
@pytest.mark.slow
async def test_of_a_container_that_is_gone_there_is_nothing_left_to_end_and_nothing_to_start() -> None:
    if why := missing():
        pytest.skip(f"NOT TESTED: {why}: nothing shows what an Engine says of containers that are gone")
    async with Engine() as engine:
        assert await engine.last_lines("nowhere") == ""
        await engine.rename("nowhere", "anywhere")
        await engine.terminate("nowhere")
        await engine.stop("nowhere", 1.0)
        await engine.remove("nowhere")
        with pytest.raises(LaunchError, match="No such container: nowhere"):
            await engine.start("nowhere")


@pytest.mark.docker
@pytest.mark.slow
async def test_an_engine_that_was_away_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := missing():
        pytest.skip(f"NOT TESTED: {why}: nothing shows that a scaler goes on after a restart of the Engine")
    socket, own = tmp_path / "e.sock", os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    place = DockerPlace()
    try:
        async with place.launcher() as launcher:
            with monkeypatch.context() as there:
                there.setenv("DOCKER_HOST", f"unix://{socket}")
                async with passed_on(socket, own.removeprefix("unix://")):
                    await launcher.start(order := place.order())
            with pytest.raises(LaunchError, match="the Docker Engine does not answer"):
                await launcher.running()
            async with passed_on(socket, own.removeprefix("unix://")):
                assert [(each.worker, each.ended) for each in await launcher.running()] == [(order.worker, None)]
    finally:
        place.clear()


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("headrace_scaler.launchers.docker")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiodocker", None)
    with pytest.raises(SettingsError, match=r"pip install 'headrace\[docker\]'"):
        _docker(ScalerSettings(), SystemClock())


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Root may open any socket."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOT_ROOT)
    try:
        yield
    finally:
        os.seteuid(0)
