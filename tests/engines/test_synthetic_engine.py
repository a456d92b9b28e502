"""The synthetic engine: every behaviour, and a journal that tells what really ran."""

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from recording import Bench

from headrace_contracts.errors import ErrorCode, InvalidInput
from headrace_contracts.limits import Limits
from headrace_contracts.model import Batching, EngineKind, ModelSpec
from headrace_contracts.tasks.registry import Task
from headrace_contracts.tasks.synthetic import MAX_OUTPUT_BYTES, Behaviour, SyntheticInput
from headrace_workers.engines.base import DeviceError
from headrace_workers.engines.execution_journal import Entry, Moment
from headrace_workers.engines.registry import make_engine
from headrace_workers.engines.synthetic import artifact_bytes

MIB = 1 << 20


def bench(folder: Path, **options: str) -> Bench:
    spec = ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC, options=options, batching=Batching(4))
    return Bench(make_engine(spec.engine), spec, None, folder)


def journal(path: Path) -> list[Entry]:
    return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("behaviour", "size_bytes", "message"),
    [
        (Behaviour.NAN, 0, "not a number"),
        (Behaviour.NAN, 1000, "not a number"),
        (Behaviour.EMPTY, 1000, "no artifact"),
    ],
)
def test_an_output_that_is_none_is_not_reported_as_success(
    behaviour: Behaviour, size_bytes: int, message: str, tmp_path: Path
) -> None:
    [record] = bench(tmp_path).run(SyntheticInput(behaviour, output_bytes=size_bytes))
    assert record.finished is None
    assert record.failed is not None
    assert record.failed.code is ErrorCode.INVALID_OUTPUT
    assert not record.failed.retryable
    assert message in record.failed.message


def test_a_broken_device_fails_every_later_call(tmp_path: Path) -> None:
    broken = bench(tmp_path)
    broken.admit(SyntheticInput(Behaviour.STICKY))
    with pytest.raises(DeviceError):
        broken.engine.step()
    with pytest.raises(DeviceError):
        broken.engine.step()
    with pytest.raises(DeviceError):
        broken.admit(SyntheticInput())


def test_a_leak_stays_and_the_job_succeeds(tmp_path: Path) -> None:
    leaking = SyntheticInput(Behaviour.LEAK, memory_bytes=40 * MIB)
    began, ended, _ = memory_of(tmp_path, *[leaking] * 4)
    assert ended - began > 150 * MIB


def test_a_memory_hog_takes_what_it_says_and_gives_it_back(tmp_path: Path) -> None:
    began, ended, peak = memory_of(tmp_path, SyntheticInput(Behaviour.MEMORY_HOG, memory_bytes=200 * MIB))
    assert peak - began > 150 * MIB
    assert ended - began < 100 * MIB


MEMORY = """
import resource, sys
from pathlib import Path
import msgspec, psutil
from headrace_contracts.tasks.synthetic import SyntheticInput
from test_synthetic_engine import bench

rig = bench(Path(sys.argv[1]))
began = psutil.Process().memory_info().rss
for given in msgspec.json.decode(sys.argv[2], type=list[SyntheticInput]):
    [record] = rig.run(given)
    assert record.finished is not None
print(began, psutil.Process().memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def memory_of(folder: Path, *inputs: SyntheticInput) -> tuple[int, int, int]:
    """Resident bytes of a process of its own, before and after it ran these jobs, and at its peak.

    Not of this one: what other tests gave back would be taken again.
    """
    command = [sys.executable, "-c", MEMORY, str(folder), msgspec.json.encode(inputs).decode()]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    began, ended, peak = done.stdout.split()
    return int(began), int(ended), int(peak)


def test_an_artifact_follows_from_seed_and_size_and_is_the_same_in_pieces() -> None:
    for size_bytes in (1, 5, MIB - 1, MIB, MIB + 3, 3 * MIB + 2):
        assert artifact_bytes(7, size_bytes) == random.Random(7).randbytes(size_bytes)


def test_a_huge_output_has_to_be_asked_for_by_name(tmp_path: Path) -> None:
    size_bytes = MAX_OUTPUT_BYTES + 5
    with pytest.raises(InvalidInput, match="huge_output"):
        SyntheticInput(output_bytes=size_bytes).check(Limits())
    huge = SyntheticInput(Behaviour.HUGE_OUTPUT, output_bytes=size_bytes, seed=3)
    huge.check(Limits())
    [record] = bench(tmp_path).run(huge)
    assert record.finished is not None
    [file] = record.finished.files
    [path] = tmp_path.rglob(file.name)
    with path.open("rb") as written:
        assert hashlib.file_digest(written, "sha256").digest() == hashlib.sha256(artifact_bytes(3, size_bytes)).digest()


def test_steps_that_ignore_a_cancel_are_one_call(tmp_path: Path) -> None:
    deaf = bench(tmp_path)
    run_id = deaf.admit(SyntheticInput(Behaviour.IGNORES_CANCEL, steps=5, step_s=0.01))
    deaf.sink.to_cancel.add(run_id)
    deaf.engine.step()
    record = deaf.record(run_id)
    assert record.finished is not None
    assert [step for step, _ in record.progress] == [1, 2, 3, 4, 5]


def test_the_journal_tells_starts_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    noting = bench(tmp_path, journal=str(path))
    noting.run(SyntheticInput(echo="first"))
    noting.run(SyntheticInput(Behaviour.ERROR, echo="second"))
    run_id = noting.admit(SyntheticInput(steps=2, echo="third"))
    noting.engine.step()
    noting.engine.drop(run_id)
    entries = journal(path)
    assert [(e.moment, e.echo, e.how) for e in entries] == [
        (Moment.START, "first", ""),
        (Moment.FINISH, "first", ""),
        (Moment.START, "second", ""),
        (Moment.END, "second", "error"),
        (Moment.START, "third", ""),
        (Moment.END, "third", "dropped"),
    ]
    assert {e.pid for e in entries} == {os.getpid()}
    times = [e.monotonic_s for e in entries]
    assert times == sorted(times)


def test_a_crash_is_in_the_journal_of_the_process_that_died_of_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from test_synthetic_engine import *;"
        "bench(Path(sys.argv[2]), journal=sys.argv[3]).run(SyntheticInput(Behaviour.CRASH))"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path), str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGSEGV
    assert [(e.moment, e.how) for e in journal(path)] == [(Moment.START, ""), (Moment.END, "crash")]
