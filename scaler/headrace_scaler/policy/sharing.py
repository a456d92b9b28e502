"""Slots over models: who gets what is free, whose idle worker makes room, and why the rest gets nothing."""

import msgspec

from headrace_contracts.cost import SlotKind
from headrace_scaler.policy.decision import Blocked
from headrace_scaler.policy.observation import Need, Slot, WorkerView

MOST_STARTS = 32
"""Workers started by one decision: more processes at once start slower than one after the other."""


class Occupant(msgspec.Struct, frozen=True):
    """A worker on a slot that is going, or could be made to."""

    model: str
    worker: WorkerView


class Claim(msgspec.Struct, frozen=True):
    """What one model asks for, and what it could give."""

    model: str
    need: Need
    priority: int
    asks: int
    """Workers to start."""
    has_worker: bool
    waits: bool
    """Jobs wait, so that others' idle workers may be drained for it."""
    oldest_wait_s: float
    spare: tuple[WorkerView, ...]
    """Idle workers that could go for another model, the first to go first; none while its own jobs wait."""
    spare_above_minimum: int
    """How many of them it can miss without falling below `min_workers`."""
    going: tuple[WorkerView, ...]
    """Workers that are leaving their slots."""
    present: tuple[WorkerView, ...]
    """All its workers, for spreading them over the slots."""


class Share(msgspec.Struct, frozen=True):
    """What one model gets."""

    start: tuple[str, ...] = ()
    drained_for: tuple[tuple[str, str], ...] = ()
    """Its own idle workers that make room: worker and the model they make room for."""
    blocked: Blocked = Blocked.NONE
    reason: str = ""


class _Room:
    """A slot while it is given away."""

    def __init__(self, slot: Slot, going: list[WorkerView]) -> None:
        self.slot = slot
        self.free = max(0, min(slot.free, slot.size))
        self.coming = sum(self.takes(worker.need) for worker in going)

    def takes(self, need: Need) -> int:
        """What a worker takes of it."""
        if need.kind is SlotKind.GPU and need.size <= 0:
            return self.slot.size
        return max(0, need.size)

    def is_for(self, need: Need) -> bool:
        return self.slot.kind is need.kind and need.slot in ("", self.slot.id)

    def could_hold(self, need: Need) -> bool:
        return self.is_for(need) and self.takes(need) <= self.slot.size

    def reserve(self, size: int) -> None:
        """Give away what is free, then what will be."""
        from_free = min(self.free, size)
        self.free -= from_free
        self.coming -= size - from_free


def share(claims: tuple[Claim, ...], slots: tuple[Slot, ...]) -> dict[str, Share]:
    """Give slots to models: by priority, then those without any worker, then by the oldest job that waits."""
    return _Sharing(claims, slots).result()


class _Sharing:
    """One round of giving slots away."""

    def __init__(self, claims: tuple[Claim, ...], slots: tuple[Slot, ...]) -> None:
        self._claims = {claim.model: claim for claim in claims}
        going: dict[str, list[WorkerView]] = {}
        for claim in claims:
            for worker in claim.going:
                going.setdefault(worker.slot, []).append(worker)
        self._all = [_Room(slot, going.get(slot.id, [])) for slot in {slot.id: slot for slot in slots}.values()]
        self._open = [room for room in self._all if not room.slot.quarantined]
        self._started: dict[str, list[str]] = {claim.model: [] for claim in claims}
        self._victims: dict[str, list[tuple[str, str]]] = {claim.model: [] for claim in claims}
        self._drained: set[str] = set()
        self._said: dict[str, tuple[Blocked, str]] = {}

    def result(self) -> dict[str, Share]:
        left = {claim.model: claim.asks for claim in self._claims.values() if claim.asks > 0}
        room_for = MOST_STARTS
        while left and room_for > 0:
            claim = min((self._claims[model] for model in left), key=self._turn)
            if not self._place(claim):
                del left[claim.model]
                continue
            room_for -= 1
            left[claim.model] -= 1
            if not left[claim.model]:
                del left[claim.model]
        return {
            model: Share(
                tuple(self._started[model]),
                tuple(self._victims[model]),
                *self._said.get(model, (Blocked.NONE, "")),
            )
            for model in self._claims
        }

    def _turn(self, claim: Claim) -> tuple[int, bool, float, str]:
        served = claim.has_worker or bool(self._started[claim.model])
        return (-claim.priority, served, -claim.oldest_wait_s, claim.model)

    def _place(self, claim: Claim) -> bool:
        """Start one more worker of the model, or make room for one; False: nothing more can be done for it."""
        need = claim.need
        if not any(room.could_hold(need) for room in self._all):
            self._said[claim.model] = (Blocked.NEVER_FITS, _never_fits(need, self._all))
            return False
        rooms = [room for room in self._open if room.could_hold(need)]
        free = [room for room in rooms if room.free >= room.takes(need)]
        if free:
            room = min(free, key=lambda room: (self._of_model(claim, room), room.free, room.slot.id))
            room.free -= room.takes(need)
            self._started[claim.model].append(room.slot.id)
            return True
        coming = [room for room in rooms if room.free + room.coming >= room.takes(need)]
        if coming:
            room = min(coming, key=lambda room: (room.takes(need) - room.free, room.slot.id))
            room.reserve(room.takes(need))
            self._said[claim.model] = (Blocked.NO_SLOT, f"waits for a worker to leave {room.slot.id}")
            return True
        if claim.waits and self._make_room(claim, rooms):
            return True
        self._said[claim.model] = (Blocked.NO_SLOT, _no_slot(need, self._all))
        return False

    def _of_model(self, claim: Claim, room: _Room) -> int:
        """Workers of the model on a slot: two that share a GPU are slower than two on two."""
        here = sum(worker.slot == room.slot.id for worker in claim.present)
        return here + self._started[claim.model].count(room.slot.id)

    def _make_room(self, claim: Claim, rooms: list[_Room]) -> bool:
        """Drain idle workers of other models, as few and as unimportant ones as will do."""
        plans = [(plan, room) for room in rooms if (plan := self._plan(claim, room)) is not None]
        if not plans:
            return False
        plan, room = min(plans, key=lambda item: (self._highest_priority(item[0]), len(item[0]), item[1].slot.id))
        for occupant in plan:
            self._drained.add(occupant.worker.id)
            self._victims[occupant.model].append((occupant.worker.id, claim.model))
            room.coming += room.takes(occupant.worker.need)
        room.reserve(room.takes(claim.need))
        names = ", ".join(sorted({occupant.model for occupant in plan}))
        self._said[claim.model] = (Blocked.NO_SLOT, f"an idle worker of {names} makes room on {room.slot.id}")
        return True

    def _plan(self, claim: Claim, room: _Room) -> list[Occupant] | None:
        """Idle workers on a slot that would make room for one worker; None: not enough of them may go."""
        missing = room.takes(claim.need) - room.free - room.coming
        plan: list[Occupant] = []
        for giver in sorted(self._claims.values(), key=lambda giver: (giver.priority, giver.model)):
            if giver.model == claim.model or giver.priority > claim.priority:
                continue
            left = len(giver.spare) if giver.priority < claim.priority else giver.spare_above_minimum
            left -= len(self._victims[giver.model])
            for worker in giver.spare:
                if missing <= 0 or left <= 0:
                    break
                size = room.takes(worker.need)
                if worker.slot == room.slot.id and worker.id not in self._drained and size > 0:
                    plan.append(Occupant(giver.model, worker))
                    missing -= size
                    left -= 1
        return plan if missing <= 0 else None

    def _highest_priority(self, plan: list[Occupant]) -> int:
        return max(self._claims[occupant.model].priority for occupant in plan)


def _never_fits(need: Need, rooms: list[_Room]) -> str:
    sizes = [room.slot.size for room in rooms if room.is_for(need)]
    if not sizes:
        return f"one worker needs {amount(need)}, and there is no slot of that kind"
    return f"one worker needs {amount(need)}, and the largest slot has {_size(need.kind, max(sizes))}"


def _no_slot(need: Need, rooms: list[_Room]) -> str:
    said = []
    for room in rooms:
        if room.could_hold(need):
            free, size = (_size(need.kind, number) for number in (room.free, room.slot.size))
            state = f"out of use: {room.slot.quarantined}" if room.slot.quarantined else f"{free} of {size} free"
            said.append(f"{room.slot.id} {state}")
    shown = ", ".join(said[:4]) + (f" and {len(said) - 4} more" if len(said) > 4 else "")
    return f"no slot has room for {amount(need)}: {shown}"


def amount(need: Need) -> str:
    """What a worker takes, for people."""
    where = f" on {need.slot}" if need.slot else ""
    if need.kind is SlotKind.GPU and need.size <= 0:
        return f"a whole GPU{where}"
    return _size(need.kind, need.size) + (" of GPU memory" if need.kind is SlotKind.GPU else "") + where


def _size(kind: SlotKind, size: int) -> str:
    if kind is SlotKind.GPU:
        return f"{size / 1e9:.1f} GB"
    return f"{size} core" + ("" if size == 1 else "s")
