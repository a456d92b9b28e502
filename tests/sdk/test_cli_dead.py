"""`headrace dead`: what an operator sees and does, as a real command."""

import itertools
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from command_line import Headrace

from headrace_contracts.settings import Settings
from headrace_storage.connection import Connection
from headrace_storage.dead import bury, count_letters, remove_letters

pytestmark = pytest.mark.slow

SECRET = b'{"input":{"prompt":"a secret star"}}'
_sequence = itertools.count(1)


@pytest_asyncio.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    async with Connection(settings.nats) as connection:
        await remove_letters(connection)
        yield connection


async def kill(connection: Connection, job_id: str, model: str = "draw", data: bytes = SECRET, **headers: str) -> None:
    await bury(
        connection,
        "default",
        model,
        job_id,
        original_subject=f"jobs.default.{model}.normal",
        headers={"Content-Type": "application/json", **headers},
        data=data,
        reason="engine crashed: out of luck",
        sequence=next(_sequence),
    )


async def test_listing(headrace_command: Headrace, connection: Connection) -> None:
    empty = await (await headrace_command("dead", "ls")).end()
    assert (empty.code, empty.out, empty.err) == (0, "", "there are no dead letters\n")
    for number in range(3):
        await kill(connection, f"j{number}", "draw" if number else "echo")
    listed = await (await headrace_command("dead", "ls", "--limit", "2")).end()
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert rows[0] == ["AGE", "TENANT", "MODEL", "ID", "REASON", "SIZE"]
    assert [row[1:] for row in rows[1:]] == [
        ["default", "draw", job_id, "engine crashed: out of luck", f"{len(SECRET)} bytes"] for job_id in ("j2", "j1")
    ]
    assert "2 of 3" in listed.err
    of_echo = await (await headrace_command("dead", "ls", "--model", "echo", "--json")).end()
    assert [letter["id"] for letter in msgspec.json.decode(of_echo.out)] == ["j0"]


async def test_showing_keeps_the_prompt_back_until_it_is_asked_for(
    headrace_command: Headrace, connection: Connection
) -> None:
    headers = {
        "Headrace-Reason": "engine crashed",
        "Headrace-Subject": "jobs.default.draw.high",
        "Headrace-Last-Lines": "Traceback | MemoryError",
        "Content-Type": "application/json",
    }
    await connection.js.publish("dead.default.draw.a", SECRET, headers=headers)
    shown = await (await headrace_command("dead", "show", "a")).end()
    assert shown.code == 0
    for said in (
        "reason     engine crashed",
        "published  jobs.default.draw.high",
        "header     Content-Type: application/json",
        "engine     Traceback",
        "engine     MemoryError",
        "result     none",
        "--body prints it",
    ):
        assert said in shown.out
    assert "secret" not in shown.out
    as_json = await (await headrace_command("dead", "show", "a", "--json")).end()
    [letter] = msgspec.json.decode(as_json.out)
    assert letter["last_lines"] == ["Traceback", "MemoryError"]
    assert "body_base64" not in letter
    with_body = await (await headrace_command("dead", "show", "a", "--body")).end()
    assert "a secret star" in with_body.out


async def test_redriving_one(headrace_command: Headrace, connection: Connection) -> None:
    await kill(connection, "b")
    done = await (await headrace_command("dead", "redrive", "b")).end()
    assert done.code == 0, done.err
    assert done.out.startswith("b runs again as b-r")
    assert await count_letters(connection) == 0
    again = await (await headrace_command("dead", "redrive", "b")).end()
    assert again.code == 2
    assert "error: there is no dead letter of a job 'b': `headrace dead ls`" in again.err


async def test_redriving_all_of_a_model_oldest_first(headrace_command: Headrace, connection: Connection) -> None:
    for job_id in ("c1", "c2"):
        await kill(connection, job_id)
    await kill(connection, "c3", "echo")
    done = await (await headrace_command("dead", "redrive", "--all", "--model", "draw")).end()
    assert [line.split()[0] for line in done.out.splitlines()] == ["c1", "c2"]
    assert await count_letters(connection) == 1


async def test_redriving_what_will_die_again_warns(headrace_command: Headrace, connection: Connection) -> None:
    await kill(connection, "d1", data=b"\xff")
    await kill(connection, "d2", "gone")
    undecodable = await (await headrace_command("dead", "redrive", "d1")).end()
    unknown = await (await headrace_command("dead", "redrive", "d2")).end()
    assert (undecodable.code, unknown.code) == (0, 0)
    assert "warning: d1 will probably die again: " in undecodable.err
    assert "warning: d2 will probably die again: model 'gone' is not in the registry" in unknown.err


async def test_one_letter_that_cannot_be_redriven_does_not_stop_the_others(
    headrace_command: Headrace, connection: Connection
) -> None:
    await connection.js.publish("dead.default.draw.e1", b"", headers={"Headrace-Left-Out-Bytes": "8388000"})
    await kill(connection, "e2")
    done = await (await headrace_command("dead", "redrive", "--all", "--model", "draw")).end()
    assert done.code == 1
    assert "error: dead letter e1 cannot be redriven: its body of 8388000 bytes was not kept" in done.err
    assert "e2 runs again" in done.out


async def test_dropping_asks_first(headrace_command: Headrace, connection: Connection) -> None:
    for job_id in ("f1", "f2", "f3"):
        await kill(connection, job_id)
    refused = await (await headrace_command("dead", "drop", "f1", stdin=b"n\n")).end()
    assert (refused.code, refused.err) == (1, "nothing was removed\n")
    assert await count_letters(connection) == 3
    dropped = await (await headrace_command("dead", "drop", "f1", stdin=b"y\n")).end()
    assert dropped.code == 0
    assert "Remove 1 dead letter for good?" in dropped.out
    all_ = await (await headrace_command("dead", "drop", "--all", "--yes")).end()
    assert (all_.code, all_.out) == (0, "removed 2\n")
    assert await count_letters(connection) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nobody"], "error: there is no dead letter of a job 'nobody'"),
        (["drop", "nobody", "--yes"], "error: there is no dead letter of a job 'nobody'"),
        (["show", "a.b"], "error: job id 'a.b' is not valid"),
        (["ls", "--model", "a.b"], "error: model 'a.b' is not valid"),
        (["ls", "--tenant", ">"], "error: tenant '>' is not valid"),
        (["redrive"], "name one job id, or --all"),
        (["drop", "x", "--all"], "name one job id, or --all"),
        (["redrive", "--all"], "--all needs --model"),
    ],
)
async def test_wrong_requests(
    headrace_command: Headrace, connection: Connection, arguments: list[str], said: str
) -> None:
    ended = await (await headrace_command("dead", *arguments)).end()
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert said in ended.err
