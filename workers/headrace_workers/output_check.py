"""Whether what an engine made may be given out: every file is there and every number is one.

The last line behind the engines' own checks: encoders write a NaN as null or as black, and nobody would see it again.
"""

import math
from pathlib import Path
from typing import Any

import msgspec

from headrace_contracts.errors import ErrorCode, Fault, Permanent
from headrace_workers.frames import Done


def check_output(done: Done, out_dir: Path) -> None:
    """Refuse an output with a number that is none, or with a file that is missing or empty.

    Raises:
        Permanent: `invalid_output`; the same input would give the same again.
    """
    bad = _not_a_number(msgspec.msgpack.decode(done.output), "output")
    if bad is not None:
        raise _invalid(f"the model computed values that are no numbers (NaN or infinite): {bad}")
    for file in done.files:
        path = out_dir / file.name
        if not path.is_file() or path.stat().st_size == 0:
            raise _invalid(f"the model made no {file.name}: the file is missing or empty")


def _not_a_number(value: Any, place: str) -> str | None:  # noqa: ANN401 - a decoded message, of any shape
    """Where the first such number is, or None."""
    match value:
        case float() if not math.isfinite(value):
            return place
        case dict():
            return next((bad for key, item in value.items() if (bad := _not_a_number(item, f"{place}.{key}"))), None)
        case list():
            return next((bad for i, item in enumerate(value) if (bad := _not_a_number(item, f"{place}[{i}]"))), None)
    return None


def _invalid(problem: str) -> Permanent:
    return Permanent(ErrorCode.INVALID_OUTPUT, problem, Fault.MODEL)
