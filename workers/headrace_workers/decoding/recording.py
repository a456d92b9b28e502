"""Any recording becomes 16 kHz mono samples, in bounded memory; what is no recording is refused.

The work of a child. The file comes from a stranger: it is read through one open descriptor, only containers of plain
recordings are opened, never playlists or anything else that names other files or addresses, only decoders of sound are
used, and every bound is checked before the memory is taken.
"""

import errno
import functools
import os
from collections.abc import Iterator

import av
import av.logging

from headrace_workers.decoding.frames import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    Answer,
    Bounds,
    Decoded,
    OutOfDisk,
    OutOfMemory,
    Refused,
)

# Names of FFmpeg's demuxers. Left out on purpose: hls, dash, concat, image sequences, devices, network.
CONTAINERS = "wav,w64,mp3,flac,ogg,mov,matroska,aac,aiff,caf,amr,au,asf,avi,mpegts,ac3,eac3"

# Far below any telephone. A frame is resampled as a whole: one of 65 535 samples that claims 1 Hz would take 18 GB.
_MIN_SAMPLE_RATE = 1_000

# Header durations are estimates (bit rate times size), so only a clear excess is refused without decoding.
_HEADER_TOLERANCE = 1.05


class _Unfit(Exception):
    """The file is refused; its text is for the sender."""


def decode_recording(source: int, target: int, bounds: Bounds) -> Answer:
    """Write the first audio stream of a file as samples. Damaged packets are skipped, as players do.

    Args:
        source: descriptor of the file, open for reading, seekable.
        target: descriptor that takes the samples: 16-bit, 16 kHz, mono.
        bounds: what the file may be and take.
    """
    try:
        samples = 0
        for piece in _samples(source, bounds):
            _write(target, piece)
            samples += len(piece) // SAMPLE_BYTES
    except _Unfit as error:
        return Refused(str(error))
    except (MemoryError, av.error.MemoryError):
        return OutOfMemory()
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            return OutOfMemory()
        return Refused("not a recording in a known format (WAV, MP3, FLAC, OGG, M4A ...)")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutOfDisk()
        raise
    if not samples:
        return Refused("the recording is empty: it has no samples that can be read")
    return Decoded(samples)


def warm_up(silence: int) -> None:
    """Decode once, so that a child finds all code in memory: it cannot load any.

    Args:
        silence: descriptor of an empty file, which is used up.
    """
    av.logging.set_level(None)
    size = 3200
    header = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    fmt = b"\x01\x00\x01\x00" + (8000).to_bytes(4, "little") + (16_000).to_bytes(4, "little") + b"\x02\x00\x10\x00"
    os.pwrite(silence, header + fmt + b"data" + size.to_bytes(4, "little") + bytes(size), 0)
    bounds = Bounds(audio_s=1.0, sample_rate=8000, channels=1, decode_s=1.0, decode_bytes=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        answer = decode_recording(silence, nowhere, bounds)
        assert isinstance(answer, Decoded), answer
        os.ftruncate(silence, 10)
        assert isinstance(decode_recording(silence, nowhere, bounds), Refused)
    finally:
        os.close(nowhere)


@functools.cache
def _sound_decoders() -> str:
    """Every decoder of sound, and none of pictures: a film's video is not even looked into."""
    return ",".join(sorted(name for name in av.codecs_available if _decodes_sound(name)))


def _decodes_sound(name: str) -> bool:
    try:
        return bool(av.Codec(name, "r").type == "audio")
    except av.codec.codec.UnknownCodecError:  # it only encodes
        return False


def _samples(source: int, bounds: Bounds) -> Iterator[memoryview]:
    """16-bit samples, 16 kHz, mono, piece by piece."""
    options = {
        "format_whitelist": CONTAINERS,
        "codec_whitelist": _sound_decoders(),
        "protocol_whitelist": "none",  # the file is read here; FFmpeg opens nothing
    }
    with av.open(_OpenFile(source), metadata_errors="ignore", options=options) as container:
        if not container.streams.audio:
            raise _Unfit("the file has no audio stream")
        header_s = container.duration / av.time_base if container.duration else 0.0
        if header_s > bounds.audio_s * _HEADER_TOLERANCE:
            raise _too_long(header_s, bounds)
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise _Unfit("the sound is in a format that no decoder here knows")
        _check_shape(stream.codec_context.sample_rate, stream.codec_context.channels, bounds)
        stream.codec_context.thread_count = 1  # a child has no right to start threads
        yield from _resampled(_frames(container, stream), bounds)


def _resampled(frames: Iterator[av.AudioFrame], bounds: Bounds) -> Iterator[memoryview]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    seconds = 0.0
    for frame in frames:
        _check_shape(frame.sample_rate, frame.layout.nb_channels, bounds)
        seconds += frame.samples / frame.sample_rate
        if seconds > bounds.audio_s:
            raise _too_long(None, bounds)
        frame.pts = None  # timestamps of damaged files jump; samples are counted instead
        try:
            pieces = resampler.resample(frame)
        except ValueError as error:
            raise _Unfit("the recording changes its sample rate or channels midway") from error
        for piece in pieces:
            yield _bytes_of(piece)
    if seconds:
        for piece in resampler.resample(None):
            yield _bytes_of(piece)


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _check_shape(sample_rate: int, channels: int, bounds: Bounds) -> None:
    """Before a frame is resampled, which takes memory by its rate and channels. 0: the header does not say."""
    if 0 < sample_rate < _MIN_SAMPLE_RATE:
        raise _Unfit(f"{sample_rate} samples per second is no recording of speech")
    if sample_rate > bounds.sample_rate:
        raise _Unfit(f"{sample_rate} samples per second is over this model's limit of {bounds.sample_rate}")
    if channels > bounds.channels:
        raise _Unfit(f"{channels} channels is over this model's limit of {bounds.channels}")


def _bytes_of(piece: av.AudioFrame) -> memoryview:
    """A frame's samples; its buffer is longer, for alignment."""
    return memoryview(piece.planes[0])[: piece.samples * SAMPLE_BYTES]


def _write(target: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(target, piece) :]


def _too_long(length_s: float | None, bounds: Bounds) -> _Unfit:
    length = "the recording" if length_s is None else f"the recording is {length_s:.1f} s long and"
    return _Unfit(f"{length} is over this model's limit of {bounds.audio_s:g} s")


class _OpenFile:
    """What FFmpeg reads: an open descriptor, and nothing that has a name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.lseek(descriptor, 0, os.SEEK_END)
        self._at = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the start of the file")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at
