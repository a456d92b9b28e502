"""The Python examples, run as a user runs them."""

import json
import sys
from pathlib import Path

import pytest
from example_runs import System

from headrace_workers.engines.synthetic import artifact_bytes

PYTHON = Path(__file__).parents[2] / "examples" / "python"

pytestmark = pytest.mark.slow

JOB = json.dumps({"echo": "hello", "steps": 2, "output_bytes": 5000, "seed": 3})


async def test_raw_client(synthetic: System) -> None:
    ran = await synthetic.run(sys.executable, PYTHON / "raw_client.py", "echo", JOB)

    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("submitted: job seq-")
    assert any(line.startswith("succeeded {'echo': 'hello'") for line in lines)
    assert lines[-1] == "saved data.bin"
    assert (synthetic.folder / "data.bin").read_bytes() == artifact_bytes(3, 5000)


async def test_raw_client_shows_the_events(synthetic: System) -> None:
    job = json.dumps({"steps": 3, "step_s": 0.2})

    ran = await synthetic.run(sys.executable, PYTHON / "raw_client.py", "echo", job)

    assert ran.out.splitlines()[1:3] == ["started", "progress step=1.0 total=3.0"]


async def test_raw_client_says_why_a_job_failed(synthetic: System) -> None:
    ran = await synthetic.run(sys.executable, PYTHON / "raw_client.py", "echo", '{"behaviour": "error"}')

    assert ran.status == 1
    assert ran.out.splitlines()[-1] == "failed the input asked for an error"


async def test_sync_client(synthetic: System) -> None:
    ran = await synthetic.run(sys.executable, PYTHON / "sync_client.py", "echo", JOB)

    assert ran.status == 0, ran.err
    first, saved = ran.out.splitlines()
    assert " succeeded on " in first
    assert saved == "saved out/data.bin"
    assert (synthetic.folder / "out" / "data.bin").read_bytes() == artifact_bytes(3, 5000)


@pytest.mark.parametrize(
    ("job", "status", "sentence"),
    [
        ('{"behaviour": "error"}', 1, "failed: the input asked for an error [model_error]"),
        ('{"steps": 101}', 2, "input.steps: 101 is over this model's limit of 100"),
    ],
)
async def test_sync_client_says_what_was_wrong(synthetic: System, job: str, status: int, sentence: str) -> None:
    ran = await synthetic.run(sys.executable, PYTHON / "sync_client.py", "echo", job)

    assert (ran.status, ran.out) == (status, f"{sentence}\n")


@pytest.mark.models
async def test_async_client_streams_and_sends_many(bundled: System) -> None:
    script = PYTHON / "async_client.py"
    capital = "What is the capital of France?"

    ran = await bundled.run(sys.executable, script, "smollm2-135m", capital, capital, "Name a colour.")

    assert ran.status == 0, ran.err
    first, second, third = ran.out.splitlines()
    assert "Paris" in first
    assert second == first  # greedy: streamed or not, the same text
    assert third
