"""`headrace doctor` as a command: its table, its JSON and its exit codes. What it finds is in tests/storage."""

from pathlib import Path

import msgspec
import pytest
from command_line import Headrace

from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology

pytestmark = pytest.mark.slow


async def set_up(server: NatsServer) -> dict[str, str]:
    async with Connection(NatsSettings(url=server.url)) as connection:
        await ensure_topology(connection)
    return {"NATS_URL": server.url, "NATS_MONITOR_URL": server.monitor_url}


async def test_a_healthy_broker_is_exit_code_0(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        environment = await set_up(server)
        table = await (await headrace_command("doctor", **environment)).end()
        as_json = await (await headrace_command("doctor", "--json", **environment)).end()
    assert (table.code, as_json.code) == (0, 0), table.out
    rows = [line.split("\t") for line in table.out.splitlines()]
    assert rows[0] == ["CHECK", "STATE", "FOUND", "WHAT TO DO"]
    assert ["sync_interval", "ok", "always", ""] in rows
    found = msgspec.json.decode(as_json.out)
    assert {row["level"] for row in found} == {"ok"}
    assert set(found[0]) == {"check", "level", "found", "advice"}


async def test_an_unsafe_broker_is_exit_code_1(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        ended = await (await headrace_command("doctor", **await set_up(server))).end()
    assert ended.code == 1
    [failing] = [line for line in ended.out.splitlines() if "\tFAIL\t" in line]
    assert failing.startswith("sync_interval\tFAIL\tnot `always`")


async def test_what_is_unknown_does_not_fail(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        environment = {**await set_up(server), "NATS_MONITOR_URL": ""}
        ended = await (await headrace_command("doctor", **environment)).end()
    assert ended.code == 0
    assert "sync_interval\tunknown\t" in ended.out


async def test_no_broker_is_exit_code_3(headrace_command: Headrace) -> None:
    ended = await (await headrace_command("doctor", NATS_URL="nats://127.0.0.1:1")).end()
    assert (ended.code, ended.out) == (3, "")
    assert "error: no NATS server with JetStream at nats://127.0.0.1:1" in ended.err


async def test_a_wrong_monitoring_url_is_one_sentence(headrace_command: Headrace) -> None:
    ended = await (await headrace_command("doctor", NATS_MONITOR_URL="localhost:8222")).end()
    assert ended.code == 2
    assert "`monitor_url` is 'localhost:8222' and must look like http://host:8222" in ended.err
