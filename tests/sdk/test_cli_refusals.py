"""Whatever is typed wrong or missing is one sentence and an exit code, never a traceback (`Command.end` insists)."""

import asyncio
from pathlib import Path

import pytest
from command_line import Headrace
from staged_worker import ECHO

from headrace.cli.failures import exit_code_of
from headrace_contracts.errors import BrokerStorageFailing
from headrace_contracts.settings import NatsSettings
from headrace_local.nats_server import NatsServer
from headrace_storage.connection import Connection
from headrace_storage.registry import add_model
from headrace_storage.topology import StorageLimits, ensure_topology

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "drew", "prompt=star"], "error: unknown model 'drew'; the registry has draw, echo, hear, write"),
        (["run", "drew", "prompt=star"], "did you mean 'draw'?"),
        (["run", "a.b", "prompt=star"], "error: unknown model 'a.b'"),
        (["run", "draw"], "error: input.prompt: is required"),
        (["run", "draw", "prompt"], "'prompt' is not key=value"),
        (["run", "draw", "=star"], "'=star' is not key=value"),
        (["run", "draw", "prompt=a", "prompt=b"], "prompt is given twice"),
        (["run", "draw", "prompt=star", "stepz=3"], "input.stepz: is not a field of this task's input, which takes"),
        (["run", "draw", "prompt=star", "stepz=3"], "did you mean 'steps'?"),
        (["run", "draw", "prompt=star", "steps=three"], "input.steps: 'three' is not a whole number"),
        (["run", "draw", "prompt=star", "steps=3.5"], "input.steps: '3.5' is not a whole number"),
        (["run", "draw", "prompt=star", "steps=51"], "input.steps: 51 is over this model's limit of 50"),
        (["run", "draw", "prompt=star", "guidance_scale=much"], "input.guidance_scale: 'much' is not a number"),
        (["run", "draw", "prompt=star", "format=gif"], "input.format: Invalid enum value 'gif'"),
        (["run", "draw", "prompt=@/nowhere"], "input.prompt: cannot read /nowhere: No such file or directory"),
        (["run", "draw", "prompt=@/usr/bin/env"], "input.prompt: its text is not UTF-8"),
        (["run", "hear", "audio=@/nowhere.wav"], "input.audio: cannot read /nowhere.wav: No such file or directory"),
        (["run", "hear", "audio=https://example.com/a.wav"], "input.audio: is a file: write audio=@PATH (URLs are not"),
        (["run", "hear", "audio=-", "initial_prompt=-"], "audio and initial_prompt cannot both read standard input"),
        (["run", "hear", "audio=@/etc/hostname", "vad_filter=perhaps"], "input.vad_filter: 'perhaps' is not true or"),
        (["run", "write", "messages=[{]"], "input.messages: '[{]' is not JSON"),
        (["run", "draw", "prompt=star", "--id", "a.b"], "error: job id 'a.b' is not valid"),
        (["run", "draw", "prompt=star", "--id", "a b"], "error: job id 'a b' is not valid"),
        (["run", "draw", "prompt=star", "--lane", "fast"], "'fast' is not one of"),
        (["run", "draw", "prompt=star", "--timeout-s", "-1"], "-1.0 is not in the range"),
        (["run", "draw", "prompt=star", "--timeout-s", "1e9"], "`timeout_s` is 1e+09 and must be over 0"),
        (["run", "draw", "prompt=star", "--ttl-s", "soon"], "'soon' is not a valid float"),
        (["submit", "draw", "prompt=star", "--id", "x", "--repeat", "2"], "--id names one job"),
        (["result", "nobody"], "error: there is no trace of a job 'nobody'"),
        (["result", "a.b"], "error: job id 'a.b' is not valid"),
        (["status", "nobody"], "error: there is no trace of a job 'nobody'"),
        (["watch", "nobody"], "error: there is no trace of a job 'nobody'"),
        (["cancel", "nobody"], "error: there is no trace of a job 'nobody'"),
        (["cancel", "nobody", "--model", "draw"], "error: there is no trace of a job 'nobody'"),
        (["result", "nobody", "--model", "drew"], "error: unknown model 'drew'"),
        (["models", "show", "drew"], "did you mean 'draw'?"),
        (["models", "rm", "drew"], "error: unknown model 'drew'"),
        (["models", "add", "/nowhere.toml"], "error: /nowhere.toml: No such file or directory"),
        (["models", "add", "/etc/hostname"], "error: /etc/hostname:"),
        (["models", "add"], "Missing argument"),
        (["dance"], "No such command 'dance'"),
    ],
)
async def test_a_wrong_request_is_exit_code_2(headrace_command: Headrace, arguments: list[str], said: str) -> None:
    ended = await (await headrace_command(*arguments, stdin=b"RIFF")).end()
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert said in ended.err


async def test_a_text_of_100_mb_is_refused(headrace_command: Headrace, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_bytes(b"x" * 100_000_000)
    ended = await (await headrace_command("run", "draw", f"prompt=@{text}")).end()
    assert ended.code == 2
    assert "input.prompt: 100000000 characters is over this model's limit of 200 characters" in ended.err


async def test_no_result_in_time_is_exit_code_3(headrace_command: Headrace) -> None:
    job_id = (await (await headrace_command("submit", "draw", "prompt=star")).end()).out.strip()
    waited = await (await headrace_command("result", job_id, "--wait-s", "0.1")).end()
    assert waited.code == 3
    assert f"error: no result of job {job_id} after 0.1 s; it goes on" in waited.err
    looked = await (await headrace_command("result", job_id, "--no-wait")).end()
    assert (looked.code, looked.err) == (3, f"{job_id} queued: there is no result yet\n")


async def test_a_broker_that_is_down_is_exit_code_3(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        url = server.url
    ended = await (await headrace_command("run", "draw", "prompt=star", NATS_URL=url)).end()
    assert (ended.code, ended.out) == (3, "")
    assert f"error: no NATS server with JetStream at {url}" in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_full_queue_is_exit_code_3_and_says_which_limit(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server:
        async with Connection(NatsSettings(url=server.url)) as connection:
            await ensure_topology(connection, StorageLimits(jobs_per_subject=2))
            await add_model(connection, ECHO)
        arguments = ("submit", ECHO.name, "echo=a", "--repeat", "5")
        ended = await (await headrace_command(*arguments, NATS_URL=server.url)).end()
    assert ended.code == 3, ended.err
    assert "max_msgs_per_subject: 2 of 2 messages" in ended.err


async def test_a_full_broker_is_exit_code_3(headrace_command: Headrace, tmp_path: Path) -> None:
    async with NatsServer(tmp_path, sync_always=False) as server, Connection(NatsSettings(url=server.url)) as admin:
        await ensure_topology(admin)
        await add_model(admin, ECHO)
    async with NatsServer(tmp_path, sync_always=False, max_store_bytes=20_000) as server:
        arguments = ("submit", ECHO.name, "echo=" + "a" * 5000, "--repeat", "9")
        ended = await (await headrace_command(*arguments, NATS_URL=server.url)).end()
    assert ended.code == 3, ended.err
    assert "the broker's storage limit is reached" in ended.err


def test_a_failing_disk_is_exit_code_3() -> None:
    assert exit_code_of(BrokerStorageFailing("nats://a", "publishes time out", "JOBS")) == 3


class LockedServer(NatsServer):
    """A server that wants a password."""

    def _configuration(self) -> str:
        return super()._configuration() + '\nauthorization { user: "a", password: "right" }\n'


async def test_wrong_credentials_are_exit_code_2(headrace_command: Headrace, tmp_path: Path) -> None:
    async with LockedServer(tmp_path, sync_always=False) as server:
        wrong = await headrace_command("status", NATS_URL=server.url, NATS_USER="a", NATS_PASSWORD="wrong")
        right = await headrace_command("status", "--json", NATS_URL=server.url, NATS_USER="a", NATS_PASSWORD="right")
        refused, accepted = await asyncio.gather(wrong.end(), right.end())
    assert refused.code == 2
    assert f"the broker at {server.url} refuses these credentials" in refused.err
    assert "Authorization Violation" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert "right" not in refused.err
    assert "wrong" not in refused.err
    assert accepted.code == 0, accepted.err


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HEADRACE_CONFIG": "/nowhere.toml"}, "error: cannot read /nowhere.toml"),
        ({"NATS_CONTEXT": "nowhere"}, "error: cannot read"),
        ({"HEADRACE_TENANT": "a.b"}, "error: tenant 'a.b' is not valid"),
        ({"S3_ENDPOINT_URL": "nowhere"}, "error: settings and environment:"),
        ({"NATS_CREDS": "/nowhere.creds"}, "error: `creds` '/nowhere.creds': No such file or directory"),
        ({"NATS_NKEY": "/nowhere.nk"}, "error: `nkey` '/nowhere.nk': No such file or directory"),
        ({"NATS_NKEY": __file__}, "holds no seed of a user"),
        ({"NATS_CA": "/nowhere.pem"}, "error: certificates for NATS (ca '/nowhere.pem'"),
        ({"NATS_URL": "http://127.0.0.1:1"}, "error: no NATS server with JetStream at http://127.0.0.1:1"),
    ],
)
async def test_wrong_settings_are_one_sentence(
    headrace_command: Headrace, environment: dict[str, str], said: str
) -> None:
    ended = await (await headrace_command("status", **environment)).end()
    assert ended.code in (2, 3), ended.err
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_folder_that_cannot_be_written_is_one_sentence(headrace_command: Headrace, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    ended = await (await headrace_command("run", "draw", "prompt=star", "-o", str(taken))).end()
    assert ended.code == 2
    assert "is a file" in ended.err
