"""A worker that could work, and jobs that wait, and nothing arrives: connect anew, and then give up loudly.

Every pull has an end and a heartbeat of its own, so this should never happen. It is for whatever nobody has thought of.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from headrace_contracts.errors import BrokerUnavailable, HeadraceError
from headrace_storage.connection import Connection
from headrace_storage.lanes import lanes_of_model

# An idle worker gets a job that waits within milliseconds. Shorter accuses a loaded machine.
LOOK_EVERY_S = 5.0
# Looks in a row that find the same; the second of them reconnects, the last one ends the worker.
RECONNECT_AT = 2
GIVE_UP_AT = 6


class Starving(HeadraceError):
    """Jobs wait, the engine is free, and none arrives."""

    def __init__(self, model: str, waiting: int, seconds: float) -> None:
        self.model = model
        super().__init__(
            f"{waiting} jobs wait for {model} and none has arrived for {seconds:g} s although the engine is free: "
            "this worker ends, so that another is started"
        )


class Watch(msgspec.Struct, frozen=True):
    """Looks in a row that found jobs waiting and nothing arriving."""

    arrived: int = 0
    """Jobs that had arrived at the last look."""
    starved: int = 0

    def look(self, hungry: bool, waiting: int, arrived: int) -> "Watch":
        """One more look: whether the worker could take a job, how many wait, how many have arrived so far."""
        starving = hungry and waiting > 0 and arrived == self.arrived
        return Watch(arrived, self.starved + 1 if starving else 0)


async def watch_for_starving(
    connection: Connection, model: str, hungry: Callable[[], bool], arrived: Callable[[], int]
) -> None:
    """Watch until canceled.

    Args:
        connection: of the worker.
        model: whose jobs.
        hungry: whether the worker could take a job now.
        arrived: how many jobs have arrived so far.

    Raises:
        Starving: reconnecting did not help.
    """
    log = structlog.get_logger().bind(model=model)
    watch = Watch()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            lanes = await lanes_of_model(connection, model) if hungry() else ()
        except BrokerUnavailable:
            continue
        waiting = sum(lane.deliverable for lane in lanes)
        watch = watch.look(hungry(), waiting, arrived())
        if watch.starved == RECONNECT_AT:
            log.warning("jobs wait and none arrives: connecting anew", waiting=waiting)
            await connection.renew()
        elif watch.starved >= GIVE_UP_AT:
            raise Starving(model, waiting, LOOK_EVERY_S * watch.starved)
