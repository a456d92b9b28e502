"""Decoding: any recording to 16 kHz mono, and a clear refusal of everything else."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor
from PIL import Image
from recordings import SPEECH, reencoded, wav

from headrace_contracts.errors import InvalidInput
from headrace_workers.engines.audio import SAMPLE_RATE, decode_audio
from headrace_workers.engines.mel import BlockwiseFeatureExtractor

CLIP = "dashwood-7s.wav"
CLIP_S = 7.1


# VmHWM, for ru_maxrss of a new process begins with its parent's.
DECODE = """
import sys
from pathlib import Path
from headrace_contracts.errors import InvalidInput
from headrace_workers.engines.audio import decode_audio
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
try:
    decode_audio(Path(sys.argv[1]), float(sys.argv[2]))
except InvalidInput as error:
    print(peak() - before, error)
"""


def refusal(path: Path, max_s: float) -> tuple[int, str]:
    """Bytes of memory that refusing a recording took, and what it says, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", DECODE, str(path), str(max_s)], capture_output=True, text=True)
    grown, _, message = done.stdout.strip().partition(" ")
    assert grown, f"not refused: {done.stderr}"
    return int(grown), message


def test_a_wav_of_the_models_own_rate_is_read_exactly() -> None:
    samples = decode_audio(SPEECH / CLIP, 60)
    raw = np.frombuffer((SPEECH / CLIP).read_bytes()[44:], np.int16)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, raw.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp3", "mp3", 44_100), ("a.flac", "flac", 48_000), ("a.m4a", "aac", 44_100), ("a.webm", "libopus", 48_000)],
)
def test_other_formats_sound_the_same(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    original = decode_audio(SPEECH / CLIP, 60)
    samples = decode_audio(reencoded(CLIP, tmp_path / name, codec, rate), 60)
    assert len(samples) / SAMPLE_RATE == pytest.approx(CLIP_S, abs=0.1)
    # Loudness over time, in steps of 50 ms, survives any codec; codecs shift the samples a little.
    blocks = [s[: len(original) // 800 * 800].reshape(-1, 800) for s in (original, samples)]
    loudness = [np.sqrt((block**2).mean(axis=1)) for block in blocks]
    assert np.corrcoef(*loudness)[0, 1] > 0.95


def test_a_picture_named_wav_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "picture.wav"
    Image.new("RGB", (64, 64), "red").save(path, "PNG")
    with pytest.raises(InvalidInput, match=r"input\.audio: not a recording in a known format"):
        decode_audio(path, 60)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 500, bytes(5000)])
def test_other_bytes_are_no_recording(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"input\.audio"):
        decode_audio(path, 60)


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
        decode_audio(path, 60)


def test_a_recording_without_samples_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"input\.audio: the recording is empty"):
        decode_audio(wav(tmp_path / "empty.wav", 0), 60)


def test_a_video_without_sound_has_no_audio_stream(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidInput, match="no audio stream"):
        decode_audio(path, 60)


def test_a_long_recording_is_refused_without_being_read(tmp_path: Path) -> None:
    grown, message = refusal(wav(tmp_path / "long.wav", 3 * 3600), 7200)
    assert message == "input.audio: the recording is 10800.0 s long and is over this model's limit of 7200 s"
    assert grown < 20e6


def test_a_recording_a_little_over_the_limit_is_stopped_there(tmp_path: Path) -> None:
    # Header lengths are estimates: so near the limit, what was decoded counts.
    path = reencoded(CLIP, tmp_path / "a.mp3", "mp3", 44_100)
    with pytest.raises(InvalidInput, match=r"the recording is over this model's limit of 7 s"):
        decode_audio(path, 7.0)


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
    assert message == "input.audio: 8 samples per second is no recording of speech"
    assert grown < 50e6, "resampled, the one frame of this 8 kB file takes 160 MB"


def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    path = reencoded(CLIP, tmp_path / "a.mp3", "mp3", 44_100)
    content = bytearray(path.read_bytes())
    content[20_000:20_400] = bytes(400)
    path.write_bytes(content)
    assert len(decode_audio(path, 60)) / SAMPLE_RATE == pytest.approx(CLIP_S, abs=0.3)


@pytest.mark.parametrize("samples", [1, 200, 16_000, 16_000 * 61 + 77])
def test_blockwise_features_are_the_librarys(samples: int) -> None:
    waveform = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    # From almost nothing to loud: what is quiet is cut off relative to the loudest point of all blocks.
    waveform *= np.logspace(-8, -1, samples, dtype=np.float32)
    expected, ours = FeatureExtractor()(waveform), BlockwiseFeatureExtractor()(waveform)
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    assert np.abs(ours - expected).max(initial=0) < 1e-5
