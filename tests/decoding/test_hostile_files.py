"""Whatever a file is, its decoding ends with samples in bounds or a refusal, and touches nothing else."""

import asyncio
import collections
import random
import time
from pathlib import Path

import psutil
import pytest
from hostile import claiming, damaged, naming_others
from recordings import SPEECH
from test_confinement import Listener, hearing

from headrace_contracts.errors import InvalidInput
from headrace_contracts.model import ModelSpec
from headrace_workers.decoding.decoder import AT_ONCE, InputDecoder
from headrace_workers.decoding.frames import SAMPLE_BYTES, SAMPLE_RATE

pytestmark = pytest.mark.slow

SEED = 20_251_124
CLIP = SPEECH / "amiable-3s.wav"
CLIP_S = 3.29


async def decoded_s(decoder: InputDecoder, spec: ModelSpec, folder: Path, content: bytes) -> float | str:
    """Seconds of what a file was decoded to, or why it was refused; nothing is left of it but that."""
    folder.mkdir()
    path = folder / "audio"
    path.write_bytes(content)
    answer: InvalidInput | None = None
    try:
        files = await decoder.decode_inputs(spec, {"audio": str(path)})
    except InvalidInput as refused:
        answer = refused
    if answer is not None:
        assert answer.field == "input.audio"
        assert [file.name for file in folder.iterdir()] == ["audio"], "of what was written, nothing is left"
        return answer.problem
    [left] = folder.iterdir()
    assert files == {"audio": str(left)}
    seconds = left.stat().st_size / SAMPLE_BYTES / SAMPLE_RATE
    left.unlink()
    return seconds


async def test_a_file_that_names_others_opens_none_of_them(tmp_path: Path) -> None:
    async with Listener() as listener, InputDecoder() as decoder:
        for name, content in naming_others(tmp_path, CLIP, listener.port).items():
            ended = await decoded_s(decoder, hearing(), tmp_path / name, content)
            if isinstance(ended, float):  # the film's samples are its own bytes then, and not the file it names
                assert ended * SAMPLE_RATE * SAMPLE_BYTES <= len(content), name
            else:
                assert str(CLIP) not in ended
        assert listener.heard == 0
        assert await decoded_s(decoder, hearing(), tmp_path / "next", CLIP.read_bytes()) == pytest.approx(CLIP_S)


async def test_a_claim_costs_no_more_than_the_limits(tmp_path: Path) -> None:
    spec = hearing(max_decode_bytes=100 * 2**20, max_decode_s=20)
    async with InputDecoder() as decoder:
        await decoder.warm_up()
        assert decoder.nursery_pid is not None
        nursery, began = decoder.nursery_pid, psutil.Process(decoder.nursery_pid).memory_info().rss
        outcomes = {}
        for name, content in claiming(tmp_path).items():
            outcomes[name] = await decoded_s(decoder, spec, tmp_path / name, content)
            if isinstance(outcomes[name], float):
                assert outcomes[name] <= spec.limits.max_audio_s, name
        assert await decoded_s(decoder, spec, tmp_path / "next", CLIP.read_bytes()) == pytest.approx(CLIP_S)
        assert decoder.nursery_pid == nursery
        assert psutil.Process(nursery).memory_info().rss - began < 5e6
    print(outcomes)
    assert outcomes["wav of ten hours"] == outcomes["wav without end"] == CLIP_S, "what is there counts"
    assert outcomes["wav of 64 channels"] == "64 channels is over this model's limit of 32"
    for name in ("wav of 65535 channels", "wav at 1 Hz", "wav at 4 GHz", "wav at 0 Hz", "wav of no channels"):
        assert isinstance(outcomes[name], str), name


async def test_two_thousand_damaged_recordings_harm_nobody(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    spec = hearing(max_audio_s=60, max_decode_bytes=100 * 2**20, max_decode_s=20)
    files = damaged(tmp_path, 2000, random.Random(SEED))
    async with InputDecoder() as decoder:
        await decoder.warm_up()
        assert decoder.nursery_pid is not None
        nursery = psutil.Process(decoder.nursery_pid)
        rss = nursery.memory_info().rss

        async def decode(at: int) -> float | str:
            return await decoded_s(decoder, spec, tmp_path / str(at), files[at])

        began = time.perf_counter()
        outcomes = []
        for first in range(0, len(files), AT_ONCE):
            outcomes += await asyncio.gather(*(decode(at) for at in range(first, min(first + AT_ONCE, len(files)))))
        print(f"{time.perf_counter() - began:.1f} s")
        refused = collections.Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        print(refused)
        assert all(0 < outcome <= 61 for outcome in outcomes if isinstance(outcome, float))
        assert 200 < sum(refused.values()) < 1800, "the damage is neither too small nor too large to tell anything"
        assert "makes its decoder fail without a word" not in refused, "an error of the decoding that nobody foresaw"
        assert await decode_clip(decoder, spec, tmp_path / "next") == pytest.approx(CLIP_S)
        assert decoder.nursery_pid == nursery.pid
        assert nursery.memory_info().rss - rss < 5e6
        assert not nursery.children()


async def test_files_at_the_same_time_do_not_wait_for_one_that_never_ends(tmp_path: Path) -> None:
    """One child a file: the slow ones take their slots and no more."""
    long = (SPEECH / "amiable-3s.wav").read_bytes()
    async with InputDecoder() as decoder:
        ended = await asyncio.gather(
            *(decoded_s(decoder, hearing(), tmp_path / str(i), long if i % 2 else b"no recording") for i in range(20))
        )
    assert [isinstance(outcome, float) for outcome in ended] == [bool(i % 2) for i in range(20)]


async def decode_clip(decoder: InputDecoder, spec: ModelSpec, folder: Path) -> float | str:
    return await decoded_s(decoder, spec, folder, CLIP.read_bytes())
