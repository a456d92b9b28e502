"""The last words of an engine, as they are logged."""

import msgspec

from headrace_workers.engine_words import WITHHELD, without_inputs

INPUT = msgspec.msgpack.encode({"prompt": "a portrait of Aunt Wilhelmina, 1903", "steps": 3})


def test_a_line_that_repeats_a_job_is_withheld() -> None:
    lines = [
        "CUDA error: device-side assert triggered",
        "truncated: ['portrait of Aunt Wilhelmina']",
        'prompt="Wilhelmina," is too long',
        "RuntimeError: out of memory",
    ]
    assert without_inputs(lines, [INPUT]) == [lines[0], WITHHELD, WITHHELD, lines[3]]


def test_without_jobs_nothing_is_withheld() -> None:
    assert without_inputs(["any line"], []) == ["any line"]
