"""Which lane to ask first: high before normal before low, but none is passed over for ever. Pure."""

from headrace_contracts.names import Lane

# How often a lane may be passed over while a higher one is served. Smaller makes lanes more alike; larger makes a low
# job wait longer under load: with these, at least every 9th draw is offered to normal and every 17th to low first.
PATIENCE = {Lane.HIGH: 0, Lane.NORMAL: 8, Lane.LOW: 16}


class LaneOrder:
    """Ages the lanes by draws: one that was passed over often enough is asked first, once."""

    def __init__(self) -> None:
        self._passed_over = dict.fromkeys(Lane, 0)

    def next(self) -> tuple[Lane, ...]:
        """The lanes in the order to ask them in now."""
        overdue = [lane for lane in reversed(Lane) if self._passed_over[lane] >= PATIENCE[lane] > 0]
        return (*overdue, *(lane for lane in Lane if lane not in overdue))

    def drew(self, asked: tuple[Lane, ...], served: Lane | None) -> None:
        """Note a draw: `asked` in this order until `served` had a job (None: no lane had one)."""
        for lane in asked:
            # Asked and empty, or served: it has no job that was passed over.
            self._passed_over[lane] = 0
            if lane is served:
                break
        if served is not None:
            for lane in asked[asked.index(served) + 1 :]:
                self._passed_over[lane] += 1
