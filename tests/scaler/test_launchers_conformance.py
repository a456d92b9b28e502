"""What every launcher must do. An adapter for another platform is one more `Place` in the fixture below."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from launchers_docker import DockerPlace, missing
from launchers_places import LocalPlace, Place, ended, free, until
from launchers_replicas import ReplicasPlace
from rig import DEADLINE_S, Rig
from scraping import metrics_page

from headrace_contracts.heartbeat import EngineState
from headrace_contracts.model import EngineKind, ModelSpec
from headrace_contracts.settings import MetricsSettings, NatsSettings, Settings
from headrace_contracts.tasks.registry import Task
from headrace_local.nats_server import NatsServer
from headrace_scaler.launchers.machine import workers_environment
from headrace_scaler.launchers.port import Launched, Launcher, LaunchError, Order
from headrace_scaler.launchers.zygote_process import ZygoteProcess
from headrace_storage.connection import Connection
from headrace_storage.topology import ensure_topology

LONG_S = 600.0


@pytest_asyncio.fixture
async def rig(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """A model of the synthetic engine on a real broker."""
    async with Connection(NatsSettings(url=nats_server.url)) as connection:
        await ensure_topology(connection)
        rig = Rig(nats_server, connection, f"m-{uuid.uuid4().hex[:8]}", tmp_path)
        await rig.add_model()
        yield rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A warm parent for workers of the synthetic engine, which has nothing to import."""
    folder = tmp_path_factory.mktemp("zygote")
    spec = ModelSpec("m", Task.SYNTHETIC, EngineKind.SYNTHETIC)
    async with ZygoteProcess([spec], folder, os.environ, folder / "log") as process:
        await process.warm.wait()
        yield process.path


@pytest_asyncio.fixture(
    params=[
        pytest.param("exec", marks=pytest.mark.slow),
        pytest.param("forked", marks=pytest.mark.slow),
        "replicas",
        pytest.param("docker", marks=(pytest.mark.docker, pytest.mark.slow)),
    ]
)
async def place(request: pytest.FixtureRequest, rig: Rig, tmp_path: Path, zygote: Path) -> AsyncIterator[Place]:
    if request.param == "replicas":
        place: Place = ReplicasPlace()
    elif request.param == "docker":
        if why := missing():
            pytest.skip(f"NOT TESTED: {why}: nothing shows that containers are started and stopped as they should be")
        place = DockerPlace()
    else:
        parent = zygote if request.param == "forked" else None
        place = LocalPlace(tmp_path / "s", rig.model, rig.environment, zygote=parent)
    try:
        yield place
    finally:
        place.clear()


async def started(launcher: Launcher, place: Place, order: Order) -> Launched:
    """Start a worker, and wait until it is there under the name it keeps."""
    before = place.processes()
    await launcher.start(order)
    await until(launcher, lambda _: place.processes() > before)
    return named(await launcher.running(), order)


def named(running: tuple[Launched, ...], order: Order) -> Launched:
    [one] = [each for each in running if order.worker in (each.worker, each.order)]
    return one


async def until_gone(launcher: Launcher, place: Place, worker: str) -> None:
    """Wait until a worker that was stopped has ended, and its platform says so."""
    await until(launcher, lambda running: all(each.ended is not None for each in running if each.worker == worker))
    kept = [each for each in await launcher.running() if each.worker == worker]
    assert bool(kept) == place.keeps_stopped


async def test_a_worker_runs_from_its_order_on(place: Place) -> None:
    order = place.order()
    async with place.launcher() as launcher:
        await launcher.start(order)
        [one] = await launcher.running()
    assert (one.worker, one.model, one.slot, one.need) == (order.worker, order.model, order.slot, order.need)
    assert one.ended is None
    assert one.ordered_at > 0


async def test_the_same_order_twice_is_one_worker(place: Place) -> None:
    order = place.order()
    async with place.launcher() as launcher:
        await asyncio.gather(launcher.start(order), launcher.start(order))
        await until(launcher, lambda _: place.processes())
        await launcher.start(order)
        assert len(await launcher.running()) == place.processes() == 1


async def test_what_is_free_of_a_slot_follows_what_runs(place: Place) -> None:
    async with place.launcher() as launcher:
        assert await free(launcher, place.slot) == 3
        one = await started(launcher, place, place.order(size=2))
        assert await free(launcher, place.slot) == 1
        await launcher.stop(one.worker, LONG_S)
        await until_gone(launcher, place, one.worker)
        assert await free(launcher, place.slot) == 3


async def test_a_slot_that_is_full_takes_no_more(place: Place) -> None:
    async with place.launcher() as launcher:
        await launcher.start(place.order(size=2))
        with pytest.raises(LaunchError, match=f"slot {place.slot} is full"):
            await launcher.start(place.order(size=2))
        await launcher.start(place.order())
        assert len(await launcher.running()) == 2


async def test_orders_at_once_do_not_overfill_a_slot(place: Place) -> None:
    async with place.launcher() as launcher:
        orders = [place.order(size=2) for _ in range(3)]
        outcomes = await asyncio.gather(*(launcher.start(each) for each in orders), return_exceptions=True)
        assert [type(each) for each in outcomes] == [type(None), LaunchError, LaunchError]
        assert await free(launcher, place.slot) == 1


async def test_a_slot_that_does_not_exist_is_named(place: Place) -> None:
    async with place.launcher() as launcher:
        with pytest.raises(LaunchError, match="no slot gpu:7"):
            await launcher.start(place.order(slot="gpu:7"))
        assert await launcher.running() == ()


async def test_nothing_is_started_on_a_slot_in_quarantine(place: Place) -> None:
    async with place.launcher() as launcher:
        [broken] = [each for each in await launcher.slots() if each.id == "gpu:0"]
        assert broken.quarantined
        with pytest.raises(LaunchError, match=f"gpu:0 is quarantined: {broken.quarantined}"):
            await launcher.start(place.order(slot="gpu:0"))
        assert await launcher.running() == ()


async def test_how_a_worker_ended_is_told_until_it_is_forgotten(place: Place) -> None:
    order = place.failing_order()
    async with place.launcher() as launcher:
        await launcher.start(order)
        running = await until(launcher, lambda running: any(each.ended for each in running))
        one = named(running, order)
        assert one.ended is not None
        assert one.ended.startswith("exit status 1: error:")
        assert order.model in one.ended
        assert await free(launcher, place.slot) == 3
        await launcher.start(order)
        assert named(await launcher.running(), order).ended == one.ended
        await launcher.forget(one.worker)
        await until(launcher, lambda running: running == ())
        await launcher.forget(one.worker)


async def test_a_worker_that_runs_is_not_forgotten(place: Place) -> None:
    async with place.launcher() as launcher:
        one = await started(launcher, place, place.order())
        await launcher.forget(one.worker)
        assert named(await launcher.running(), Order(one.worker, one.model, one.slot, one.need)).ended is None


async def test_a_worker_that_is_killed_from_outside_is_seen(place: Place) -> None:
    async with place.launcher() as launcher:
        one = await started(launcher, place, place.order())
        place.crash(one.worker)
        assert await ended(launcher, one.worker) == "SIGKILL"


async def test_of_several_workers_the_one_that_was_meant_is_stopped(place: Place) -> None:
    async with place.launcher() as launcher:
        first, second, third = [await started(launcher, place, place.order()) for _ in range(3)]
        await launcher.stop(second.worker, LONG_S)
        await until_gone(launcher, place, second.worker)
        left = {each.worker for each in await launcher.running() if each.ended is None}
        assert left == {first.worker, third.worker}


async def test_a_worker_that_does_not_end_within_its_grace_is_killed(place: Place) -> None:
    async with place.launcher() as launcher:
        one = await started(launcher, place, place.order())
        place.hang(one.worker)
        await launcher.stop(one.worker, 0.5)
        # It has its grace: after the call it is there.
        assert named(await launcher.running(), Order(one.worker, one.model, one.slot, one.need)).ended is None
        await until_gone(launcher, place, one.worker)
        assert place.processes() == 0


async def test_stopping_an_unknown_worker_does_nothing(place: Place) -> None:
    async with place.launcher() as launcher:
        one = await started(launcher, place, place.order())
        await launcher.stop("w-nobody", 0)
        await launcher.forget("w-nobody")
        assert [each.worker for each in await launcher.running() if each.ended is None] == [one.worker]


async def test_another_launcher_finds_what_runs(place: Place) -> None:
    order = place.order(size=2)
    async with place.launcher() as launcher:
        one = await started(launcher, place, order)
    async with place.launcher() as launcher:
        assert await launcher.running() == (one,)
        assert await free(launcher, place.slot) == 1
        await launcher.start(order)
        assert await launcher.running() == (one,)
        assert place.processes() == 1
        await launcher.stop(one.worker, LONG_S)
        await until_gone(launcher, place, one.worker)


async def test_another_launcher_ends_a_grace_that_had_begun(place: Place) -> None:
    async with place.launcher() as launcher:
        one = await started(launcher, place, place.order())
        place.hang(one.worker)
        await launcher.stop(one.worker, 0.5)
    assert place.processes() == 1
    async with place.launcher() as launcher:
        await until_gone(launcher, place, one.worker)
        assert place.processes() == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exec", "forked"])
async def test_a_local_worker_is_known_on_the_broker_by_its_order(
    rig: Rig, tmp_path: Path, zygote: Path, way: str
) -> None:
    """The whole of a cold start and an orderly end, with a job between them that its metrics have counted."""
    environment = workers_environment(rig.environment, Settings(metrics=MetricsSettings(9464)))
    place = LocalPlace(tmp_path / "s", rig.model, environment, zygote=zygote if way == "forked" else None)
    order = place.order()
    try:
        async with place.launcher() as launcher:
            await launcher.start(order)
            status = await rig.until(lambda status: status.engines[0].state is EngineState.READY)
            assert (status.id, status.slot, status.pid) == (order.worker, "cpu", place.pid(order.worker))
            assert (await rig.run(echo="hello")).status == "succeeded"
            counted = f'headrace_results_total{{code="",lane="normal",model="{rig.model}",status="succeeded"}} 1.0'
            async with asyncio.timeout(DEADLINE_S):
                while counted not in await asyncio.to_thread(metrics_page, status.metrics):
                    await asyncio.sleep(0.02)
            await launcher.stop(order.worker, LONG_S)
            assert await ended(launcher, order.worker) == "exit status 0"
            assert place.processes() == 0
    finally:
        place.clear()
    assert msgspec.json.decode(place.log(order.worker).splitlines()[-1])["event"] == "worker stopped"
