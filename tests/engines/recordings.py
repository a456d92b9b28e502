"""Recordings for tests: the bundled clips, and files made from them or from nothing."""

import re
import struct
from pathlib import Path

import av

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
