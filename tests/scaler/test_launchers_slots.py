"""What fits where: slots from cores, GPUs and what runs on them, and what a worker of a model takes."""

import re

import msgspec
import pytest
from launchers_places import GIB

from headrace_contracts.cost import SlotKind
from headrace_contracts.model import EngineKind, ModelSpec, Resources
from headrace_contracts.tasks.registry import Task
from headrace_scaler.launchers.gpu_watch import GpuState, Health
from headrace_scaler.launchers.gpus import Gpu, GpuMemory
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.launchers.slots import cpu_slot, cuda_devices, gpu_slot, need_of, refusal
from headrace_scaler.policy.observation import Need, Slot
from headrace_scaler.policy.sharing import Claim, share


def model(device: str, memory_bytes: int = 0, threads: int = 1) -> ModelSpec:
    resources = Resources(device=device, memory_bytes=memory_bytes, threads=threads)
    return ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC, resources=resources)


def gpu(size_gib: int, free_gib: int, fault: str = "", uuid: str = "GPU-aa") -> GpuState:
    return GpuState(Gpu(0, uuid), GpuMemory(size_gib * GIB, free_gib * GIB), Health(fault))


def worker(slot: str, size: int) -> Launched:
    kind = SlotKind.CPU if slot == "cpu" else SlotKind.GPU
    return Launched("w", "m", slot, Need(kind, size), 0.0)


def order(slot: str, size: int = 0, only: str = "") -> Order:
    return Order("w", "m", slot, Need(SlotKind.CPU if slot == "cpu" else SlotKind.GPU, size, only))


def placed(need: Need, *slots: Slot) -> tuple[tuple[str, ...], str]:
    """Where the policy puts a worker, else why not."""
    claim = Claim("m", need, 0, 1, False, True, 1.0, (), 0, (), ())
    got = share((claim,), slots)["m"]
    return got.start, got.reason


CPU = Slot("cpu", SlotKind.CPU, 4, 4)
GPU_0 = Slot("gpu:0", SlotKind.GPU, 80 * GIB, 80 * GIB)
GPU_1 = Slot("gpu:1", SlotKind.GPU, 80 * GIB, 80 * GIB)


def test_cores_are_given_out_one_by_one() -> None:
    assert cpu_slot(4, []).free == 4
    assert cpu_slot(4, [worker("cpu", 1), worker("cpu", 2), worker("gpu:0", GIB)]).free == 1
    assert cpu_slot(2, [worker("cpu", 3)]).free == 0


@pytest.mark.parametrize(
    ("free_gib", "needs_gib", "free"),
    [
        # Given out, and not allocated yet.
        (80, [30], 50),
        # Allocated: the same.
        (50, [30], 50),
        # It took more than it said.
        (40, [30], 40),
        # Another program is there.
        (20, [30], 20),
        (30, [], 30),
        # Two, of which one is still loading.
        (50, [30, 30], 20),
        (80, [60, 60], 0),
        # The whole of it.
        (80, [0], 0),
        (80, [30, 0], 0),
    ],
)
def test_memory_is_free_that_nobody_was_given_and_nobody_took(free_gib: int, needs_gib: list[int], free: int) -> None:
    running = [worker("gpu:3", need * GIB) for need in needs_gib]
    slot = gpu_slot(3, gpu(80, free_gib), [*running, worker("gpu:1", 80 * GIB), worker("cpu", 2)])
    assert (slot.id, slot.kind, slot.size, slot.free) == ("gpu:3", SlotKind.GPU, 80 * GIB, free * GIB)


def test_a_gpu_on_which_others_hold_a_little_is_still_a_whole_one() -> None:
    slot = gpu_slot(0, gpu(80, 75), [])
    assert slot.size == slot.free == 75 * GIB
    assert refusal(order("gpu:0"), [slot]) == ""
    taken = gpu_slot(0, gpu(80, 40), [])
    assert "is full: of its 85.9 GB, 42.9 GB are free and 85.9 GB are needed" in refusal(order("gpu:0"), [taken])


def test_a_gpu_in_quarantine_says_why() -> None:
    assert gpu_slot(0, gpu(80, 80, "GPU is lost"), []).quarantined == "GPU is lost"


@pytest.mark.parametrize(
    ("device", "slots", "need"),
    [
        ("cpu", [CPU, GPU_0], Need(SlotKind.CPU, 2)),
        ("auto", [CPU], Need(SlotKind.CPU, 2)),
        ("auto", [CPU, GPU_0], Need(SlotKind.GPU, GIB)),
        ("cuda", [CPU], Need(SlotKind.GPU, GIB)),
        ("cuda", [CPU, GPU_0], Need(SlotKind.GPU, GIB)),
        ("cuda:1", [CPU, GPU_0], Need(SlotKind.GPU, GIB, "gpu:1")),
    ],
)
def test_what_a_worker_of_a_model_takes(device: str, slots: list[Slot], need: Need) -> None:
    assert need_of(model(device, GIB, threads=2), slots) == need


def test_more_threads_than_cores_take_all_cores() -> None:
    assert need_of(model("cpu", threads=64), [CPU]).size == 4


def test_a_gpu_that_is_out_of_use_is_waited_for() -> None:
    broken = msgspec.structs.replace(GPU_0, quarantined="GPU is lost", free=0)
    assert need_of(model("auto"), [CPU, broken]).kind is SlotKind.GPU


def test_but_not_one_that_was_never_well() -> None:
    split = msgspec.structs.replace(GPU_0, quarantined="it is split by MIG", size=0, free=0)
    assert need_of(model("auto"), [CPU, split]).kind is SlotKind.CPU
    assert need_of(model("auto"), [CPU, split, GPU_1]).kind is SlotKind.GPU


def test_a_device_that_nobody_knows_is_a_slot_that_is_not_there() -> None:
    need = need_of(model("tpu"), [CPU, GPU_0])
    assert placed(need, CPU, GPU_0) == ((), "one worker needs 1 core on tpu, and there is no slot of that kind")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (order("gpu:2", GIB), r"there is no slot gpu:2 \(there is: cpu, gpu:0, gpu:1\): no driver"),
        (Order("w", "m", "cpu", Need(SlotKind.GPU, GIB)), "slot cpu is not for it: it needs a GPU"),
        (order("gpu:0", GIB, only="gpu:1"), "slot gpu:0 is not for it: it needs gpu:1"),
        (order("cpu", 5), "slot cpu is full: of its 4 cores, 4 cores are free and 5 cores are needed"),
        (order("gpu:1", GIB, only="gpu:1"), "^$"),
        (order("gpu:0"), "^$"),
    ],
)
def test_why_an_order_is_refused(wanted: Order, words: str) -> None:
    assert re.search(words, refusal(wanted, [CPU, GPU_0, GPU_1], "no driver"))


def test_a_worker_sees_its_own_gpu_and_on_cores_none() -> None:
    states = [gpu(80, 80, uuid=f"GPU-{name}") for name in ("aa", "bb", "cc")]
    assert cuda_devices(order("cpu"), states) == ""
    assert cuda_devices(order("gpu:1"), states) == "GPU-bb"


def test_a_model_that_names_its_gpu_finds_it_under_that_name() -> None:
    states = [gpu(80, 80, uuid=f"GPU-{name}") for name in ("aa", "bb", "cc", "dd")]
    assert cuda_devices(order("gpu:2", only="gpu:2"), states).split(",")[2] == "GPU-cc"
    assert cuda_devices(order("gpu:0", only="gpu:0"), states) == "GPU-aa"
    # CUDA sees nothing behind a GPU that it cannot use.
    states[0] = gpu(80, 80, "GPU is lost", "GPU-aa")
    assert cuda_devices(order("gpu:2", only="gpu:2"), states) == "GPU-bb,GPU-dd,GPU-cc"
    with pytest.raises(LaunchError, match="slot gpu:3 cannot be used by the name cuda:3"):
        cuda_devices(order("gpu:3", only="gpu:3"), states)


def test_the_policy_puts_a_model_that_names_its_gpu_there_and_nowhere_else() -> None:
    assert placed(Need(SlotKind.GPU, GIB), GPU_0, GPU_1) == (("gpu:0",), "")
    assert placed(Need(SlotKind.GPU, GIB, "gpu:1"), GPU_0, GPU_1) == (("gpu:1",), "")
    assert placed(Need(SlotKind.GPU, GIB, "gpu:2"), GPU_0, GPU_1) == (
        (),
        "one worker needs 1.1 GB of GPU memory on gpu:2, and there is no slot of that kind",
    )
