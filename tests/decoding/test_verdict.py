"""Whose fault the end of a child is."""

import signal

import msgspec
import pytest

from headrace_contracts.errors import InvalidInput, Retryable
from headrace_workers.decoding.frames import Answer, Bounds, Decoded, Ended, OutOfDisk, OutOfMemory, Refused
from headrace_workers.decoding.verdict import samples_of

BOUNDS = Bounds(audio_s=10.0, sample_rate=48_000, channels=2, decode_s=5.0, decode_bytes=64 * 2**20)


def ended(answer: Answer | bytes = b"", *, status: int = 0, late: bool = False, confined: bool = True) -> Ended:
    said = answer if isinstance(answer, bytes) else msgspec.msgpack.encode(answer)
    return Ended(1, status, late, confined, said)


def test_samples_that_are_there_count() -> None:
    assert samples_of(ended(Decoded(100)), BOUNDS, "audio", 200) == 100


@pytest.mark.parametrize(
    ("end", "output_bytes", "problem"),
    [
        (ended(Refused("no recording")), 0, "no recording"),
        (ended(OutOfMemory()), 0, "takes more than 64 MB to decode"),
        (ended(late=True, status=-signal.SIGKILL), 0, "takes more than 5 s to decode"),
        (ended(status=-signal.SIGXCPU), 0, "takes more than 5 s to decode"),
        (ended(status=-signal.SIGKILL), 0, "killed by the system"),
        (ended(status=-signal.SIGSYS), 0, "what no recording needs"),
        (ended(status=-signal.SIGSEGV), 0, "crash (SIGSEGV)"),
        (ended(status=-40), 0, "crash (signal 40)"),
        (ended(status=1), 0, "without a word"),
        (ended(Decoded(100), status=1), 200, "without a word"),
        (ended(Decoded(100)), 198, "without a word"),
        (ended(Decoded(20 * 16_000)), 40 * 16_000, "without a word"),
        (ended(b"\xc1\xff"), 0, "without a word"),
        (ended(b"\xa1\xff"), 0, "without a word"),
        (ended(b""), 0, "without a word"),
        (ended(msgspec.msgpack.encode({"type": "refused", "problem": "x" * 201})), 0, "without a word"),
        (ended(msgspec.msgpack.encode({"type": "decoded", "samples": 0})), 0, "without a word"),
    ],
)
def test_what_ends_a_child_that_reads_the_file_is_the_files_fault(end: Ended, output_bytes: int, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        samples_of(end, BOUNDS, "audio", output_bytes)
    assert refused.value.field == "input.audio"
    assert problem in refused.value.problem


@pytest.mark.parametrize("late", [False, True])
def test_what_ends_a_child_before_that_is_the_workers_fault(late: bool) -> None:
    with pytest.raises(Retryable, match="could not be confined"):
        samples_of(ended(status=-signal.SIGKILL, late=late, confined=False), BOUNDS, "audio", 0)


def test_a_full_disk_is_the_workers_fault() -> None:
    with pytest.raises(Retryable, match="its disk is full"):
        samples_of(ended(OutOfDisk()), BOUNDS, "audio", 100)
