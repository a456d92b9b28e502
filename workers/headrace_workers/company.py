"""Who may be on a worker together: any jobs of its model, or one job alone.

A job that may have ended an engine or a worker runs alone, so that what it does harms nobody else.
"""

import asyncio
from collections.abc import Callable

from headrace_workers.outcome import Interrupted


class Company:
    """The jobs of one model on one worker that have come as far as the engine, and have not been settled."""

    def __init__(self) -> None:
        self._members: set[object] = set()
        self._loner: object | None = None
        self._left = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether a job runs alone, or waits to: no other may join, and none should be drawn."""
        return self._loner is not None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it closes or opens; it must not raise."""
        self._listeners.append(listener)

    async def join(self, member: object, alone: bool) -> None:
        """Come in; a job that has to be alone waits until the others have left.

        Raises:
            Interrupted: another one is to be alone here.
        """
        if self._loner is not None:
            raise Interrupted("another job has to run alone on this worker")
        if alone:
            self._loner = member
            self._tell()
            while self._members:
                self._left.clear()
                await self._left.wait()
        self._members.add(member)

    def leave(self, member: object) -> None:
        """Go, or give up waiting; no matter if the member never came."""
        self._members.discard(member)
        self._left.set()
        if self._loner is member:
            self._loner = None
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
