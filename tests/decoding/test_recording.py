"""Decoding: any recording to 16 kHz mono, and a clear refusal of everything else."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from recordings import SPEECH, decode, reencoded, wav

from headrace_contracts.errors import InvalidInput
from headrace_workers.decoding.frames import SAMPLE_RATE

CLIP = "dashwood-7s.wav"
CLIP_S = 7.1


# VmHWM, for ru_maxrss of a new process begins with its parent's.
DECODE = """
import os, sys
from pathlib import Path
from headrace_contracts.limits import Limits
from headrace_workers.decoding.decoder import bounds_of
from headrace_workers.decoding.frames import Refused
from headrace_workers.decoding.recording import decode_recording
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
bounds = bounds_of(Limits(max_audio_s=float(sys.argv[2])))
answer = decode_recording(os.open(sys.argv[1], os.O_RDONLY), os.open(os.devnull, os.O_WRONLY), bounds)
if isinstance(answer, Refused):
    print(peak() - before, answer.problem)
"""


def refusal(path: Path, max_s: float) -> tuple[int, str]:
    """Bytes of memory that refusing a recording took, and what it says, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", DECODE, str(path), str(max_s)], capture_output=True, text=True)
    grown, _, message = done.stdout.strip().partition(" ")
    assert grown, f"not refused: {done.stderr}"
    return int(grown), message


def test_a_wav_of_the_models_own_rate_is_read_exactly() -> None:
    samples = decode(SPEECH / CLIP, max_audio_s=60)
    raw = np.frombuffer((SPEECH / CLIP).read_bytes()[44:], np.int16)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, raw.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp3", "mp3", 44_100), ("a.flac", "flac", 48_000), ("a.m4a", "aac", 44_100), ("a.webm", "libopus", 48_000)],
)
def test_other_formats_sound_the_same(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    original = decode(SPEECH / CLIP, max_audio_s=60)
    samples = decode(reencoded(CLIP, tmp_path / name, codec, rate), max_audio_s=60)
    assert len(samples) / SAMPLE_RATE == pytest.approx(CLIP_S, abs=0.1)
    # Loudness over time, in steps of 50 ms, survives any codec; codecs shift the samples a little.
    blocks = [s[: len(original) // 800 * 800].reshape(-1, 800) for s in (original, samples)]
    loudness = [np.sqrt((block**2).mean(axis=1)) for block in blocks]
    assert np.corrcoef(*loudness)[0, 1] > 0.95


def test_a_picture_named_wav_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "picture.wav"
    Image.new("RGB", (64, 64), "red").save(path, "PNG")
    with pytest.raises(InvalidInput, match=r"input\.audio: not a recording in a known format"):
        decode(path, max_audio_s=60)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 500, bytes(5000)])
def test_other_bytes_are_no_recording(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"input\.audio"):
        decode(path, max_audio_s=60)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:7,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("list.wav", "ffconcat version 1.0\nfile {clip}\n"),
        ("list.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{clip}</BaseURL></MPD>'),
    ],
)
def test_a_file_that_names_other_files_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text.format(clip=SPEECH / CLIP))
    with pytest.raises(InvalidInput, match="not a recording in a known format"):
        decode(path, max_audio_s=60)


def test_a_recording_without_samples_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"input\.audio: the recording is empty"):
        decode(wav(tmp_path / "empty.wav", 0), max_audio_s=60)


def test_a_video_without_sound_has_no_audio_stream(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidInput, match="no audio stream"):
        decode(path, max_audio_s=60)


def test_a_long_recording_is_refused_without_being_read(tmp_path: Path) -> None:
    grown, message = refusal(wav(tmp_path / "long.wav", 3 * 3600), 7200)
    assert message == "the recording is 10800.0 s long and is over this model's limit of 7200 s"
    assert grown < 20e6


def test_a_recording_a_little_over_the_limit_is_stopped_there(tmp_path: Path) -> None:
    # Header lengths are estimates: so near the limit, what was decoded counts.
    path = reencoded(CLIP, tmp_path / "a.mp3", "mp3", 44_100)
    with pytest.raises(InvalidInput, match=r"the recording is over this model's limit of 7 s"):
        decode(path, max_audio_s=7.0)


def test_a_frame_that_claims_to_last_minutes_is_refused_before_it_is_resampled(tmp_path: Path) -> None:
    path = tmp_path / "slow.flac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=8, options={"frame_size": "4608"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    grown, message = refusal(path, 7200)
    assert message == "8 samples per second is no recording of speech"
    assert grown < 50e6, "resampled, the one frame of this 8 kB file takes 160 MB"


def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    path = reencoded(CLIP, tmp_path / "a.mp3", "mp3", 44_100)
    content = bytearray(path.read_bytes())
    content[20_000:20_400] = bytes(400)
    path.write_bytes(content)
    assert len(decode(path, max_audio_s=60)) / SAMPLE_RATE == pytest.approx(CLIP_S, abs=0.3)
