"""What the end of a child means for the job: the one place that says whose fault it is. Pure."""

import math
import signal

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, InvalidInput, Retryable
from headrace_workers.decoding.frames import (
    SAMPLE_BYTES,
    Answer,
    Bounds,
    Decoded,
    Ended,
    OutOfDisk,
    OutOfMemory,
    Refused,
)

_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def samples_of(ended: Ended, bounds: Bounds, field: str, output_bytes: int) -> int:
    """Samples in the output of a child that did its work.

    Args:
        ended: how the child ended.
        bounds: what it was allowed.
        field: of the job's input, as in `audio`.
        output_bytes: size of the file it wrote.

    Raises:
        InvalidInput: the file is none, is over a limit, or made its decoder crash.
        Retryable: the child failed before it read the file, or had no disk to write to.
    """
    where = f"input.{field}"
    if not ended.confined:
        # Late or killed as well: it had not read a byte of the file, so the file cannot be why.
        reason = ended.answer.decode(errors="replace") or f"exit status {ended.status}"
        raise unavailable(f"its process could not be confined ({reason})")
    if ended.late or ended.status == -signal.SIGXCPU:
        raise InvalidInput(where, f"takes more than {bounds.decode_s:g} s to decode, which is this model's limit")
    if ended.status == -signal.SIGSYS:
        raise InvalidInput(where, "makes its decoder ask the system for what no recording needs")
    if ended.status == -signal.SIGKILL:
        raise InvalidInput(where, "its decoder was killed by the system, mostly for want of memory")
    if ended.status < 0:
        raise InvalidInput(where, f"makes its decoder crash ({_signal_name(-ended.status)})")
    match _read(ended.answer) if ended.status == 0 else None:
        case Decoded(samples=samples) if samples * SAMPLE_BYTES == output_bytes <= bounds.output_bytes:
            return samples
        case Refused(problem=problem):
            raise InvalidInput(where, problem)
        case OutOfDisk():
            raise unavailable("its disk is full")
        case OutOfMemory():
            megabytes = math.ceil(bounds.decode_bytes / 2**20)
            raise InvalidInput(where, f"takes more than {megabytes} MB to decode, which is this model's limit")
        case _:
            raise InvalidInput(where, "makes its decoder fail without a word")


def unavailable(reason: str) -> Retryable:
    """Files cannot be decoded here right now: a fault of this worker's machine, and no file's."""
    return Retryable(ErrorCode.INTERNAL, f"the worker could not decode the input: {reason}", Fault.WORKER)


def _read(answer: bytes) -> Answer | None:
    try:
        return _answers.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
