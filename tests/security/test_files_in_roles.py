"""The whole system with files in S3, each role with its own user there: on MinIO's S3 code, and on SeaweedFS."""

import hashlib
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from blob_servers import ACCESS_KEY, SECRET_KEY
from secured import DEADLINE_S, MODEL, OTHER, TRUSTED, UNTRUSTED, SecuredBroker
from tenants_files import only_its_tenants_files

import headrace
from headrace_contracts.errors import BlobForbidden
from headrace_loadgen.system.s3_server import S3Kind, S3Server
from headrace_storage.auth.roles import Role
from headrace_storage.auth.s3_users import ROOT_PASSWORD, ROOT_USER, USERS

pytestmark = pytest.mark.slow

# Another than what the server makes when it starts: here the admin makes it.
BUCKET = "files-of-roles"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["juicefs", "weed"])
async def served(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[SecuredBroker]:
    """Commands as an operator gives them, and a worker in its role."""
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredBroker(folder / "broker")
    async with S3Server(request.param, folder / "s3") as server:
        try:
            await broker.start("--s3", "--tenant", TRUSTED, "--tenant", OTHER, "--untrusted-tenant", UNTRUSTED)
            await give_users(broker, server, request.param)
            await broker.set_up()
            await succeeds(broker, Role.ADMIN, "doctor")
            await succeeds(broker, Role.WORKER, "reap", "--once")
            await broker.ensure_worker()
            yield broker
        finally:
            await broker.stop()


async def give_users(broker: SecuredBroker, server: S3Server, kind: S3Kind) -> None:
    for path, text in ((ROOT_USER, ACCESS_KEY), (ROOT_PASSWORD, SECRET_KEY)):
        (broker.folder / path).parent.mkdir(exist_ok=True)
        (broker.folder / path).write_text(text)
    await succeeds(broker, None, "auth", "s3", "init", str(broker.folder), "--url", server.url, "--bucket", BUCKET)
    if kind == "juicefs":
        await succeeds(broker, None, "auth", "s3", "apply", str(broker.folder))
    else:
        shutil.copy(broker.folder / USERS, server._folder / "s3.json")
        await server.kill()
        await server.start()


async def succeeds(broker: SecuredBroker, role: Role | None, *words: str) -> None:
    ran = await broker.headrace(role, *words)
    assert ran.status == 0, ran.out + ran.err


@pytest.mark.parametrize("tenant", [TRUSTED, UNTRUSTED])
async def test_a_file_is_made_for_a_tenant_and_read_by_no_other(served: SecuredBroker, tenant: str) -> None:
    async with headrace.Client(served.settings(Role.PRODUCER, tenant)) as client:
        job = await client.submit(MODEL, output_bytes=300_000)
        [artifact] = (await job.result(DEADLINE_S)).artifacts
        made = await artifact.read()
        assert (len(made), hashlib.sha256(made).hexdigest()) == (300_000, artifact.reference.sha256)
    async with headrace.Client(served.settings(Role.CONSUMER, tenant)) as client:
        [artifact] = (await client.result(MODEL, job.id, DEADLINE_S)).artifacts
        assert await artifact.read() == made
    for role in (Role.PRODUCER, Role.CONSUMER):
        async with headrace.Client(served.settings(role, OTHER)) as client:
            blobs = await client.blobs()
            with pytest.raises(BlobForbidden):
                await blobs.get(artifact.reference.blob)


async def test_a_client_reaches_files_of_its_tenant_alone(served: SecuredBroker) -> None:
    async with (
        headrace.Client(served.settings(Role.PRODUCER, TRUSTED)) as client,
        headrace.Client(served.settings(Role.ADMIN)) as admin,
    ):
        await only_its_tenants_files(client, admin)
