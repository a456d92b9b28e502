"""What a launcher finds of the one before it: its workers, and records that no crash or full disk may spoil."""

import asyncio
import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from disks import small_disk
from launchers_places import DEADLINE_S, LONG_S, LocalPlace, ended, free, logged, order
from lives import until_ended

from headrace_contracts.cost import SlotKind
from headrace_scaler.launchers.port import LaunchError
from headrace_scaler.launchers.process import mark_of
from headrace_scaler.launchers.records import VERSION, Record
from headrace_scaler.policy.observation import Need

pytestmark = pytest.mark.slow


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
    await until_ended(place.pid(one.worker))
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
