"""Starts that do not go well, logs of workers, and what the end of the scaler means to them."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from launchers_places import DEADLINE_S, LONG_S, STAND_IN, LocalPlace, ended, free, order, until

from headrace_contracts.clock import SystemClock
from headrace_scaler.launchers import worker_logs
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.port import LaunchError
from headrace_scaler.launchers.process import ProcessMark, boot_id, find_by_output, mark_of, runs
from headrace_scaler.launchers.roster import Roster

pytestmark = pytest.mark.slow


# Starts that do not go well


class SlowSpawner:
    """Starts workers when it is allowed to, as a warm parent that is busy."""

    def __init__(self, spawner: ExecSpawner) -> None:
        self.spawner = spawner
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.then: Exception | None = None

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, status: Path) -> int:
        self.asked.set()
        await self.go.wait()
        pid = await self.spawner.spawn(arguments, environment, log, status)
        if self.then is not None:
            raise self.then
        return pid


@contextlib.asynccontextmanager
async def slowly(place: LocalPlace) -> AsyncIterator[tuple[LocalLauncher, SlowSpawner]]:
    async with ExecSpawner(STAND_IN) as spawner:
        slow = SlowSpawner(spawner)
        async with LocalLauncher(place.folder, place.settings, slow, os.environ, SystemClock()) as launcher:
            yield launcher, slow


async def test_a_caller_that_gives_up_does_not_lose_the_worker(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with slowly(place) as (launcher, spawner):
        starting = asyncio.create_task(launcher.start(one))
        await spawner.asked.wait()
        assert [each.ended for each in await launcher.running()] == [None]
        starting.cancel()
        await asyncio.wait([starting])
        await launcher.start(one)
        spawner.go.set()
        await until(launcher, lambda _: place.processes())
        assert len(await launcher.running()) == place.processes() == 1


async def test_a_launcher_that_is_left_waits_for_a_start(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with slowly(place) as (launcher, spawner):
        starting = asyncio.create_task(launcher.start(one))
        await spawner.asked.wait()
        asyncio.get_running_loop().call_later(0.05, spawner.go.set)
    await starting
    assert place.record(one.worker).process is not None


async def test_a_launcher_that_is_left_does_not_clean_up_behind_the_next_one(
    place: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the scratch folders of the other one's workers for nobody's."""
    cleaning, go_on = threading.Event(), threading.Event()

    def clean(roster: Roster) -> None:
        cleaning.set()
        go_on.wait()

    monkeypatch.setattr(Roster, "clean", clean)

    async def come_and_go() -> None:
        async with place.launcher():
            await asyncio.to_thread(cleaning.wait)

    leaving = asyncio.create_task(come_and_go())
    try:
        await asyncio.wait([leaving], timeout=0.2)  # more than leaving takes
        assert cleaning.is_set()
        assert not leaving.done()
    finally:
        go_on.set()
    await leaving


async def test_a_worker_that_is_stopped_while_it_is_started_is_told(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with slowly(place) as (launcher, spawner):
        starting = asyncio.create_task(launcher.start(one))
        await spawner.asked.wait()
        await launcher.stop(one.worker, LONG_S)
        spawner.go.set()
        await starting
        assert await ended(launcher, one.worker) == "SIGTERM"


async def test_a_start_that_fails_leaves_nothing(place: LocalPlace) -> None:
    place.program = (str(place.folder / "no such program"),)
    one = place.order()
    async with place.launcher() as launcher:
        with pytest.raises(LaunchError, match=f"worker {one.worker} cannot be started: .*No such file"):
            await launcher.start(one)
        assert await launcher.running() == ()
        assert await free(launcher, "cpu") == 3
    assert not list(place.folder.glob("*.json"))


async def test_a_start_that_fails_for_its_starter_alone_is_a_start(place: LocalPlace) -> None:
    """As when a warm parent dies between its fork and its answer."""
    one = order(place, "waits")
    async with slowly(place) as (launcher, spawner):
        spawner.then = LaunchError("the warm parent is gone")
        spawner.go.set()
        await launcher.start(one)
        assert [each.ended for each in await launcher.running()] == [None]
        assert place.record(one.worker).process is not None


# Logs


async def test_logs_of_a_crash_loop_do_not_pile_up(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_logs, "KEEP_LOGS", 2)
    async with place.launcher() as launcher:
        stays = place.order()
        await launcher.start(stays)
        names = []
        for _ in range(5):
            one = order(place, "fails")
            await launcher.start(one)
            await ended(launcher, one.worker)
            await launcher.forget(one.worker)
            names.append(f"{one.worker}.log")
        await launcher.start(place.order())
        left = {path.name for path in (place.folder / "logs").iterdir()}
    assert left & {f"{stays.worker}.log", *names} == {f"{stays.worker}.log", *names[-2:]}


def test_logs_are_few_bytes_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_logs, "KEEP_BYTES", 1000)
    for age, name in enumerate(("w-1.log", "w-2.log", "w-3.log", "w-3.log.1")):
        (tmp_path / name).write_bytes(bytes(400))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    worker_logs.prune(tmp_path, ["w-9"])
    assert {path.name for path in tmp_path.iterdir()} == {"w-1.log", "w-2.log"}


async def test_a_log_that_grows_is_started_anew(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_logs, "ROTATE_BYTES", 400)
    one = order(place, "talks")
    async with place.launcher() as launcher:
        await launcher.start(one)
        before = place.folder / "logs" / f"{one.worker}.log.1"
        async with asyncio.timeout(DEADLINE_S):
            while not before.exists():
                await asyncio.sleep(0.02)
        assert before.stat().st_size == 200
        await until(launcher, lambda _: 0 < len(place.log(one.worker)) < 400)


# When the scaler ends

SCALER = """
import asyncio, os, signal, sys
from pathlib import Path
from headrace_scaler.launchers.exec_spawner import ExecSpawner

async def main():
    folder, program, dies, how = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3] == "dies", sys.argv[4]
    async with ExecSpawner(program, dies_with_us=dies) as spawner:
        await spawner.spawn(["--model", "waits"], os.environ, folder / "log", folder / "status")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("fate", "how"), [("stays", "ends"), ("stays", "killed"), ("dies", "ends"), ("dies", "killed")]
)
async def test_whether_a_worker_outlives_its_scaler_is_chosen(tmp_path: Path, fate: str, how: str) -> None:
    scaler = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCALER, str(tmp_path), " ".join(STAND_IN), fate, how
    )
    assert await scaler.wait() == (-signal.SIGKILL if how == "killed" else 0)
    if fate == "stays":
        mark = find_by_output(tmp_path / "log")
        assert mark is not None
        assert runs(mark)
        os.kill(mark.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_S):
        while find_by_output(tmp_path / "log") is not None:
            await asyncio.sleep(0.01)


async def test_how_a_worker_ended_is_written_down(tmp_path: Path) -> None:
    async with ExecSpawner(STAND_IN) as spawner:
        pid = await spawner.spawn(["--model", "fails"], os.environ, tmp_path / "log", tmp_path / "status")
        async with asyncio.timeout(DEADLINE_S):
            while not (tmp_path / "status").exists():
                await asyncio.sleep(0.01)
        assert (tmp_path / "status").read_text() == "exit status 3\n"
        assert not runs(ProcessMark(pid, 0, boot_id()))
        assert mark_of(pid) is None, "nobody waited for it"
