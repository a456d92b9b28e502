"""The whole system with the roles and the configuration that `headrace auth` writes, in the clear and over TLS."""

import asyncio
import contextlib
import hashlib
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from secured import DEADLINE_S, MODEL, OTHER, TENANTS, TRUSTED, UNTRUSTED, SecuredBroker

import headrace
from headrace_contracts.errors import BrokerForbidden, BrokerUnavailable
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_local.models import bundled_models
from headrace_storage.auth.roles import Role
from headrace_storage.connection import Connection
from headrace_storage.following import last_message
from headrace_storage.results import wait_result

pytestmark = pytest.mark.slow

SPEECH = Path(__file__).parents[2] / "compose" / "headrace_local" / "data" / "speech" / "dashwood-7s.wav"
WHISPER = "whisper-tiny-en"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "tls"])
async def served(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[SecuredBroker]:
    broker = SecuredBroker(tmp_path_factory.mktemp("secured") / "broker")
    try:
        await broker.start(*TENANTS, *(["--tls"] if request.param == "tls" else []))
        await broker.set_up()
        await broker.ensure_worker()
        yield broker
    finally:
        await broker.stop()


async def test_a_producer_runs_a_job_and_a_consumer_reads_it(served: SecuredBroker) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(MODEL, echo="hello", steps=4, step_s=0.1, output_bytes=300_000)
        seen = [type(event).__name__ async for event in job.events()]
        made = await job.result(DEADLINE_S)
        assert made.status is Status.SUCCEEDED
        assert (seen[0], seen[-1]) == ("Started", "Progress")
    async with headrace.Client(served.settings(Role.CONSUMER, TRUSTED)) as client:
        read = await client.result(MODEL, job.id, DEADLINE_S)
        assert read.output["echo"] == "hello"
        [artifact] = read.artifacts
        data = await artifact.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (300_000, artifact.reference.sha256)
        assert "Started" in [type(event).__name__ async for event in client.events(MODEL, job.id)]


async def test_log_lines_are_for_the_tenant_whose_job_it_is(served: SecuredBroker) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(MODEL, echo="x")
        told = [line.event async for line in job.follow_logs()]
        assert (told[0], told[-1]) == ("job started", "job ended")
    async with headrace.Client(served.settings(Role.CONSUMER, TRUSTED)) as client:
        assert [line.event for line in await client.logs(MODEL, job.id)] == told
    async with headrace.Client(served.settings(Role.CONSUMER, OTHER)) as client:
        assert await client.logs(MODEL, job.id) == []
        # Another tenant's lines under its real subject: refused, and not just empty.
        with pytest.raises(BrokerForbidden):
            await last_message(client.connection, Stream.LOGS, f"logs.{TRUSTED}.{MODEL}.{job.id}")
    assert not [line for line in served.refused(Role.WORKER) if "logs." in line or "LOGS" in line]


async def test_a_producer_uploads_and_cancels(served: SecuredBroker) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        blobs = await client.blobs()
        for _ in range(2):  # the second replaces the first, whose chunks a producer may not purge
            await blobs.put(f"{TRUSTED}/inputs/x", b"x" * 400_000, "text/plain")
        assert len(await blobs.get(f"{TRUSTED}/inputs/x")) == 400_000
        job = await client.submit(MODEL, steps=100, step_s=0.2)
        async for _ in job.events():
            break
        assert await job.cancel() == "canceling"
        assert (await job.result(DEADLINE_S)).status is Status.CANCELED


async def test_a_stop_without_a_result_stops_nothing(served: SecuredBroker) -> None:
    """Or the job would leave the queue, and never have a result."""
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(MODEL, steps=10, step_s=0.1)
        async for _ in job.events():
            break
        await client.connection.nc.publish(f"control.cancel.{TRUSTED}.{MODEL}.{job.id}")
        assert (await job.result(DEADLINE_S)).status is Status.SUCCEEDED


@pytest.mark.parametrize("tenant", [TRUSTED, UNTRUSTED])
async def test_the_command_line_works_in_a_role(served: SecuredBroker, tenant: str) -> None:
    ran = await served.headrace(Role.PRODUCER, "run", MODEL, "echo=from the shell", tenant=tenant)
    assert (ran.status, "from the shell" in ran.out) == (0, True), ran.err
    submitted = await served.headrace(Role.PRODUCER, "submit", MODEL, "steps=100", "step_s=0.2", tenant=tenant)
    job_id = submitted.out.split()[-1]
    canceled = await served.headrace(Role.PRODUCER, "cancel", job_id, "--model", MODEL, tenant=tenant)
    assert canceled.status == 0, canceled.err
    read = await served.headrace(Role.CONSUMER, "result", job_id, "--model", MODEL, tenant=tenant)
    assert (read.status, "canceled" in read.err) == (1, True), read.err
    listed = await served.headrace(Role.CONSUMER, "models", tenant=tenant)
    assert (listed.status, MODEL in listed.out) == (0, True), listed.err


@pytest.mark.parametrize(
    ("role", "tenant", "arguments"),
    [
        (Role.CONSUMER, TRUSTED, ("run", MODEL, "echo=x")),
        (Role.PRODUCER, TRUSTED, ("status",)),
        (Role.PRODUCER, UNTRUSTED, ("status", "no-such-job", "--model", MODEL)),
        (Role.PRODUCER, TRUSTED, ("models", "rm", MODEL)),
        (Role.PRODUCER, TRUSTED, ("cost",)),
        (Role.SCALER, None, ("run", MODEL, "echo=x")),
    ],
)
async def test_what_a_role_may_not_do_is_one_sentence_at_once(
    served: SecuredBroker, role: Role, tenant: str | None, arguments: tuple[str, ...]
) -> None:
    ran = await served.headrace(role, *arguments, tenant=tenant)
    assert ran.status == 2, ran.err
    assert "this role may not publish to" in ran.err
    assert ran.err.count("\n") == 1


async def test_a_worker_reaps_in_its_role(served: SecuredBroker) -> None:
    """It makes a consumer again that was deleted, and ends a job that nobody can run."""
    async with served.connection(Role.ADMIN) as admin, served.connection(Role.PRODUCER, TRUSTED) as raw:
        await admin.js.delete_consumer("JOBS", f"{MODEL}-low")
        receipt = await raw.js.publish(f"jobs.{TRUSTED}.no-such-model.low", b'{"input": {}}')
        async with asyncio.timeout(DEADLINE_S):
            result = await wait_result(raw, TRUSTED, "no-such-model", f"seq-{receipt.seq}")
            while f"{MODEL}-low" not in [info.name for info in await admin.js.consumers_info("JOBS")]:
                await asyncio.sleep(0.05)
    assert result.error.code == "unknown_model"
    assert served.refused(Role.WORKER) == []


async def test_a_worker_accounts_in_its_role_and_an_admin_reads_it(served: SecuredBroker) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while MODEL not in (told := await served.headrace(Role.ADMIN, "cost")).out:
            assert told.status == 0, told.err
            await asyncio.sleep(0.2)


async def test_a_wrong_inbox_is_named(served: SecuredBroker) -> None:
    settings = served.settings(Role.PRODUCER, TRUSTED)
    settings = msgspec.structs.replace(settings, nats=msgspec.structs.replace(settings.nats, inbox_prefix="_INBOX"))
    async with headrace.Client(settings) as client:
        for _ in range(2):
            with pytest.raises(headrace.BrokerForbidden, match="NATS_INBOX_PREFIX"):
                await client.submit(MODEL, echo="x")


async def test_a_worker_in_another_role_says_so_and_ends(served: SecuredBroker) -> None:
    ran = await served.headrace(Role.PRODUCER, "worker", "--model", MODEL, tenant=TRUSTED)
    assert ran.status == 2
    assert "this role may not publish to $JS.API.STREAM.INFO." in ran.err


async def test_tls_is_required_and_checked_where_it_is_on(served: SecuredBroker) -> None:
    settings = served.settings(Role.PRODUCER, TRUSTED).nats
    if settings.ca is None:
        assert settings.url.startswith("nats://")
        return
    assert settings.url.startswith("tls://")
    ssl.create_default_context(cafile=settings.ca)
    without_authority = msgspec.structs.replace(settings, ca=None)
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        async with Connection(without_authority):
            pass


async def test_secrets_are_for_their_owner_alone(served: SecuredBroker) -> None:
    secrets = [path for path in served.folder.rglob("*") if path.suffix in (".nk", ".key")]
    assert len(secrets) >= 9
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    seeds = [path.read_text().strip() for path in secrets if path.suffix == ".nk"]
    shown = [
        path
        for path in served.folder.rglob("*")
        if path.is_file() and path not in secrets and "jetstream" not in path.parts
    ]
    for path in shown:
        assert not any(seed in path.read_text(errors="replace") for seed in seeds), path


async def test_what_an_operator_sees_and_a_tenant_does_not(served: SecuredBroker) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        ended = await client.submit(MODEL, echo="hello")
        assert (await ended.result(DEADLINE_S)).status is Status.SUCCEEDED
        running = await client.submit(MODEL, steps=50, step_s=0.5)
        async with contextlib.aclosing(running.events()) as events:
            await anext(events)
    asked = ("--tenant", TRUSTED)
    for arguments, said in (
        (("scale", MODEL, "max=3"), "max_workers"),
        (("top", "--once"), MODEL),
        (("explain", ended.id, *asked), "It succeeded at"),
        (("explain", running.id, *asked), "It runs now on worker"),
    ):
        ran = await served.headrace(Role.ADMIN, *arguments)
        assert (ran.status, said in ran.out) == (0, True), (arguments, ran)
    own = await served.headrace(Role.PRODUCER, "explain", ended.id, *asked, tenant=TRUSTED)
    assert (own.status, "It succeeded at" in own.out) == (0, True), own
    for refused in (("explain", running.id), ("top", "--once"), ("scale", MODEL, "max=9")):
        ran = await served.headrace(Role.PRODUCER, *refused, tenant=TRUSTED)
        assert (ran.status, ran.err.count("\n")) == (2, 1), (refused, ran)
        assert "this role may not" in ran.err
    assert (await served.headrace(Role.PRODUCER, "cancel", running.id, "--model", MODEL, tenant=TRUSTED)).status == 0


@pytest.mark.models
async def test_a_recording_goes_in_as_a_file(served: SecuredBroker) -> None:
    spec = next(spec for spec in bundled_models() if spec.name == WHISPER)
    from headrace_storage.registry import add_model

    async with served.connection(Role.ADMIN) as admin:
        await add_model(admin, spec)
    await served.start_worker(WHISPER)
    async with headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client:
        job = await client.submit(WHISPER, audio=SPEECH)
        result = await job.result(2 * DEADLINE_S)
    assert result.status is Status.SUCCEEDED, result.error
    assert result.text


async def test_a_tenant_added_later_is_served_after_a_restart(served: SecuredBroker) -> None:
    added = await served.headrace(None, "auth", "add-tenant", str(served.folder), "late", "--untrusted")
    assert added.status == 0, added.err
    await served.restart()
    applied = await served.headrace(Role.ADMIN, "auth", "apply", str(served.folder))
    assert applied.status == 0, applied.err
    async with asyncio.timeout(DEADLINE_S):
        while (ran := await served.headrace(Role.PRODUCER, "run", MODEL, "echo=late", tenant="late")).status == 3:
            pass
    assert (ran.status, "late" in ran.out) == (0, True), ran.err
    before = await served.headrace(Role.PRODUCER, "run", MODEL, "echo=still", tenant=TRUSTED)
    assert before.status == 0, before.err
    assert served.refused(Role.WORKER) == [], "what a restart takes, a worker makes again"
