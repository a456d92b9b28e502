"""What fits where: pure functions over slots, and over what runs on them."""

import re
from collections.abc import Iterable, Sequence

from headrace_contracts.cost import SlotKind
from headrace_contracts.model import ModelSpec
from headrace_scaler.launchers.gpu_watch import GpuState
from headrace_scaler.launchers.port import Launched, LaunchError, Order
from headrace_scaler.policy.observation import Need, Slot

CPU_SLOT = "cpu"
# A desktop or a monitoring tool holds a little of a GPU; the rest is then all there is, and counts as the whole GPU.
OTHERS_SHARE = 0.1

_CUDA = re.compile(r"cuda(?::(?P<index>\d{1,3}))?")


def gpu_slot_id(index: int) -> str:
    """Id of the slot of one GPU."""
    return f"gpu:{index}"


def cpu_slot(cores: int, running: Iterable[Launched]) -> Slot:
    """The slot of the machine's cores."""
    given = sum(each.need.size for each in running if each.slot == CPU_SLOT)
    return Slot(CPU_SLOT, SlotKind.CPU, cores, max(0, cores - given))


def gpu_slot(index: int, state: GpuState, running: Iterable[Launched]) -> Slot:
    """The slot of one GPU.

    A worker's memory counts from its order on, and not from when it is allocated; so does what other programs took.
    A whole GPU is what it has for us when none of ours is there, so that `need.size or slot.size` is what is taken.
    """
    slot = gpu_slot_id(index)
    needs = [each.need.size for each in running if each.slot == slot]
    size, free = state.memory.size_bytes, state.memory.free_bytes
    if not needs and size - free <= OTHERS_SHARE * size:
        size = free
    if needs:
        free = 0 if 0 in needs else min(free, max(0, size - sum(needs)))
    return Slot(slot, SlotKind.GPU, size, free, state.health.quarantined)


def need_of(spec: ModelSpec, slots: Sequence[Slot]) -> Need:
    """What one worker of a model takes.

    More threads than there are cores are slower and not impossible, so it takes at most all of them. On a GPU,
    `memory_bytes` of 0 takes the whole of it. A device that nobody knows is a slot that is not there: such a model is
    not started, and the others are.
    """
    device = spec.resources.device
    if device == "auto":
        # One that was never well has no size. One that was is waited for.
        device = "cuda" if any(slot.kind is SlotKind.GPU and slot.size for slot in slots) else "cpu"
    if (found := _CUDA.fullmatch(device)) is not None:
        only = gpu_slot_id(int(found["index"])) if found["index"] else ""
        return Need(SlotKind.GPU, spec.resources.memory_bytes, only)
    cores = max((slot.size for slot in slots if slot.kind is SlotKind.CPU), default=spec.resources.threads)
    return Need(SlotKind.CPU, max(1, min(spec.resources.threads, cores)), "" if device == "cpu" else device)


def refusal(order: Order, slots: Sequence[Slot], note: str = "") -> str:
    """Why an order cannot be carried out; empty if it can. `note`: why there are no GPUs."""
    slot = next((each for each in slots if each.id == order.slot), None)
    if slot is None:
        known = ", ".join(each.id for each in slots) or "none"
        return f"there is no slot {order.slot} (there is: {known}){f': {note}' if note else ''}"
    if slot.quarantined:
        return f"slot {slot.id} is quarantined: {slot.quarantined}"
    if order.need.kind is not slot.kind or order.need.slot not in ("", slot.id):
        return f"slot {slot.id} is not for it: it needs {order.need.slot or f'a {order.need.kind.upper()}'}"
    wanted = order.need.size or slot.size
    if wanted > slot.free or not wanted:
        size, free = _said(slot.kind, slot.size), _said(slot.kind, slot.free)
        return f"slot {slot.id} is full: of its {size}, {free} are free and {_said(slot.kind, wanted)} are needed"
    return ""


def cuda_devices(order: Order, states: Sequence[GpuState]) -> str:
    """CUDA_VISIBLE_DEVICES of a worker: its one GPU, and none on CPU slots.

    A model that names `cuda:1` finds its GPU in that place, behind others that it does not use.

    Raises:
        LaunchError: too many of those others cannot be used now.
    """
    gpus = {gpu_slot_id(index): state for index, state in enumerate(states)}
    own = gpus.get(order.slot)
    if own is None:
        return ""
    if not order.need.slot:
        return own.gpu.uuid
    place = int(order.need.slot.partition(":")[2])
    others = [state.gpu.uuid for state in states if state is not own and not state.health.quarantined]
    if len(others) < place:
        raise LaunchError(f"slot {order.slot} cannot be used by the name cuda:{place}: GPUs before it are quarantined")
    return ",".join([*others[:place], own.gpu.uuid])


def _said(kind: SlotKind, size: int) -> str:
    if kind is SlotKind.GPU:
        return f"{size / 1e9:.1f} GB"
    return f"{size} core" + ("" if size == 1 else "s")
