"""What ends is started again, at a pace that a crash loop cannot make hot."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import HeadraceError
from headrace_local import keeper
from headrace_local.child import Child
from headrace_local.keeper import FIRST_DELAY_S, MAX_DELAY_S, STEADY_S, Ended, Pace, keep_running

RUNS = st.lists(st.floats(0, 10 * STEADY_S))


@given(RUNS)
def test_the_delay_is_never_zero_and_never_endless(runs: list[float]) -> None:
    pace = Pace()
    for ran_s in [*runs, 0.0]:
        pace = pace.after_run(ran_s)
        assert FIRST_DELAY_S <= pace.delay_s <= MAX_DELAY_S


@given(RUNS)
def test_a_steady_run_makes_the_next_end_the_first_again(runs: list[float]) -> None:
    pace = Pace()
    for ran_s in [*runs, STEADY_S]:
        pace = pace.after_run(ran_s)
    assert pace == Pace(1)


def test_early_ends_double_the_delay_and_become_a_loop() -> None:
    paces = [Pace(ends) for ends in (1, 2, 3)]
    assert [pace.delay_s for pace in paces] == [0.5, 1.0, 2.0]
    assert [pace.looping for pace in paces] == [False, False, True]


class OneLine:
    """A real process that says which start it is and ends; every second start is refused."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.starts = 0
        self.child: Child | None = None

    async def start(self) -> None:
        self.starts += 1
        if self.starts == 2:
            raise HeadraceError("not now")
        command = [sys.executable, "-c", f"print({self.starts}); raise SystemExit(7)"]
        self.child = await Child.start(command, self.log, when_we_die=signal.SIGKILL)

    async def wait(self) -> str:
        assert self.child is not None
        return await self.child.wait()


async def test_a_program_that_ends_and_a_start_that_fails_are_both_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "FIRST_DELAY_S", 0.001)
    program = OneLine(tmp_path / "log")
    ends: asyncio.Queue[Ended] = asyncio.Queue()
    await program.start()
    keeping = asyncio.create_task(keep_running("one-line", program, SystemClock(), ends.put_nowait))
    async with asyncio.timeout(30):
        seen = [await ends.get() for _ in range(3)]
    keeping.cancel()
    await asyncio.wait([keeping])
    assert [end.how for end in seen] == ["exit status 7", "not now", "exit status 7"]
    assert [end.pace.early_ends for end in seen] == [1, 2, 3]
    assert (tmp_path / "log").read_text().split()[:2] == ["1", "3"]
