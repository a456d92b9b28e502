"""Processes that are told from each other although ids are reused: no signal reaches a stranger."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from headrace_scaler.launchers.process import ProcessMark, find_by_output, kill_session, mark_of, runs, terminate


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def mark(process: subprocess.Popen[bytes]) -> ProcessMark:
    found = mark_of(process.pid)
    assert found is not None
    return found


def test_a_process_runs_until_it_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    own = mark(sleeper)
    assert runs(own)
    terminate(own)
    assert sleeper.wait(timeout=60) == -signal.SIGTERM
    assert not runs(own)
    assert mark_of(sleeper.pid) is None


@pytest.mark.parametrize("change", [{"started_ticks": 1}, {"boot": "another"}])
def test_another_process_of_the_same_id_is_not_signalled(
    sleeper: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    other = msgspec.structs.replace(mark(sleeper), **change)
    assert not runs(other)
    terminate(other)
    kill_session(other)
    # Signals are there when the next call returns; it would be a zombie, or gone.
    assert sleeper.poll() is None
    assert runs(mark(sleeper))


PARENT = """
import subprocess, time
subprocess.Popen(["sleep", "600"], process_group=0)
print("ready", flush=True)
time.sleep(600)
"""


def test_members_of_a_session_are_killed_and_no_others() -> None:
    """Also one that made a process group of its own, and when their leader has ended."""
    leader = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True, stdout=subprocess.PIPE)
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        assert leader.stdout is not None
        leader.stdout.readline()
        own = mark(leader)
        [child_process] = psutil.Process(leader.pid).children()
        child = mark_of(child_process.pid)
        assert child is not None
        leader.kill()
        leader.wait()
        assert runs(child)
        kill_session(own)
        psutil.wait_procs([child_process], timeout=60)
        assert not runs(child)
        assert runs(mark(other))
        kill_session(mark(other))
        assert other.wait(timeout=60) == -signal.SIGKILL
    finally:
        leader.kill()
        leader.communicate()
        other.kill()
        other.wait()


def test_a_process_is_found_by_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert find_by_output(log) is None
    with log.open("ab") as output:
        process = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=output)
        # Not the leader of a session: a child of a worker.
        other = subprocess.Popen(["sleep", "600"], stdout=output)
    try:
        assert find_by_output(log) == mark(process)
        process.kill()
        process.wait()
        assert find_by_output(log) is None
    finally:
        other.kill()
        other.wait()
