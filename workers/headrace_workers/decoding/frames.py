"""What supervisor, nursery and children say to each other: one MessagePack frame a packet.

An `Order` carries two descriptors: the file, open for reading, and an empty one for the samples, open for writing.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

SAMPLE_RATE = 16_000
"""Samples per second of everything that is decoded: what speech models are trained on."""
SAMPLE_BYTES = 2
"""Samples are 16-bit integers of the machine's byte order, mono, with no header."""

# A packet is read as a whole into memory. Answers are small; a child that sends more is ended.
MAX_PACKET_BYTES = 8192
MAX_ANSWER_BYTES = 1024

# A child's first byte, sent when every right is gone and before it reads the file: how it ends after that is the
# file's doing, before it is ours.
CONFINED = b"\x01"
NOT_CONFINED = b"\x00"
"""The first byte instead, where a layer did not hold; the reason follows, and the child ends."""


class Frame(msgspec.Struct, frozen=True, tag_field="frame"):
    """Common to all frames."""


class Bounds(msgspec.Struct, frozen=True):
    """What the decoding of one file may take: the model's limits."""

    audio_s: float
    sample_rate: int
    """Samples per second of the file."""
    channels: int
    decode_s: float
    """Wall clock and CPU."""
    decode_bytes: int
    """Memory beside what the nursery has."""

    @property
    def output_bytes(self) -> int:
        """Size of the longest output: a resampler may give a few samples more than the clock says."""
        return int((self.audio_s + 1.0) * SAMPLE_RATE) * SAMPLE_BYTES


class Order(Frame, frozen=True, tag="order"):
    """Decode the file that comes with this frame."""

    number: int
    bounds: Bounds


class Abandon(Frame, frozen=True, tag="abandon"):
    """Nobody waits for it any more: end the child."""

    number: int


class Ready(Frame, frozen=True, tag="ready"):
    """The nursery is warm; a first child tried every layer."""

    held: tuple[str, ...]
    missing: dict[str, str]
    """Layer to the reason why this machine does not have it."""


class Ended(Frame, frozen=True, tag="ended"):
    """A child is gone."""

    number: int
    status: int
    """Exit status, or minus the signal that ended it."""
    late: bool
    """The nursery ended it at its deadline."""
    confined: bool
    """It had begun to read the file."""
    answer: bytes
    """What it sent; from a process that read a stranger's file, so nothing to be trusted."""


class NotStarted(Frame, frozen=True, tag="not_started"):
    """There was no child: the machine gives no more processes."""

    number: int
    reason: str


class Decoded(msgspec.Struct, frozen=True, tag="decoded"):
    """A child's answer: the output has `samples` samples."""

    samples: Annotated[int, Meta(ge=1)]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A child's answer: what is wrong with the file, for its sender."""

    problem: Annotated[str, Meta(max_length=200)]


class OutOfMemory(msgspec.Struct, frozen=True, tag="out_of_memory"):
    """A child's answer: the file needs more memory than it may."""


class OutOfDisk(msgspec.Struct, frozen=True, tag="out_of_disk"):
    """A child's answer: the worker's disk has no room for the samples."""


ToNursery = Order | Abandon
FromNursery = Ready | Ended | NotStarted
Answer = Decoded | Refused | OutOfMemory | OutOfDisk
