"""Any recording becomes 16 kHz mono samples, in bounded memory; what is no recording is refused.

The file comes from a stranger. Only containers of plain recordings are opened, never playlists or anything else that
names other files or addresses, and every bound is checked before the memory is taken.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from headrace_contracts.errors import InvalidInput

SAMPLE_RATE = 16_000

# Names of FFmpeg's demuxers. Left out on purpose: hls, dash, concat, image sequences, devices, network.
CONTAINERS = "wav,w64,mp3,flac,ogg,mov,matroska,aac,aiff,caf,amr,au,asf,avi,mpegts,ac3,eac3"

# Far below any telephone. A frame is resampled as a whole: one of 65 535 samples that claims 1 Hz would take 18 GB.
_MIN_SAMPLE_RATE = 1_000

_FIELD = "input.audio"

# Header durations are estimates (bit rate times size), so only a clear excess is refused without decoding.
_HEADER_TOLERANCE = 1.05


def decode_audio(path: Path, max_s: float) -> npt.NDArray[np.float32]:
    """The first audio stream of a file as samples in -1..1, 16 kHz, mono.

    Damaged packets are skipped, as players do.

    Raises:
        InvalidInput: no recording, an empty one, or one longer than `max_s` seconds.
    """
    pcm = bytearray()
    try:
        with av.open(
            str(path.absolute()),
            metadata_errors="ignore",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
        ) as container:
            if not container.streams.audio:
                raise InvalidInput(_FIELD, "the file has no audio stream")
            header_s = container.duration / av.time_base if container.duration else 0.0
            if header_s > max_s * _HEADER_TOLERANCE:
                raise _too_long(header_s, max_s)
            for piece in _resampled(container, max_s):
                pcm += piece
    except av.error.FFmpegError as error:
        raise InvalidInput(_FIELD, "not a recording in a known format (WAV, MP3, FLAC, OGG, M4A ...)") from error
    if not pcm:
        raise InvalidInput(_FIELD, "the recording is empty: it has no samples that can be read")
    samples = np.frombuffer(pcm, np.int16).astype(np.float32)
    samples /= 32768.0
    return samples


def _resampled(container: av.container.InputContainer, max_s: float) -> Iterator[bytes]:
    """16-bit samples, 16 kHz, mono, piece by piece."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    seconds = 0.0
    for frame in _frames(container):
        if frame.sample_rate < _MIN_SAMPLE_RATE:
            raise InvalidInput(_FIELD, f"{frame.sample_rate} samples per second is no recording of speech")
        seconds += frame.samples / frame.sample_rate
        if seconds > max_s:
            raise _too_long(None, max_s)
        frame.pts = None  # timestamps of damaged files jump; samples are counted instead
        try:
            for piece in resampler.resample(frame):
                yield piece.to_ndarray().tobytes()
        except ValueError as error:
            raise InvalidInput(_FIELD, "the recording changes its sample rate or channels midway") from error
    if seconds:
        for piece in resampler.resample(None):
            yield piece.to_ndarray().tobytes()


def _frames(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    for packet in container.demux(container.streams.audio[0]):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _too_long(length_s: float | None, max_s: float) -> InvalidInput:
    length = "the recording" if length_s is None else f"the recording is {length_s:.1f} s long and"
    return InvalidInput(_FIELD, f"{length} is over this model's limit of {max_s:g} s")
