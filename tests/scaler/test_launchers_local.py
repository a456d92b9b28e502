"""Workers as local processes: what is kept of them, and what no crash, no reused id and no full disk may lead to.

The worker is a shell script, which starts in no time; the conformance suite runs the real one.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest
from disks import small_disk
from launchers_places import DEADLINE_S, GIB, GoodGpus, LocalPlace, ended, free, until
from structlog.testing import capture_logs

from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import SlotKind
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers import worker_logs
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.local import LocalLauncher
from headrace_scaler.launchers.port import LaunchError, Order
from headrace_scaler.launchers.process import ProcessMark, boot_id, find_by_output, mark_of, runs
from headrace_scaler.launchers.records import VERSION, Record
from headrace_scaler.launchers.roster import Roster
from headrace_scaler.policy.observation import Need

pytestmark = pytest.mark.slow

STAND_IN = ("sh", str(Path(__file__).with_name("launchers_stand_in.sh")))
LONG_S = 600.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocalPlace]:
    place = LocalPlace(tmp_path / "scaler", "waits", os.environ, STAND_IN)
    try:
        yield place
    finally:
        place.clear()


def order(place: LocalPlace, model: str) -> Order:
    return msgspec.structs.replace(place.order(), model=model)


async def logged(place: LocalPlace, worker: str, words: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while words not in place.log(worker):
            await asyncio.sleep(0.01)


# What a worker is given, and what is left of it


async def test_a_worker_is_told_who_and_where_it_is(place: LocalPlace) -> None:
    place.environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    one = order(place, "tells")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "GPUS")
        [launched] = await launcher.running()
        record = place.record(one.worker)
        assert place.log(one.worker).split("\n")[0] == (
            f"--model tells --id {one.worker} --slot cpu "
            f"TMPDIR={record.scratch} LAUNCHED_AT={launched.ordered_at:.6f} GPUS=<>"
        )
        async with asyncio.timeout(DEADLINE_S):
            while not (Path(record.scratch) / "some file").is_file():
                await asyncio.sleep(0.01)


async def test_workers_share_a_gpu_and_see_no_other(place: LocalPlace) -> None:
    place.gpus = GoodGpus()
    async with place.launcher() as launcher:
        for size in (30 * GIB, 40 * GIB):
            one = msgspec.structs.replace(order(place, "tells"), slot="gpu:1", need=Need(SlotKind.GPU, size))
            await launcher.start(one)
            await logged(place, one.worker, "GPUS=<GPU-bb>")
        assert [each.free for each in await launcher.slots()] == [3, 80 * GIB, 10 * GIB]
        with pytest.raises(LaunchError, match=r"slot gpu:1 is full: of its 85.9 GB, 10.7 GB are free"):
            await launcher.start(place.order(slot="gpu:1", size=0))
        await launcher.start(place.order(slot="gpu:0", size=0))
        assert [each.free for each in await launcher.slots()] == [3, 0, 10 * GIB]


async def test_why_a_gpu_cannot_be_used_is_said_once(place: LocalPlace) -> None:
    with capture_logs() as said:
        async with place.launcher() as launcher:
            for _ in range(2):
                await launcher.slots()
        place.settings = ScalerSettings(gpus=False)
        async with place.launcher() as launcher:
            for _ in range(2):
                await launcher.slots()
    assert said == [
        {"event": "slot quarantined", "log_level": "warning", "slot": "gpu:0", "reason": "GPU is lost"},
        {"event": "no GPU slots", "log_level": "info", "reason": "`scaler.gpus` is false"},
    ]


async def test_its_scratch_folder_goes_with_it_and_its_log_stays(place: LocalPlace) -> None:
    one = order(place, "tells")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "GPUS")
        place.crash(one.worker)
        await ended(launcher, one.worker)
        await until(launcher, lambda _: not list((place.folder / "scratch").iterdir()))
        await launcher.forget(one.worker)
    assert sorted(path.name for path in place.folder.rglob("*")) == ["lock", "logs", "scratch", f"{one.worker}.log"]


async def test_the_last_words_of_a_worker_are_its_last_error(place: LocalPlace) -> None:
    one = order(place, "fails")
    async with place.launcher() as launcher:
        await launcher.start(one)
        assert await ended(launcher, one.worker) == "exit status 3: error: no such thing"


async def test_an_id_that_is_used_again_does_not_speak_with_old_words(place: LocalPlace) -> None:
    one = order(place, "fails")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await ended(launcher, one.worker)
        await launcher.forget(one.worker)
        await launcher.start(msgspec.structs.replace(one, model="waits"))
        assert place.log(one.worker) == ""


async def test_an_id_that_is_a_path_is_refused(place: LocalPlace) -> None:
    async with place.launcher() as launcher:
        with pytest.raises(LaunchError, match=r"'\.\./w' cannot be started: an id is 1 to 64 of"):
            await launcher.start(place.order("../w"))


async def test_by_default_all_cores_are_one_slot(place: LocalPlace) -> None:
    place.settings = ScalerSettings()
    async with place.launcher() as launcher:
        assert await free(launcher, "cpu") == len(os.sched_getaffinity(0))


# Stopping


async def test_asking_again_to_stop_neither_shortens_the_grace_nor_tells_twice(place: LocalPlace) -> None:
    one = order(place, "stubborn")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "ready")
        await launcher.stop(one.worker, LONG_S)
        await logged(place, one.worker, "told to stop")
        first = place.record(one.worker).kill_at_s
        await launcher.stop(one.worker, 0.0)
        await launcher.stop(one.worker, LONG_S)
        assert place.record(one.worker).kill_at_s == first
        assert [each.ended for each in await launcher.running()] == [None]
        for times in (1, 2):  # signals do not come in order: with the second one, all before the first are there
            os.kill(place.pid(one.worker), signal.SIGUSR1)
            await logged(place, one.worker, "hello\n" * times)
        assert place.log(one.worker).count("told to stop") == 1
        assert place.processes() == 1


async def test_a_kill_says_that_it_was_ours(place: LocalPlace) -> None:
    one = order(place, "stubborn")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "ready")
        await launcher.stop(one.worker, 0.05)
        assert await ended(launcher, one.worker) == "SIGKILL, since it was still there after its grace"


async def test_a_grace_ends_while_nobody_asks(place: LocalPlace) -> None:
    one = order(place, "stubborn")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "ready")
        await launcher.stop(one.worker, 0.05)
        async with asyncio.timeout(DEADLINE_S):
            while place.processes():
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["its grace is over", "it was killed"])
async def test_what_a_worker_started_ends_with_it(place: LocalPlace, how: str) -> None:
    one = order(place, "parent")
    async with place.launcher() as launcher:
        await launcher.start(one)
        await logged(place, one.worker, "ready")
        [child] = psutil.Process(place.pid(one.worker)).children()
        if how == "it was killed":
            place.crash(one.worker)
        else:
            place.hang(one.worker)
            await launcher.stop(one.worker, 0.0)
        await ended(launcher, one.worker)
        async with asyncio.timeout(DEADLINE_S):
            while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)


# Starting again


async def test_what_ended_meanwhile_is_told_with_its_last_error(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    with (place.folder / "logs" / f"{one.worker}.log").open("a") as log:
        log.write("ValueError: out of order\n")
    place.crash(one.worker)
    os.waitpid(place.pid(one.worker), 0)
    async with place.launcher() as launcher:
        assert await ended(launcher, one.worker) == "ended while nobody watched: ValueError: out of order"
        assert await free(launcher, "cpu") == 3


async def test_what_its_parent_wrote_about_its_end_is_read_by_the_next_one(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    Path(place.record(one.worker).status).write_text("exit status 7\n")
    place.crash(one.worker)
    async with place.launcher() as launcher:
        assert await ended(launcher, one.worker) == "exit status 7"


async def test_one_that_ended_and_was_not_waited_for_has_ended(place: LocalPlace) -> None:
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    place.crash(one.worker)
    async with asyncio.timeout(DEADLINE_S):
        while psutil.Process(place.pid(one.worker)).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    async with place.launcher() as launcher:
        assert await ended(launcher, one.worker) == "ended while nobody watched"


@pytest.mark.parametrize("difference", ["start", "boot"])
async def test_a_process_that_was_given_the_id_of_a_worker_is_left_alone(place: LocalPlace, difference: str) -> None:
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    place.clear()
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        mark = mark_of(stranger.pid)
        assert mark is not None
        if difference == "start":
            mark = msgspec.structs.replace(mark, started_ticks=mark.started_ticks - 1)
        else:
            mark = msgspec.structs.replace(mark, boot="another boot")
        record = msgspec.structs.replace(place.record(one.worker), process=mark)
        (place.folder / f"{one.worker}.json").write_bytes(msgspec.json.encode(record))
        async with place.launcher() as launcher:
            assert await ended(launcher, one.worker) == "ended while nobody watched"
            await launcher.stop(one.worker, 0.0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_worker_whose_id_nobody_came_to_write_down_is_found(place: LocalPlace) -> None:
    """The scaler was killed between starting it and saying so."""
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    record = place.record(one.worker)
    (place.folder / f"{one.worker}.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(record, process=None))
    )
    async with place.launcher() as launcher:
        await launcher.start(one)
        [launched] = await launcher.running()
        assert launched.ended is None
        assert place.record(one.worker).process == record.process
        assert place.processes() == 1
        await launcher.stop(one.worker, LONG_S)
        await ended(launcher, one.worker)


async def test_an_order_that_came_to_nothing_has_ended(place: LocalPlace) -> None:
    """The scaler was killed between saying so and starting it."""
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    record = place.record(one.worker)
    place.clear()
    (place.folder / f"{one.worker}.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(record, process=None))
    )
    async with place.launcher() as launcher:
        assert await ended(launcher, one.worker) == "ended while nobody watched"


# Records that are not as they should be

OF_ANOTHER_WORKER = msgspec.json.encode(
    Record(VERSION, "w-2", "waits", "cpu", Need(SlotKind.CPU, 1), 0.0, "log", "status", "scratch")
)


@pytest.mark.parametrize("content", [b"", b'{"version":1,"wor', b'{"version":2,"worker":"w-1"}', OF_ANOTHER_WORKER])
async def test_a_record_that_cannot_be_understood_is_put_aside(place: LocalPlace, content: bytes) -> None:
    async with place.launcher():
        pass
    (place.folder / "w-1.json").write_bytes(content)
    (place.folder / "w-1.json.tmp").write_bytes(content)
    async with place.launcher() as launcher:
        assert await launcher.running() == ()
        await launcher.start(place.order("w-1"))
    assert (place.folder / "w-1.json.unreadable").read_bytes() == content
    assert not (place.folder / "w-1.json.tmp").exists()


@pytest.mark.parametrize(("content", "reason"), [(b"{", "truncated"), (b'{"version":2}', "version 2, and")])
async def test_but_not_while_its_worker_runs(place: LocalPlace, content: bytes, reason: str) -> None:
    """It could not be counted, and another worker could get its id."""
    one = order(place, "waits")
    async with place.launcher() as launcher:
        await launcher.start(one)
    path = place.folder / f"{one.worker}.json"
    pid, good = place.pid(one.worker), path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(LaunchError, match=f"{path} cannot be understood .*{reason}.*runs as process {pid}"):
        async with place.launcher():
            pass
    path.write_bytes(good)
    async with place.launcher() as launcher:
        assert len(await launcher.running()) == place.processes() == 1


async def test_two_launchers_do_not_share_a_folder(place: LocalPlace) -> None:
    async with place.launcher() as launcher:
        await launcher.start(place.order())
        with pytest.raises(LaunchError, match=rf"in use by another scaler \(process {os.getpid()}\)"):
            async with place.launcher():
                pass
        await launcher.start(place.order())
        assert len(await launcher.running()) == 2
    async with place.launcher() as launcher:
        assert len(await launcher.running()) == 2


async def test_a_folder_that_cannot_be_made_is_named(place: LocalPlace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place.folder = tmp_path / "file" / "scaler"
    with pytest.raises(LaunchError, match=f"{place.folder} cannot be written"):
        async with place.launcher():
            pass


async def test_on_a_full_disk_nothing_is_started_and_graces_still_end(place: LocalPlace, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mib=1) as disk:
        place.folder = disk / "scaler"
        try:
            async with place.launcher() as launcher:
                one = order(place, "stubborn")
                await launcher.start(one)
                await logged(place, one.worker, "ready")
                disk.fill()
                with pytest.raises(LaunchError, match=r"its record cannot be kept: .*No space left"):
                    await launcher.start(place.order())
                assert [each.worker for each in await launcher.running()] == [one.worker]
                assert place.processes() == 1
                await launcher.stop(one.worker, 0.05)
                assert (await ended(launcher, one.worker)).startswith("SIGKILL")
                assert place.record(one.worker).ended is None
                disk.free()
                async with asyncio.timeout(DEADLINE_S):
                    while place.record(one.worker).ended is None:
                        await asyncio.sleep(0.02)
        finally:
            place.clear()


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
