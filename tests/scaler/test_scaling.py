"""The scaler at work: a real broker, real workers, from nothing to enough of them and back."""

import signal

import msgspec
import pytest
from scaling_stage import DEADLINE_S, QUICK, Stage

from headrace_contracts.alert import ScalingDecision
from headrace_contracts.model import ModelSpec, Resources
from headrace_contracts.result import Status
from headrace_contracts.scaling import Scaling
from headrace_scaler import service
from headrace_scaler.telling import Told
from headrace_storage.registry import remove_model, update_model

pytestmark = pytest.mark.slow


def with_scaling(spec: ModelSpec, **changes: object) -> ModelSpec:
    return msgspec.structs.replace(spec, scaling=msgspec.structs.replace(spec.scaling, **changes))


async def test_a_job_starts_a_worker_and_the_last_job_ends_it(stage: Stage) -> None:
    await stage.add_model("m")
    async with stage.scaler():
        assert stage.worker_pids() == []
        job = await stage.submit("m", echo="hello")
        assert (await stage.result("m", job)).status is Status.SUCCEEDED
        first = await stage.until_decided("m", lambda decision: decision.started == 1)
        assert (first.target, first.workers, first.waiting) == (1, 0, 1)
        await stage.until_decided("m", lambda decision: len(decision.draining) == 1)
        await stage.until_no_worker()
        assert stage.started("m") == 1
        assert {start.model for start in stage.cold_starts} == {"m"}
        assert (await stage.result("m", await stage.submit("m", echo="again"))).status is Status.SUCCEEDED
        assert stage.started("m") == 2


async def test_a_job_for_a_model_without_a_worker_does_not_wait_for_the_next_look(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TICK_S", 10 * DEADLINE_S)
    await stage.add_model("m")
    async with stage.scaler():
        await stage.until_decided("m", lambda decision: decision.target == 0)
        job = await stage.submit("m", echo="at once")
        await stage.until_decided("m", lambda decision: decision.started == 1)
        assert (await stage.result("m", job)).status is Status.SUCCEEDED


async def test_a_job_that_comes_while_the_last_worker_drains_does_not_wait_for_the_next_look(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last_look(told: Told) -> None:
        if isinstance(told, ScalingDecision) and told.draining:
            monkeypatch.setattr(service, "TICK_S", 10 * DEADLINE_S)

    await stage.add_model("m")
    async with stage.scaler(on_told=last_look):
        await stage.result("m", await stage.submit("m", echo="first"))
        await stage.until_decided("m", lambda decision: bool(decision.draining))
        job = await stage.submit("m", echo="second")
        assert (await stage.result("m", job)).status is Status.SUCCEEDED


async def test_a_backlog_brings_workers_and_none_is_stopped_with_a_job(stage: Stage) -> None:
    await stage.add_model("m", Scaling(max_workers=3, idle_timeout_s=0.5, scale_down_delay_s=0.5, cooldown_s=0.5))
    async with stage.scaler():
        jobs = [await stage.submit("m", steps=1, step_s=0.4) for _ in range(15)]
        results = [await stage.result("m", job) for job in jobs]
        await stage.until_no_worker()
    assert {result.status for result in results} == {Status.SUCCEEDED}
    assert {result.attempts for result in results} == {1}, "a job was run twice"
    assert stage.started("m") == 3
    assert len({result.worker for result in results}) > 1
    assert max(decision.target for decision in stage.of("m")) == 3
    assert stage.of("m")[-1].target == 0


async def test_a_scaler_that_is_killed_leaves_its_workers_to_the_next(stage: Stage) -> None:
    await stage.add_model("m", Scaling(max_workers=1, idle_timeout_s=3.0, cooldown_s=0.5))
    first = await stage.scaler_process()
    job = await stage.submit("m", steps=30, step_s=0.1)
    await stage.until(lambda: any(engine.running for status in stage.seen.values() for engine in status.engines))
    first.kill()
    await first.wait()
    await stage.scaler_process()
    assert (await stage.result("m", job)).attempts == 1
    drained = await stage.until_decided("m", lambda decision: len(decision.draining) == 1)
    await stage.until_no_worker()
    assert stage.started("m") == 1, "the second scaler started another worker"
    assert set(drained.draining) == set(stage.seen)


async def test_of_two_scalers_one_acts_and_the_other_takes_over(stage: Stage) -> None:
    await stage.add_model("m", Scaling(min_workers=1, max_workers=1))
    first = await stage.scaler_process("here")
    await stage.until(lambda: bool(stage.seen))
    leader = await stage.until_leader(lambda name: True)
    await stage.scaler_process("elsewhere")
    first.send_signal(signal.SIGSTOP)
    await stage.until_leader(lambda name: name != leader)
    first.send_signal(signal.SIGCONT)
    # The one that was frozen finds out that it leads no more; the other has the worker in its care.
    await update_model(stage.connection, "m", lambda spec: with_scaling(spec, min_workers=0, idle_timeout_s=0.1))
    await stage.until_no_worker()
    assert stage.started("m") == 1
    assert len(stage.seen) == 1


async def test_a_crash_loop_is_said_and_slows_down_and_others_are_served(stage: Stage) -> None:
    await stage.add_model("broken", QUICK, defaults={"no_such_field": 1})
    await stage.add_model("m")
    async with stage.scaler():
        await stage.submit("broken", echo="never")
        looping = await stage.until_decided("broken", lambda decision: decision.blocked == "crash_loop")
        assert "no_such_field" in looping.reason
        starts = stage.started("broken")
        assert (await stage.result("m", await stage.submit("m", echo="served"))).status is Status.SUCCEEDED
        assert stage.started("broken") - starts <= 1
        await update_model(stage.connection, "broken", lambda spec: msgspec.structs.replace(spec, defaults={}))
        await stage.until(lambda: any("broken" in worker for worker in stage.seen))


async def test_the_idle_worker_of_a_model_that_is_removed_ends(stage: Stage) -> None:
    await stage.add_model("m", Scaling(min_workers=1, max_workers=1))
    async with stage.scaler():
        await stage.until(lambda: any(engine.idle_since for status in stage.seen.values() for engine in status.engines))
        await remove_model(stage.connection, "m")
        await stage.until_no_worker()


async def test_a_worker_of_an_older_entry_is_replaced_when_it_is_idle(stage: Stage) -> None:
    await stage.add_model("m", Scaling(min_workers=1, max_workers=1, cooldown_s=0.5), version="1")
    async with stage.scaler():
        job = await stage.submit("m", steps=10, step_s=0.1)
        await stage.until(lambda: any(engine.running for status in stage.seen.values() for engine in status.engines))
        await update_model(stage.connection, "m", lambda spec: msgspec.structs.replace(spec, version="2"))
        before = await stage.result("m", job)
        await stage.until(lambda: len(stage.seen) == 2)
        await stage.until_decided("m", lambda decision: decision.started == 1 and decision.at > before.completed_at)
        after = await stage.result("m", await stage.submit("m", echo="which"))
    assert (before.version, before.attempts) == ("1", 1)
    assert after.worker != before.worker
    assert after.version == "2"


async def test_a_model_that_fits_nowhere_is_said_with_both_sizes(stage: Stage) -> None:
    await stage.add_model("huge", QUICK, resources=Resources(device="cuda", memory_bytes=80 << 30))
    async with stage.scaler():
        await stage.submit("huge", echo="never")
        decision = await stage.until_decided("huge", lambda decision: decision.blocked != "")
    assert decision.blocked == "never_fits"
    assert stage.started("huge") == 0
