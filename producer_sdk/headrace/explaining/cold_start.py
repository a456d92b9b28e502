"""Cold starts in words. Pure."""

import msgspec

from headrace.durations import duration
from headrace_contracts.heartbeat import ColdStart

# Beside the phases, and after them: said elsewhere.
_NO_PHASES = ("forked", "first_result_s")


def phases_text(phases: ColdStart, *, decide_s: float = 0.0) -> str:
    """The phases that took any time, in their order, as in `spawn 500 ms, load 4.5 s`."""
    named = {name: value for name, value in msgspec.structs.asdict(phases).items() if name not in _NO_PHASES}
    shown = {"decide_s": decide_s, **named}
    return ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ')} {duration(took_s)}"
        for name, took_s in shown.items()
        if took_s > 0
    )
