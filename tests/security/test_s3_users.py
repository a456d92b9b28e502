"""Every role's own S3 user, on both real servers: what its key is for works, and nothing else does."""

import io
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from blob_servers import ACCESS_KEY, SECRET_KEY, http, some_bytes
from click.testing import CliRunner, Result
from minio import Minio
from minio.commonconfig import CopySource
from minio.credentials import StaticProvider
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin

from headrace.cli.auth import auth
from headrace_contracts.errors import BlobForbidden, BlobMismatch, BlobNotFound, HeadraceError, SettingsError
from headrace_contracts.settings import S3Settings, load_settings
from headrace_loadgen.system.s3_server import S3Server
from headrace_storage.auth.folder import role_folder
from headrace_storage.auth.roles import Role
from headrace_storage.auth.s3_users import ROOT_PASSWORD, ROOT_USER, USERS
from headrace_storage.blobs.s3 import S3Blobs, _Upload

pytestmark = pytest.mark.slow

MINIO, SEAWEEDFS = "juicefs", "weed"
# `acme2` begins like `acme`: a prefix without its slash would let one into the other.
TENANT, OTHER = "acme", "acme2"
BUCKET = "files-of-a-test"
SECRET = b"of the other tenant"
FOREIGN = f"{OTHER}/inputs/secret"
LARGE_BYTES = 17 * 1024 * 1024


on_minio = pytest.mark.parametrize("stage", [MINIO], indirect=True)
on_seaweedfs = pytest.mark.parametrize("stage", [SEAWEEDFS], indirect=True)


class Stage:
    """A server with the users of a folder."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder
        self.server = server

    def settings(self, role: Role, tenant: str | None = None) -> S3Settings:
        """As a process in that role reads them."""
        file = self.folder / role_folder(role, tenant) / "headrace.toml"
        settings = load_settings({"HEADRACE_CONFIG": str(file)}).s3
        assert settings is not None
        return settings

    def blobs(self, role: Role, tenant: str | None = None) -> S3Blobs:
        return S3Blobs(self.settings(role, tenant), tenant=tenant)

    def client(self, role: Role | None, tenant: str | None = None) -> Minio:
        """A client without our code; None: as root."""
        key, secret = (ACCESS_KEY, SECRET_KEY) if role is None else self._key(role, tenant)
        return Minio(self.address, key, secret, secure=False, region="us-east-1")

    def administrator(self, role: Role | None = None, tenant: str | None = None) -> MinioAdmin:
        key, secret = (ACCESS_KEY, SECRET_KEY) if role is None else self._key(role, tenant)
        return MinioAdmin(
            endpoint=self.address, credentials=StaticProvider(key, secret), secure=False, region="us-east-1"
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def _key(self, role: Role, tenant: str | None) -> tuple[str, str]:
        settings = self.settings(role, tenant)
        return settings.access_key_id, settings.secret_access_key


def run(*words: object) -> Result:
    done = CliRunner().invoke(auth, [str(word) for word in words])
    if isinstance(done.exception, HeadraceError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[MINIO, SEAWEEDFS])
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A server that was in use with root's key alone, as an operator gives it users."""
    folder = tmp_path_factory.mktemp("broker")
    run("init", folder, "--s3", "--tenant", TENANT, "--untrusted-tenant", OTHER)
    for path, text in ((ROOT_USER, ACCESS_KEY), (ROOT_PASSWORD, SECRET_KEY)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    place = tmp_path_factory.mktemp("s3")
    async with S3Server(request.param, place) as server:
        stage = Stage(folder, server)
        run("s3", "init", folder, "--url", server.url, "--bucket", BUCKET)
        stage.client(None).make_bucket(BUCKET)
        stage.client(None).put_object(BUCKET, FOREIGN, *body(SECRET))
        await users_come_into_force(stage)
        yield stage


async def users_come_into_force(stage: Stage) -> None:
    if stage.server._kind == MINIO:
        run("s3", "apply", stage.folder)
    else:
        shutil.copy(stage.folder / USERS, stage.server._folder / "s3.json")
        await stage.server.kill()
        await stage.server.start()


async def test_a_producer_can_do_all_that_the_sdk_does(stage: Stage, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(some_bytes(LARGE_BYTES))
    async with stage.blobs(Role.PRODUCER, TENANT) as blobs:
        with pytest.raises(BlobNotFound):
            await blobs.stat(f"{TENANT}/inputs/large")
        stored = await blobs.put(f"{TENANT}/inputs/large", large, "video/mp4")
        assert await blobs.stat(f"{TENANT}/inputs/large") == stored
        assert await blobs.get(f"{TENANT}/inputs/large", start=LARGE_BYTES - 3) == large.read_bytes()[-3:]
        landed = tmp_path / "landed"
        await blobs.get_to(f"{TENANT}/inputs/large", landed, size_bytes=LARGE_BYTES, sha256=stored.sha256)
        assert landed.read_bytes() == large.read_bytes()
        await blobs.put(f"{TENANT}/inputs/small", b"one", "text/plain")
        await blobs.put(f"{TENANT}/inputs/small", b"two", "text/plain")
        assert http("GET", await blobs.presign_get(f"{TENANT}/inputs/small", 60)) == (200, b"two")
        status, _ = http("PUT", await blobs.presign_put(f"{TENANT}/inputs/sent", 60), b"three")
        assert (status, await blobs.get(f"{TENANT}/inputs/sent")) == (200, b"three")


@pytest.mark.parametrize("role", [Role.WORKER, Role.PRODUCER])
async def test_files_of_before_are_still_there(stage: Stage, role: Role) -> None:
    async with stage.blobs(role, OTHER if role is Role.PRODUCER else None) as blobs:
        assert await blobs.get(FOREIGN) == SECRET


async def test_a_consumer_reads_and_does_not_write(stage: Stage) -> None:
    async with stage.blobs(Role.CONSUMER, OTHER) as blobs:
        assert await blobs.get(FOREIGN) == SECRET
        with pytest.raises(BlobForbidden):
            await blobs.put(f"{OTHER}/inputs/new", b"1", "text/plain")


FORBIDDEN: dict[str, Callable[[Stage, Minio], object]] = {
    "read another's file": lambda _, client: client.get_object(BUCKET, FOREIGN),
    "see another's file": lambda _, client: client.stat_object(BUCKET, FOREIGN),
    "copy another's file": lambda _, client: client.copy_object(BUCKET, f"{TENANT}/it", CopySource(BUCKET, FOREIGN)),
    "overwrite another's file": lambda _, client: client.put_object(BUCKET, FOREIGN, *body(b"forged")),
    "write beside all tenants": lambda _, client: client.put_object(BUCKET, "file", *body(b"forged")),
    "delete another's file": lambda _, client: client.remove_object(BUCKET, FOREIGN),
    "delete another's files": lambda _, client: refused_all(client.remove_objects(BUCKET, [DeleteObject(FOREIGN)])),
    "delete its own file": lambda _, client: client.remove_object(BUCKET, f"{TENANT}/inputs/own"),
    "list the bucket": lambda _, client: list(client.list_objects(BUCKET)),
    "list another's files": lambda _, client: list(client.list_objects(BUCKET, prefix=f"{OTHER}/")),
    "make a bucket": lambda _, client: client.make_bucket("of-its-own"),
    "delete the bucket": lambda _, client: client.remove_bucket(BUCKET),
    "open the bucket to all": lambda _, client: client.set_bucket_policy(BUCKET, json.dumps(ANYBODY_READS)),
    "make a user": lambda stage, _: stage.administrator(Role.PRODUCER, TENANT).user_add("intruder", "intruder1"),
    "see users": lambda stage, _: stage.administrator(Role.PRODUCER, TENANT).user_list(),
    "change what it may do": lambda stage, _: stage.administrator(Role.PRODUCER, TENANT).policy_set(
        "readwrite", user=stage.settings(Role.PRODUCER, TENANT).access_key_id
    ),
}
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}],
}
ANYBODY_READS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["*"]},
            "Action": ["s3:GetObject"],
            "Resource": [f"arn:aws:s3:::{BUCKET}/*"],
        }
    ],
}


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_a_producer_can_not(stage: Stage, attempt: str) -> None:
    root = stage.client(None)
    root.put_object(BUCKET, f"{TENANT}/inputs/own", *body(b"own"))
    with pytest.raises((S3Error, MinioAdminException)) as refusal:
        FORBIDDEN[attempt](stage, stage.client(Role.PRODUCER, TENANT))
    error = refusal.value
    assert "AccessDenied" in (error.code if isinstance(error, S3Error) else str(error))
    assert read(root, FOREIGN) == SECRET
    assert read(root, f"{TENANT}/inputs/own") == b"own"
    assert "file" not in {item.object_name for item in root.list_objects(BUCKET)}


def test_nobody_but_the_admin_makes_the_bucket_and_no_other(stage: Stage) -> None:
    for role in (Role.WORKER, Role.ADMIN):
        with pytest.raises(S3Error, match="AccessDenied"):
            stage.client(role).make_bucket("another")
    root = stage.client(None)
    for item in root.list_objects(BUCKET, recursive=True):
        root.remove_object(BUCKET, item.object_name)
    root.remove_bucket(BUCKET)
    with pytest.raises(S3Error, match="AccessDenied"):
        stage.client(Role.WORKER).make_bucket(BUCKET)
    stage.client(Role.ADMIN).make_bucket(BUCKET)
    root.put_object(BUCKET, FOREIGN, *body(SECRET))


@pytest.mark.parametrize("role", [Role.WORKER, Role.ADMIN])
async def test_a_worker_has_all_files_and_so_has_the_admin(stage: Stage, role: Role, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(some_bytes(LARGE_BYTES))
    async with stage.blobs(role) as blobs:
        assert await blobs.get(FOREIGN) == SECRET
        for key in (f"{TENANT}/echo/1/{role}", f"{OTHER}/echo/1/{role}"):
            await blobs.put(key, large, "video/mp4")
            assert (await blobs.stat(key)).size_bytes == LARGE_BYTES
            assert key in {info.key async for info in blobs.list("")}
            await blobs.delete(key)
            assert key not in {info.key async for info in blobs.list("")}


async def test_an_upload_in_parts_that_fails_leaves_no_parts(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "changing"
    path.write_bytes(some_bytes(LARGE_BYTES))

    class Changing(_Upload):
        def read(self, size: int) -> bytes:
            data = super().read(size)
            with path.open("r+b") as file:
                file.seek(LARGE_BYTES - 1)
                file.write(bytes([path.read_bytes()[-1] ^ 1]))
            return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace_storage.blobs.s3._Upload", Changing)
        async with stage.blobs(Role.PRODUCER, TENANT) as blobs:
            with pytest.raises(BlobMismatch):
                await blobs.put(f"{TENANT}/inputs/changing", path, "video/mp4")
    left = stage.client(None)._list_multipart_uploads(BUCKET, prefix=f"{TENANT}/inputs/changing")
    assert left.uploads == []


async def test_a_key_that_will_not_do_is_refused_on_entry(stage: Stage) -> None:
    """Not at every file: a worker that could store nothing would fail one job after another."""
    producers = stage.settings(Role.PRODUCER, TENANT)
    wrong = S3Settings(producers.endpoint_url, producers.access_key_id, "wrong", producers.bucket)
    for blobs in (
        S3Blobs(producers),
        S3Blobs(producers, tenant=OTHER),
        S3Blobs(wrong, tenant=TENANT),
        S3Blobs(stage.settings(Role.SCALER), tenant=TENANT),
    ):
        with pytest.raises(BlobForbidden):
            async with blobs:
                pass


@on_minio
async def test_repeating_it_changes_no_key_and_no_right(stage: Stage) -> None:
    before, said = files_of(stage.folder), stage.administrator().user_list()
    rights = rights_on(stage)
    for _ in range(2):
        run("s3", "init", stage.folder, "--url", stage.server.url, "--bucket", BUCKET)
        run("s3", "apply", stage.folder)
    assert files_of(stage.folder) == before
    assert json.loads(stage.administrator().user_list()) == json.loads(said)
    assert len(json.loads(said)) == 6
    assert rights_on(stage) == rights
    async with stage.blobs(Role.PRODUCER, OTHER) as blobs:
        assert await blobs.get(FOREIGN) == SECRET


@on_minio
def test_what_somebody_changed_on_the_server_is_mended(stage: Stage) -> None:
    root, name = stage.administrator(), f"{BUCKET}-producer-{TENANT}"
    root.policy_add(name, policy=EVERYTHING)
    root.policy_set("readwrite", user=name)
    root.user_add(name, "another-secret")
    run("s3", "apply", stage.folder)
    client = stage.client(Role.PRODUCER, TENANT)
    client.put_object(BUCKET, f"{TENANT}/inputs/own", *body(b"own"))
    with pytest.raises(S3Error, match="AccessDenied"):
        client.get_object(BUCKET, FOREIGN)


@on_minio
def test_a_late_tenant_gets_a_user(stage: Stage) -> None:
    run("add-tenant", stage.folder, "late")
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        stage.client(Role.PRODUCER, "late").put_object(BUCKET, "late/file", *body(b"1"))
    run("s3", "apply", stage.folder)
    stage.client(Role.PRODUCER, "late").put_object(BUCKET, "late/file", *body(b"1"))


@on_minio
def test_whoever_is_no_root_is_told_so(stage: Stage) -> None:
    path = stage.folder / ROOT_PASSWORD
    path.write_text("not-its-password")
    try:
        with pytest.raises(SettingsError, match=r"refuses its root key, which is in s3/root-user"):
            run("s3", "apply", stage.folder)
    finally:
        path.write_text(SECRET_KEY)


@on_seaweedfs
def test_no_key_is_sent_to_a_server_that_is_no_minio(stage: Stage) -> None:
    """SeaweedFS takes the words of MinIO's administrators for uploads, and root's for those into new buckets."""
    with pytest.raises(SettingsError, match="is no MinIO"):
        run("s3", "apply", stage.folder)
    assert "minio" not in {bucket.name for bucket in stage.client(None).list_buckets()}


@on_minio
def test_no_answer_is_one_sentence(stage: Stage, tmp_path: Path) -> None:
    shutil.copytree(stage.folder, tmp_path / "copy")
    run("s3", "init", tmp_path / "copy", "--url", "http://127.0.0.1:1", "--bucket", BUCKET)
    with pytest.raises(SettingsError, match=r"users of http://127\.0\.0\.1:1: no answer"):
        run("s3", "apply", tmp_path / "copy")


def body(data: bytes) -> tuple[io.BytesIO, int]:
    return io.BytesIO(data), len(data)


def read(client: Minio, key: str) -> bytes:
    with client.get_object(BUCKET, key) as answer:
        data: bytes = answer.read()
    return data


def rights_on(stage: Stage) -> dict[str, set[str]]:
    """Policy to what it allows, each as a line: MinIO keeps no order."""
    policies = json.loads(stage.administrator().policy_list())
    return {
        name: {
            f"{action} {sorted(statement.get('Resource', []))}"
            for statement in policy["Statement"]
            for action in statement["Action"]
        }
        for name, policy in policies.items()
    }


def refused_all(errors: object) -> None:
    """A request for several is accepted, and refused one by one."""
    codes = [error.code for error in errors]  # type: ignore[attr-defined]
    raise MinioAdminException("200", str(codes))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
