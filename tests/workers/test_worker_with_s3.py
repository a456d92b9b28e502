"""A worker whose blobs are in S3: MinIO's own server code, over local files."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from blob_servers import ACCESS_KEY, SECRET_KEY, S3Rig, freeze, start_juicefs, thaw
from rig import TENANT, Rig

from headrace_contracts.result import Status
from headrace_workers.engines.synthetic import artifact_bytes

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module")
async def s3(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Rig]:
    async with start_juicefs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def rig_on_s3(rig: Rig, s3: S3Rig) -> Rig:
    rig.environment |= {
        "S3_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    return rig


async def test_artifacts_are_stored_in_s3(rig_on_s3: Rig, s3: S3Rig) -> None:
    await rig_on_s3.add_model()
    await rig_on_s3.start_worker()
    result = await rig_on_s3.run(output_bytes=2_000_000, seed=9)
    [artifact] = result.artifacts
    async with s3.open() as blobs:
        assert await blobs.get(artifact.blob) == artifact_bytes(9, 2_000_000)
        assert [info.key async for info in blobs.list(f"{TENANT}/{rig_on_s3.model}/")] == [artifact.blob]


async def test_an_outage_of_s3_costs_a_finished_job_nothing(rig_on_s3: Rig, s3: S3Rig) -> None:
    """The engine's work is kept until the store answers again; the lease is renewed meanwhile."""
    await rig_on_s3.add_model()
    await rig_on_s3.start_worker()
    job_id = await rig_on_s3.submit(steps=10, step_s=0.05, output_bytes=1000, seed=3)
    await rig_on_s3.until_running(job_id)
    freeze(s3.pid)
    try:
        # The next job runs while the first one waits to be stored: its files are none.
        assert (await rig_on_s3.run(steps=40, step_s=0.05)).status is Status.SUCCEEDED
    finally:
        thaw(s3.pid)
    result = await rig_on_s3.result(job_id)
    assert (result.status, result.attempts) == (Status.SUCCEEDED, 1)
    async with s3.open() as blobs:
        assert await blobs.get(result.artifacts[0].blob) == artifact_bytes(3, 1000)


async def test_credentials_that_s3_refuses_end_the_worker_with_a_clear_error(rig_on_s3: Rig) -> None:
    await rig_on_s3.add_model()
    rig_on_s3.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    worker = await rig_on_s3.spawn_worker()
    assert await worker.wait() != 0
    log = (rig_on_s3.folder / "worker.log").read_text()
    assert f"error: the S3 server at {rig_on_s3.environment['S3_ENDPOINT_URL']} refuses the key {ACCESS_KEY!r}" in log
    assert "Traceback" not in log
