"""GPUs that fail, come back, hang or are not there. None is needed: they stand behind a protocol."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from launchers_clock import HandClock
from launchers_nvml import Driver
from launchers_places import GIB

from headrace_contracts.clock import SystemClock
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers import gpu_watch
from headrace_scaler.launchers.exec_spawner import ExecSpawner
from headrace_scaler.launchers.gpu_watch import FIND_EVERY_S, HEALTHY_LOOKS, LOOK_EVERY_S, GpuWatch, visible_gpus
from headrace_scaler.launchers.gpus import Gpu, GpuFault, GpuMemory, GpusUnavailable, NvmlGpus
from headrace_scaler.launchers.local import LocalLauncher

TWO = (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb"))


class FakeGpus:
    """GPUs whose driver does as it is told."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.unavailable = ""
        self.faults: dict[str, str] = {}
        self.defect: Exception | None = None
        self.hangs: set[str] = set()
        self.go_on = threading.Event()
        self.finds = 0
        self.asked: list[str] = []

    def find(self) -> tuple[Gpu, ...]:
        self.finds += 1
        if self.unavailable:
            raise GpusUnavailable(self.unavailable)
        return self.gpus

    def memory(self, gpu: Gpu) -> GpuMemory:
        self.asked.append(gpu.uuid)
        if gpu.key in self.hangs:
            self.go_on.wait()
        if self.defect is not None:
            raise self.defect
        if gpu.key in self.faults:
            raise GpuFault(self.faults[gpu.key])
        return GpuMemory(80 * GIB, 79 * GIB)


class Bench:
    """A watch on fake GPUs, and its clock."""

    def __init__(self, *gpus: Gpu, visible: str | None = None) -> None:
        self.gpus = FakeGpus(*gpus)
        self.clock = HandClock()
        self.watch = GpuWatch(self.gpus, self.clock, visible)

    async def look(self, after_s: float = LOOK_EVERY_S) -> list[str]:
        """Why each GPU is quarantined, after some time."""
        self.clock.seconds += after_s
        return [state.health.quarantined for state in await self.watch.look()]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(*TWO)
    yield bench
    bench.gpus.go_on.set()


async def test_healthy_gpus_can_be_used(bench: Bench) -> None:
    assert await bench.look() == ["", ""]
    assert bench.watch.note == ""
    assert bench.gpus.finds == 1


async def test_one_that_is_lost_is_quarantined_and_the_others_are_not(bench: Bench) -> None:
    await bench.look()
    bench.gpus.faults["GPU-bb"] = "GPU is lost"
    assert await bench.look() == ["", "GPU is lost"]
    [_, lost] = await bench.watch.look()
    assert lost.memory.size_bytes == 80 * GIB


async def test_it_comes_back_after_several_healthy_looks_in_a_row(bench: Bench) -> None:
    bench.gpus.faults["GPU-aa"] = "GPU is lost"
    await bench.look()
    for break_again in (True, False):
        bench.gpus.faults.clear()
        for _ in range(HEALTHY_LOOKS - 1):
            assert await bench.look() == ["GPU is lost", ""]
        if break_again:
            bench.gpus.faults["GPU-aa"] = "GPU is lost"
            await bench.look()
    assert await bench.look() == ["", ""]


async def test_questions_at_once_are_one_look(bench: Bench) -> None:
    bench.gpus.faults["GPU-aa"] = "GPU is lost"
    await bench.look()
    bench.gpus.faults.clear()
    for _ in range(3 * HEALTHY_LOOKS):
        assert await bench.look(after_s=0.0) == ["GPU is lost", ""]
    assert len(bench.gpus.asked) == 2
    await asyncio.gather(*(bench.look(LOOK_EVERY_S / 10) for _ in range(10)))
    assert len(bench.gpus.asked) == 4


async def test_a_driver_that_hangs_does_not_hold_us_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "ANSWER_DEADLINE_S", 0.05)
    silent = "NVIDIA's driver did not answer within 0.05 s"
    await bench.look()
    bench.gpus.hangs.add("GPU-bb")
    assert await bench.look() == ["", silent], "the first one answered"
    for _ in range(3):
        assert await bench.look() == [silent, silent]
    threads = [thread for thread in threading.enumerate() if thread.name == "gpus"]
    assert len(threads) == 1, "it is not asked again before it has answered"


async def test_one_that_hung_is_back_after_healthy_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "ANSWER_DEADLINE_S", 0.05)
    await bench.look()
    bench.gpus.hangs.add("GPU-aa")
    silent = "NVIDIA's driver did not answer within 0.05 s"
    assert await bench.look() == [silent, silent]
    bench.gpus.hangs.clear()
    bench.gpus.go_on.set()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "gpus"]
    thread.join()
    monkeypatch.setattr(gpu_watch, "ANSWER_DEADLINE_S", 60.0)
    for _ in range(HEALTHY_LOOKS - 1):
        assert await bench.look() == [silent, silent]
    assert await bench.look() == ["", ""]


async def test_the_event_loop_goes_on_while_the_driver_thinks(bench: Bench) -> None:
    bench.gpus.hangs.add("GPU-aa")
    looking = asyncio.create_task(bench.look())
    while not bench.gpus.asked:
        await asyncio.sleep(0.001)
    assert not looking.done()
    bench.gpus.go_on.set()
    assert await looking == ["", ""]


async def test_a_gpu_that_was_reset_is_found_again(bench: Bench) -> None:
    await bench.look()
    bench.gpus.faults["GPU-aa"] = "GPU is lost"
    await bench.look(FIND_EVERY_S)
    assert bench.gpus.finds == 1
    await bench.look()
    assert bench.gpus.finds == 2
    await bench.look()
    assert bench.gpus.finds == 2, "asking for all GPUs takes the driver a second"
    await bench.look(FIND_EVERY_S)
    assert bench.gpus.finds == 3


async def test_gpu_0_stays_the_same_one(bench: Bench) -> None:
    """After the driver has started again without a GPU that is gone, the others have moved up."""
    await bench.look()
    bench.gpus.faults["GPU-aa"] = "Not Found"
    bench.gpus.gpus = (Gpu(0, "GPU-bb"), Gpu(1, "GPU-cc"))
    assert await bench.look() == ["Not Found", ""]
    assert await bench.look(FIND_EVERY_S) == ["Not Found", "", ""]
    assert [state.gpu.uuid for state in await bench.watch.look()] == ["GPU-aa", "GPU-bb", "GPU-cc"]


async def test_a_gpu_without_a_name_gets_it_when_it_answers() -> None:
    bench = Bench(Gpu(0, ""), TWO[1])
    bench.gpus.faults["index 0"] = "GPU is lost"
    assert await bench.look() == ["GPU is lost", ""]
    bench.gpus.gpus = TWO
    bench.gpus.faults.clear()
    assert await bench.look(FIND_EVERY_S) == ["GPU is lost", ""]
    assert [state.gpu.uuid for state in await bench.watch.look()] == ["GPU-aa", "GPU-bb"]


async def test_a_driver_that_comes_late_is_found(bench: Bench) -> None:
    bench.gpus.unavailable = "the driver is not loaded"
    assert await bench.look() == []
    assert bench.watch.note == "the driver is not loaded"
    bench.gpus.unavailable = ""
    assert await bench.look() == []
    assert await bench.look(FIND_EVERY_S) == ["", ""]
    assert bench.watch.note == ""


async def test_a_driver_that_fails_whole_quarantines_all(bench: Bench) -> None:
    await bench.look()
    bench.gpus.faults["GPU-aa"] = "Unknown Error"
    await bench.look()
    bench.gpus.unavailable = "the driver is not loaded"
    assert await bench.look(FIND_EVERY_S) == ["the driver is not loaded"] * 2


async def test_a_mistake_of_ours_is_no_fault_of_a_gpu(bench: Bench) -> None:
    bench.gpus.defect = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.look()


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        (None, "aa ab bb"),
        ("", ""),
        ("1", "ab"),
        ("2,0", "bb aa"),
        ("GPU-bb", "bb"),
        ("GPU-b, 0", "bb aa"),
        ("GPU-a", ""),
        ("0,9,1", "aa"),
        ("0,0,1", "aa"),
        ("-1", ""),
        ("MIG-aa", ""),
    ],
)
def test_only_visible_gpus_are_ours(visible: str | None, left: str) -> None:
    found = (Gpu(0, "GPU-aa"), Gpu(1, "GPU-ab"), Gpu(2, "GPU-bb"))
    assert [gpu.uuid for gpu in visible_gpus(found, visible)] == [f"GPU-{each}" for each in left.split()]


async def test_why_no_gpu_is_ours_is_said() -> None:
    bench = Bench(*TWO, visible="7")
    assert await bench.look() == []
    assert bench.watch.note == "CUDA_VISIBLE_DEVICES=7 names none of the 2 GPUs of this machine"


# pynvml, on a driver that does as it is told, and on none


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(pynvml, "nvmlLib", driver)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver


def test_the_driver_is_asked_for_gpus_and_their_memory(driver: Driver) -> None:
    gpus = NvmlGpus()
    assert [gpu.index for gpu in gpus.find()] == [0, 1]
    assert gpus.find()[0] == Gpu(0, "GPU-aa")
    assert driver.opened == 1, "asked anew, and not once more"
    # What the driver keeps for itself is nobody's.
    assert gpus.memory(TWO[0]) == GpuMemory(79, 70)
    driver.old = True
    assert gpus.memory(TWO[0]) == GpuMemory(80, 69)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": True}, "it is split by MIG, which is not supported"),
        ({"rows_failed": 1}, r"a fault of its memory \(ECC\) could not be mended: it has to be replaced"),
        ({"rows_pending": 1}, r"its memory had a fault \(ECC\): it has to be reset"),
        ({"pages_pending": 1}, r"its memory had a fault \(ECC\): it has to be reset"),
    ],
)
def test_a_gpu_that_answers_and_cannot_be_used_says_why(driver: Driver, change: dict[str, int], reason: str) -> None:
    for name, value in change.items():
        setattr(driver, name, value)
    with pytest.raises(GpuFault, match=reason):
        NvmlGpus().memory(TWO[0])


def test_a_gpu_that_is_lost_is_found_without_a_name(driver: Driver) -> None:
    driver.lost = True
    gpus = NvmlGpus()
    assert gpus.find() == (Gpu(0, "GPU-aa"), Gpu(1, ""))
    with pytest.raises(GpuFault, match="NVIDIA's driver says: GPU is lost"):
        gpus.memory(Gpu(1, ""))
    with pytest.raises(GpuFault, match="NVIDIA's driver says: Not Found"):
        gpus.memory(Gpu(0, "GPU-gone"))


def test_without_nvidias_library_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    gpus = NvmlGpus()
    for _ in range(2):
        with pytest.raises(GpusUnavailable, match="NVIDIA's driver cannot be asked: NVML Shared Library Not Found"):
            gpus.find()
    with pytest.raises(GpuFault, match="NVIDIA's driver says: Uninitialized"):
        gpus.memory(TWO[0])


def _no_library(name: str) -> object:
    raise OSError(f"{name}: cannot open shared object file")


async def test_a_machine_without_gpus_has_its_cores_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    for gpus, note in ((True, "NVML Shared Library Not Found"), (False, "`scaler.gpus` is false")):
        settings = ScalerSettings(cpu_slots=2, gpus=gpus)
        async with (
            ExecSpawner() as spawner,
            LocalLauncher(tmp_path, settings, spawner, {}, SystemClock()) as launcher,
        ):
            assert [slot.id for slot in await launcher.slots()] == ["cpu"]
            assert note in launcher.slots_note
