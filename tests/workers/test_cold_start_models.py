"""Real models in workers and engines that were forked: their libraries were imported by somebody else."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from rig import Rig
from zygotes import ForkedWorkers, zygote_of

from headrace_contracts.file import File
from headrace_contracts.model import ModelSpec, Resources
from headrace_contracts.result import Result, Status
from headrace_local.models import find_model
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_storage.registry import add_model
from headrace_workers.weights import ensure

pytestmark = [pytest.mark.slow, pytest.mark.models]

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("HEADRACE_TEST_CACHE") or ROOT / ".headrace" / "test-cache")
SPEECH = ROOT / "compose" / "headrace_local" / "data" / "speech"
MODELS = tuple(find_model(name) for name in ("tiny-shapes", "whisper-tiny-en", "smollm2-135m"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ZygoteProcess]:
    for spec in MODELS:
        ensure(spec, CACHE)
    async with zygote_of(tmp_path_factory.mktemp("zygote"), MODELS, CACHE) as zygote:
        yield zygote


async def run(rig: Rig, zygote: ZygoteProcess, spec: ModelSpec, **task_input: object) -> Result:
    """Run one job of a model in a worker that is forked for it."""
    rig.environment["HEADRACE_CACHE_DIR"] = str(CACHE)
    await add_model(rig.connection, msgspec.structs.replace(spec, name=rig.model))
    workers = ForkedWorkers(rig, zygote)
    try:
        job_id = await rig.submit(**task_input)
        pid = await workers.spawn()
        result = await rig.result(job_id)
        start = (await workers.ready(pid)).engines[0].cold_start
        assert start.forked
        assert start.import_s < start.load_s, "nothing is left to be imported"
        return result
    finally:
        await rig.until_drained()
        await workers.stop()


async def test_pictures_on_two_threads(rig: Rig, zygote: ZygoteProcess) -> None:
    """A pool of threads that the zygote had started would be waited for in vain."""
    spec = msgspec.structs.replace(MODELS[0], resources=Resources(device="cpu", threads=2))
    result = await run(rig, zygote, spec, prompt="a red circle on a blue background", steps=4, seed=1)
    assert result.status is Status.SUCCEEDED, result.error
    assert [artifact.content_type for artifact in result.artifacts] == ["image/png"]


async def test_speech(rig: Rig, zygote: ZygoteProcess) -> None:
    recording = min(SPEECH.glob("*.wav"))
    result = await run(rig, zygote, MODELS[1], audio=File(inline=recording.read_bytes(), content_type="audio/wav"))
    assert result.status is Status.SUCCEEDED, result.error
    assert len(msgspec.json.decode(result.output)["text"].split()) > 3


async def test_text(rig: Rig, zygote: ZygoteProcess) -> None:
    result = await run(rig, zygote, MODELS[2], prompt="What is the capital of France?", max_tokens=8)
    assert result.status is Status.SUCCEEDED, result.error
    assert "Paris" in msgspec.json.decode(result.output)["text"]
