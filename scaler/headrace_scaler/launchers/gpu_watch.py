"""Looks at the GPUs without ever waiting long, and keeps in mind which of them may be used."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

import msgspec

from headrace_contracts.clock import Clock
from headrace_scaler.launchers.gpus import Gpu, GpuFault, GpuMemory, Gpus, GpusUnavailable

# Several questions within this time get one answer: a burst of starts is not as many healthy looks.
LOOK_EVERY_S = 1.0
# A look takes milliseconds. A driver that is held up by a broken GPU may never answer.
ANSWER_DEADLINE_S = 2.0
# One good look may fall between two faults.
HEALTHY_LOOKS = 5
# The driver is asked anew for its GPUs, which may cost it a second, while one is missing: after a reset, or at boot.
FIND_EVERY_S = 30.0


class Health(msgspec.Struct, frozen=True):
    """Whether a GPU may be used."""

    quarantined: str = ""
    """Why not."""
    healthy_looks: int = 0
    """In a row, since then."""

    def after(self, fault: str) -> "Health":
        """Its health after another look, which found `fault` or nothing."""
        if fault:
            return Health(fault)
        if not self.quarantined or self.healthy_looks + 1 >= HEALTHY_LOOKS:
            return Health()
        return Health(self.quarantined, self.healthy_looks + 1)


class GpuState(msgspec.Struct, frozen=True):
    """One GPU at the last look."""

    gpu: Gpu
    memory: GpuMemory = GpuMemory(0, 0)
    """As last seen, which may be before a fault."""
    health: Health = Health()


class _Answers:
    """What a look has found so far. Filled by its thread, read by us, also if it never ends."""

    def __init__(self) -> None:
        self.found: tuple[Gpu, ...] | None = None
        self.unavailable = ""
        self.memories: dict[str, GpuMemory] = {}
        self.faults: dict[str, str] = {}
        self.defect: BaseException | None = None


class GpuWatch:
    """The GPUs in the order in which they were first seen: `gpu:0` stays the same one."""

    def __init__(self, gpus: Gpus, clock: Clock, visible: str | None = None) -> None:
        """Nothing is asked yet.

        Args:
            gpus: who is asked.
            clock: for the time between looks.
            visible: CUDA_VISIBLE_DEVICES of whoever starts the workers: only these GPUs are theirs, in that order.
        """
        self.note = ""
        """Why there is no GPU; empty if there are some."""
        self._gpus = gpus
        self._clock = clock
        self._visible = visible
        self._looking = asyncio.Lock()
        self._looked_at: float | None = None
        self._found_at: float | None = None
        self._states: tuple[GpuState, ...] = ()
        self._thread: threading.Thread | None = None

    async def look(self) -> tuple[GpuState, ...]:
        """All GPUs that were ever seen, as they are now."""
        async with self._looking:
            now = self._clock.monotonic()
            if self._looked_at is None or now - self._looked_at >= LOOK_EVERY_S:
                await self._look(now)
                self._looked_at = self._clock.monotonic()
            return self._states

    async def _look(self, now: float) -> None:
        missing = not self._states or any(state.health.quarantined for state in self._states)
        find = missing and (self._found_at is None or now - self._found_at >= FIND_EVERY_S)
        if not (find or self._states):
            return
        if find:
            self._found_at = now
        answers = _Answers()
        silent = not await self._ask(answers, find)
        if answers.defect is not None:
            raise answers.defect
        self._take_in(answers, silent)

    async def _ask(self, answers: _Answers, find: bool) -> bool:
        """Whether the driver answered in time. One that hangs is not asked again before it has answered."""
        if self._thread is not None and self._thread.is_alive():
            return False
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it took too long to be of interest
                loop.call_soon_threadsafe(done.set)

        known = [state.gpu for state in self._states]
        # Not one of the loop's threads: nobody can end a thread that hangs, and a program waits for those at its end.
        self._thread = threading.Thread(
            target=_read, args=(self._gpus, known, find, answers, tell), name="gpus", daemon=True
        )
        self._thread.start()
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                await done.wait()
        except TimeoutError:
            return False
        self._thread = None
        return True

    def _take_in(self, answers: _Answers, silent: bool) -> None:
        found = answers.found or ()
        states = tuple(_named(state, found) for state in self._states)
        known = {state.gpu.key for state in states}
        new = tuple(GpuState(gpu) for gpu in visible_gpus(found, self._visible) if gpu.key not in known)
        self._states = tuple(_after(state, answers, silent) for state in states + new)
        self.note = "" if self._states else _why_none(answers, silent, self._visible)


def _named(state: GpuState, found: tuple[Gpu, ...]) -> GpuState:
    """A GPU that could not be asked its name at first has one by now, perhaps."""
    named = [gpu for gpu in found if gpu.uuid and not state.gpu.uuid and gpu.index == state.gpu.index]
    return GpuState(named[0], state.memory, state.health) if named else state


def _after(state: GpuState, answers: _Answers, silent: bool) -> GpuState:
    memory = answers.memories.get(state.gpu.key)
    if memory is not None:
        return GpuState(state.gpu, memory, state.health.after(""))
    fault = answers.faults.get(state.gpu.key) or answers.unavailable
    if not fault:
        assert silent, "a GPU was not asked"
        fault = f"NVIDIA's driver did not answer within {ANSWER_DEADLINE_S:g} s"
    return GpuState(state.gpu, state.memory, state.health.after(fault))


def _why_none(answers: _Answers, silent: bool, visible: str | None) -> str:
    if answers.unavailable:
        return answers.unavailable
    if silent:
        return f"NVIDIA's driver did not answer within {ANSWER_DEADLINE_S:g} s"
    if answers.found:
        return f"CUDA_VISIBLE_DEVICES={visible} names none of the {len(answers.found)} GPUs of this machine"
    return "NVIDIA's driver knows no GPU"


def _read(gpus: Gpus, known: list[Gpu], find: bool, answers: _Answers, tell: Callable[[], None]) -> None:
    """One look, in a thread."""
    try:
        if find:
            answers.found = gpus.find()
        everyone = {gpu.key: gpu for gpu in (*known, *(answers.found or ()))}
        for gpu in everyone.values():
            try:
                answers.memories[gpu.key] = gpus.memory(gpu)
            except GpuFault as error:
                answers.faults[gpu.key] = str(error)
    except GpusUnavailable as error:
        answers.unavailable = str(error)
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the thread
        answers.defect = error
    tell()


def visible_gpus(found: tuple[Gpu, ...], visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; as for CUDA, what follows a wrong entry is left out."""
    if visible is None:
        return found
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        # A UUID may be shortened as long as it is clear.
        named = [
            gpu for gpu in found if entry == str(gpu.index) or (entry[:4] == "GPU-" and gpu.uuid.startswith(entry))
        ]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return tuple(chosen)
