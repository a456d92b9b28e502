"""What a result gives, and what it refuses to give."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from staged_worker import StagedWorker

import headrace
from headrace import Client, JobResult, Settings
from headrace_contracts.errors import BlobError, BlobMismatch, BlobNotFound, UndecodableMessage
from headrace_contracts.file import Artifact
from headrace_contracts.result import Result, Status
from headrace_storage.blobs import MemoryBlobs

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def result_of(output: bytes, *artifacts: Artifact, store: MemoryBlobs | None = None) -> JobResult:
    async def blobs() -> MemoryBlobs:
        return store or MemoryBlobs()

    return JobResult(
        Result("j", "m", "1", Status.SUCCEEDED, msgspec.Raw(output), 1, NOW, NOW, artifacts=artifacts), blobs
    )


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a\0b"])
async def test_an_artifact_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    store = MemoryBlobs()
    info = await store.put("k", b"data", "image/png")
    [artifact] = result_of(b"null", info.as_artifact(name), store=store).artifacts
    folder = tmp_path / "out"
    with pytest.raises(BlobError, match="is no plain file name"):
        await artifact.save(folder)
    assert list(tmp_path.iterdir()) == []


async def test_other_bytes_than_promised_are_refused(tmp_path: Path) -> None:
    store = MemoryBlobs()
    await store.put("k", b"data", "image/png")
    wrong = Artifact("a.png", "k", "0" * 64, 4, "image/png")
    [artifact] = result_of(b"null", wrong, store=store).artifacts
    with pytest.raises(BlobMismatch):
        await artifact.read()
    with pytest.raises(BlobMismatch):
        await artifact.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_an_artifact_that_is_gone_is_named() -> None:
    [artifact] = result_of(b"null", Artifact("a.png", "k", "0" * 64, 4, "image/png")).artifacts
    with pytest.raises(BlobNotFound, match="'k'"):
        await artifact.read()


@pytest.mark.parametrize("nothing", [b"null", b"\xc0", b""])
async def test_no_output_is_none(nothing: bytes) -> None:
    result = result_of(nothing)
    assert result.output is None
    assert result.text is None
    assert result.as_json()["output"] is None


async def test_an_output_that_is_no_map_is_an_error() -> None:
    with pytest.raises(UndecodableMessage, match="output of a result"):
        result_of(b"[1,2]")


async def test_artifacts_can_be_saved_after_their_client_has_gone(
    client: Client, worker: StagedWorker, settings: Settings, tmp_path: Path
) -> None:
    job = await client.submit("draw", prompt="star")
    artifact = await worker.store(client, job, "image-0.png", b"a picture")
    await worker.succeed(job, {"images": ["image-0.png"]}, (artifact,))
    async with Client(settings) as other:
        result = await other.result("draw", job.id)
    with pytest.raises(RuntimeError, match="not open"):
        await result.artifacts[0].read()

    saved = await asyncio.to_thread(headrace.save, result, tmp_path, settings=settings)

    assert [path.read_bytes() for path in saved] == [b"a picture"]
