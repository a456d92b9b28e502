"""Recordings for tests: the bundled clips, and files made from them or from nothing."""

import os
import re
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from headrace_contracts.errors import InvalidInput
from headrace_contracts.limits import Limits
from headrace_workers.decoding.decoder import bounds_of
from headrace_workers.decoding.frames import Decoded, Refused
from headrace_workers.decoding.recording import decode_recording
from headrace_workers.engines.audio import read_samples

SPEECH = Path(__file__).parents[2] / "compose" / "headrace_local" / "data" / "speech"

_ROW = re.compile(r"^\| (?P<file>\S+\.wav) \| (?P<words>.+) \|$", re.MULTILINE)


def clips() -> dict[str, str]:
    """File name to the words that are spoken."""
    return {row["file"]: row["words"] for row in _ROW.finditer((SPEECH / "README.md").read_text())}


def words_of(text: str) -> list[str]:
    """Lower case, no punctuation, the one abbreviation of the clips spelled out."""
    return re.findall(r"[a-z']+", text.lower().replace("mr.", "mister").replace("-", " "))


def word_errors(heard: list[str], said: list[str]) -> int:
    """Words inserted, left out or replaced: the edit distance."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (word != other)))
    return row[-1]


def reencoded(clip: str, to: Path, codec: str, rate: int, layout: str = "stereo") -> Path:
    """A clip in another format; the container follows from the name of `to`."""
    with av.open(str(SPEECH / clip)) as source, av.open(str(to), "w") as target:
        stream = target.add_stream(codec, rate=rate)
        stream.layout = layout
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for frame in [*source.decode(audio=0), None]:
            for piece in resampler.resample(frame):
                target.mux(stream.encode(piece))
        target.mux(stream.encode(None))
    return to


def wav(path: Path, seconds: float, *, rate: int = 16_000, body: bytes = b"") -> Path:
    """A mono 16-bit WAV of `seconds`; silence after `body`, as a hole in the file that takes no disk."""
    size = int(seconds * rate) * 2
    header = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16) + b"data" + struct.pack("<I", size)
    with path.open("wb") as file:
        file.write(header + body)
        file.truncate(len(header) + size)
    return path


def decode(path: Path, **limits: float) -> npt.NDArray[np.float32]:
    """A recording as the engine gets it, decoded right here, in the test's own process."""
    with tempfile.NamedTemporaryFile() as target:
        decode_to(path, Path(target.name), **limits)
        return read_samples(Path(target.name))


def decode_to(path: Path, samples: Path, **limits: float) -> None:
    """Write a recording's samples to a file, in the test's own process."""
    source, target = os.open(path, os.O_RDONLY), os.open(samples, os.O_WRONLY | os.O_CREAT)
    try:
        answer = decode_recording(source, target, bounds_of(Limits(**limits)))
    finally:
        os.close(source)
        os.close(target)
    if isinstance(answer, Refused):
        raise InvalidInput("input.audio", answer.problem)
    assert isinstance(answer, Decoded), answer
