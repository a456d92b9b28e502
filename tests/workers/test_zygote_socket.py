"""The zygote's socket: who may ask, what is refused, and that nothing is left open."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio
from lives import until_ended
from rig import DEADLINE_S
from zygotes import zygote_of

from headrace_contracts.zygote import AskMemory, Forked, ForkWorker, Go
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_workers.zygote.forked import ForkedProcess, ZygoteUnavailable, fork_engine

pytestmark = pytest.mark.slow

FORKS = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ZygoteProcess]:
    async with zygote_of(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


def connect(zygote: ZygoteProcess) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(DEADLINE_S)
    connection.connect(str(zygote.path))
    return connection


async def fork(zygote: ZygoteProcess) -> tuple[ForkedProcess, int]:
    """An engine process that waits for its first frame, and the end of the pipe it would come by."""
    theirs_in, ours = os.pipe()
    silence = os.open(os.devnull, os.O_RDWR)
    try:
        return await fork_engine(str(zygote.path), dict(os.environ), (theirs_in, silence, silence)), ours
    finally:
        os.close(theirs_in)
        os.close(silence)


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        msgspec.msgpack.encode({"type": "fork_engine", "environment": {}}),
        msgspec.msgpack.encode(ForkWorker((), {}, "/", "")),
        msgspec.msgpack.encode(Go()),
        os.urandom(60_000),
    ],
    ids=["no-messagepack", "http", "engine-without-pipes", "worker-without-log", "go-to-nobody", "noise"],
)
async def test_what_is_no_request_closes_its_connection_and_nothing_else(zygote: ZygoteProcess, packet: bytes) -> None:
    with connect(zygote) as connection:
        connection.send(packet)
        assert await asyncio.to_thread(connection.recv, 100) == b""
    assert await zygote.memory() is not None


async def test_another_user_is_refused(zygote: ZygoteProcess) -> None:
    assert zygote.path.stat().st_mode & 0o777 == 0o600
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    script = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])\n"
        "s.send(bytes.fromhex(sys.argv[2])); print(len(s.recv(1000)))"
    )
    # The file's mode alone would keep it out: open the way to it, so that the zygote itself has to refuse.
    zygote.path.chmod(0o666)
    zygote.path.parent.chmod(0o755)
    try:
        ask = msgspec.msgpack.encode(AskMemory()).hex()
        ran = subprocess.run(
            [sys.executable, "-S", "-c", script, str(zygote.path), ask], capture_output=True, text=True, cwd="/"
        )
    finally:
        zygote.path.chmod(0o600)
        zygote.path.parent.chmod(0o700)
    assert ran.stdout.strip() == "0" or "ConnectionResetError" in ran.stderr or "BrokenPipe" in ran.stderr, ran.stderr
    assert (await zygote.memory()) is not None


async def test_fifty_forks_leave_nothing_open(zygote: ZygoteProcess) -> None:
    process, ours = psutil.Process(zygote.pid), psutil.Process()
    zygote_before, ours_before = process.num_fds(), ours.num_fds()
    seen = set()
    for _ in range(FORKS):
        child, pipe = await fork(zygote)
        seen.add(child.pid)
        os.close(pipe)
        async with asyncio.timeout(DEADLINE_S):
            assert await child.wait() == 0, "it ends when its pipe does"
    assert len(seen) == FORKS
    async with asyncio.timeout(DEADLINE_S):
        # Fewer is no leak: what tests before this one left to the collector goes away meanwhile.
        while process.num_fds() > zygote_before or ours.num_fds() > ours_before or process.children():
            await asyncio.sleep(0.01)
    assert process.num_threads() == 1


async def test_a_signal_reaches_the_process_and_its_number_comes_back(zygote: ZygoteProcess) -> None:
    child, pipe = await fork(zygote)
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE_S):
        assert await child.wait() == -signal.SIGTERM
    child.send_signal(signal.SIGTERM)
    os.close(pipe)


async def test_a_worker_of_which_nobody_has_heard_ends_at_once(zygote: ZygoteProcess, tmp_path: Path) -> None:
    ask = ForkWorker(("--model", "m"), dict(os.environ), str(tmp_path), str(tmp_path / "status"))
    with connect(zygote) as connection, (tmp_path / "log").open("wb") as log:
        socket.send_fds(connection, [msgspec.msgpack.encode(ask)], [log.fileno()])
        forked = msgspec.msgpack.decode(await asyncio.to_thread(connection.recv, 1000), type=Forked)
    await until_ended(forked.pid)
    assert (tmp_path / "log").read_bytes() == b""


async def test_a_zygote_says_what_it_costs(zygote: ZygoteProcess) -> None:
    use = await zygote.memory()
    assert use is not None
    assert use.libraries == ("synthetic",)
    assert 0 < use.pss_bytes <= use.rss_bytes


async def test_without_a_zygote_there_is_no_waiting(tmp_path: Path) -> None:
    with pytest.raises(ZygoteUnavailable):
        await fork_engine(str(tmp_path / "none"), {}, (0, 1, 2))


async def test_a_zygote_ends_with_its_starter_and_its_socket_with_it(tmp_path: Path) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace_workers.zygote", "--engine", "synthetic", "--die-with-starter"),
        *("--socket", str(tmp_path / "s")),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert starter.stdin is not None
    async with asyncio.timeout(DEADLINE_S):
        while not (tmp_path / "s").exists():
            await asyncio.sleep(0.02)
        starter.stdin.close()
        assert await starter.wait() == 0
    assert not (tmp_path / "s").exists()


async def test_a_signal_that_comes_right_after_the_fork_is_not_lost(zygote: ZygoteProcess) -> None:
    for _ in range(FORKS):
        child, pipe = await fork(zygote)
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            assert await child.wait() == -signal.SIGTERM
        os.close(pipe)
    assert await zygote.memory() is not None
