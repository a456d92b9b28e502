"""Workers as local processes: what they are given, and how they are stopped.

The worker is a shell script, which starts in no time; the conformance suite runs the real one.
"""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import psutil
import pytest
from launchers_places import DEADLINE_S, GIB, LONG_S, GoodGpus, LocalPlace, ended, free, logged, order, until
from lives import until_ended
from structlog.testing import capture_logs

from headrace_contracts.cost import SlotKind
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.port import LaunchError
from headrace_scaler.policy.observation import Need

pytestmark = pytest.mark.slow


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
        await until_ended(child)
