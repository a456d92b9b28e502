"""The pure rules around an engine: its health, when it is replaced, who may be in it, what it may give out."""

import asyncio
import math
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.errors import ErrorCode, Permanent
from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import Recycle
from headrace_contracts.result import Usage
from headrace_workers.company import Company
from headrace_workers.engine_health import LONGEST_BACKOFF_S, REST_S, UNHEALTHY_AFTER, Health
from headrace_workers.frames import Done, OutFile
from headrace_workers.outcome import Interrupted
from headrace_workers.output_check import check_output
from headrace_workers.recycling import JITTER, Bounds
from headrace_workers.watchdog import Watch

CRASHED = ErrorCode.ENGINE_CRASHED


def after(faults: int, code: ErrorCode = CRASHED) -> Health:
    health = Health()
    for _ in range(faults):
        health = health.after_fault(code)
    return health


def test_the_first_death_is_one_jobs_doing() -> None:
    assert after(1).backoff_s == 0
    assert after(1).down_state is EngineState.RECOVERING
    assert after(1).loaded_state is EngineState.READY, "loading runs the model once"


def test_an_engine_that_only_loads_is_not_green() -> None:
    """Loading proved nothing the last time either: only a job that succeeds does."""
    assert after(2).loaded_state is EngineState.RECOVERING
    assert after(2).after_job().loaded_state is EngineState.READY


def test_an_engine_that_cannot_be_kept_is_unhealthy_until_a_job_succeeds() -> None:
    assert after(UNHEALTHY_AFTER - 1).down_state is EngineState.RECOVERING
    assert after(UNHEALTHY_AFTER).down_state is EngineState.UNHEALTHY
    assert after(UNHEALTHY_AFTER).after_recycling().down_state is EngineState.UNHEALTHY


def test_a_device_gets_a_rest_and_replacing_is_no_fault() -> None:
    assert after(1, ErrorCode.DEVICE_ERROR).backoff_s == REST_S[ErrorCode.DEVICE_ERROR] > 0
    assert Health().after_recycling().down_state is EngineState.LOADING
    assert Health().after_recycling().backoff_s == 0


@given(st.integers(0, 100))
def test_backoff_grows_and_is_bounded(faults: int) -> None:
    assert after(faults).backoff_s <= after(faults + 1).backoff_s <= LONGEST_BACKOFF_S


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_a_process_is_replaced_a_little_before_its_bound_and_never_after(jobs: int, seed: int) -> None:
    bounds = Bounds.draw(Recycle(jobs=jobs), random.Random(seed))
    assert bounds.reached(jobs, 0, 0) is not None
    assert bounds.reached(math.floor(jobs * (1 - JITTER)) - 1, 0, 0) is None


def test_each_bound_has_its_reason() -> None:
    rng = random.Random(1)
    assert Bounds.draw(Recycle(), rng).reached(10**9, 10**12, 10**9) is None
    assert Bounds.draw(Recycle(growth_bytes=100 << 20), rng).reached(1, 100 << 20, 1) == "it has grown by 100 MiB"
    assert Bounds.draw(Recycle(age_s=60), rng).reached(1, 1, 60) == "it is 60 s old"


async def test_a_job_that_must_be_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    company = Company()
    await company.join("a", alone=False)
    await company.join("b", alone=False)
    lone = asyncio.create_task(company.join("suspect", alone=True))
    await asyncio.sleep(0)
    assert company.closed
    for alone in (False, True):
        with pytest.raises(Interrupted):
            await company.join("late", alone)
    company.leave("a")
    await asyncio.sleep(0)
    assert not lone.done()
    company.leave("b")
    async with asyncio.timeout(10):
        await lone
    company.leave("late")
    assert company.closed, "somebody else's leaving opened it"
    company.leave("suspect")
    assert not company.closed
    await company.join("c", alone=False)


async def test_a_job_that_gives_up_waiting_to_be_alone_opens_the_company() -> None:
    company = Company()
    await company.join("a", alone=False)
    lone = asyncio.create_task(company.join("suspect", alone=True))
    await asyncio.sleep(0)
    lone.cancel()
    await asyncio.wait([lone])
    company.leave("suspect")
    await company.join("b", alone=False)


def done(output: object, *files: str) -> Done:
    packed = msgspec.Raw(msgspec.msgpack.encode(output))
    return Done("1-1", packed, tuple(OutFile(name, "x/y") for name in files), Usage(), 0.1)


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ({"seconds": math.nan}, "output.seconds"),
        ({"segments": [{"start": 0.0}, {"start": math.inf}]}, "output.segments[1].start"),
        ([1.0, -math.inf], "output[1]"),
    ],
)
def test_a_number_that_is_none_is_refused(output: object, place: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no numbers") as caught:
        check_output(done(output), tmp_path)
    assert caught.value.code is ErrorCode.INVALID_OUTPUT
    assert str(caught.value).endswith(place)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "good.png").write_bytes(b"x")
    check_output(done({"images": ["good.png"], "nothing": None, "text": "", "n": 1e308}, "good.png"), tmp_path)
    for name in ("empty.png", "missing.png"):
        with pytest.raises(Permanent, match=name):
            check_output(done({}, "good.png", name), tmp_path)


def test_only_jobs_that_wait_while_none_arrives_are_starving() -> None:
    watch = Watch()
    for _ in range(3):
        watch = watch.look(hungry=True, waiting=5, arrived=0)
    assert watch.starved == 3
    assert watch.look(hungry=True, waiting=5, arrived=1).starved == 0
    assert watch.look(hungry=True, waiting=0, arrived=0).starved == 0
    assert watch.look(hungry=False, waiting=5, arrived=0).starved == 0
