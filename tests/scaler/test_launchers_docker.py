"""Workers as containers: what is asked of the Engine, what is read back, and what a real Engine makes of it."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import msgspec
import pytest
from launchers_docker import IMAGE, DockerPlace, docker, missing
from launchers_places import GoodGpus, ended, until

from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import SlotKind
from headrace_contracts.settings import ScalerSettings
from headrace_scaler.launchers.docker.container import (
    end_of,
    kill_at_of,
    launched_of,
    name_of,
    name_until,
    other_networks,
    worker_container,
)
from headrace_scaler.launchers.docker.launcher import DockerLauncher
from headrace_scaler.launchers.port import LaunchError, Order
from headrace_scaler.policy.observation import Need

ORDER = Order("m-1", "m", "cpu", Need(SlotKind.CPU, 2))
GPU = {"Driver": "nvidia", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}
TEMPLATE = {
    "Image": "sha256:abc",
    "Config": {
        "Entrypoint": ["headrace"],
        "Cmd": ["models", "prepare", "m.toml"],
        "Env": ["HEADRACE_CONFIG=/c/headrace.toml", "CUDA_VISIBLE_DEVICES=7"],
        "User": "10001:10001",
        "Labels": {
            "com.docker.compose.project": "p",
            "com.docker.compose.container-number": "1",
            "headrace.model": "m",
        },
    },
    "HostConfig": {
        "Memory": 2 << 30,
        "ReadonlyRootfs": True,
        "Mounts": [{"Type": "volume", "Source": "p_models", "Target": "/models"}],
        "RestartPolicy": {"Name": "unless-stopped"},
        "PortBindings": {"1/tcp": []},
        "DeviceRequests": None,
    },
    "NetworkSettings": {"Networks": {"p_default": {"Aliases": ["worker-m"]}, "p_other": {}}},
}


# What is asked of the Engine


def test_a_worker_may_use_what_its_template_may_and_is_told_who_it_is() -> None:
    made = worker_container(TEMPLATE, ORDER, 1234.5, "", 42)
    assert made["Image"] == "sha256:abc"
    assert (made["Entrypoint"], made["User"]) == (["headrace"], "10001:10001")
    assert made["Cmd"] == ["worker", "--model", "m", "--id", "m-1", "--slot", "cpu"]
    assert made["Env"] == [
        "HEADRACE_CONFIG=/c/headrace.toml",
        "HEADRACE_LAUNCHED_AT=1234.500000",
        "CUDA_VISIBLE_DEVICES=",
    ]
    host = made["HostConfig"]
    assert (host["Memory"], host["ReadonlyRootfs"], host["Mounts"]) == (2 << 30, True, TEMPLATE["HostConfig"]["Mounts"])
    assert host["RestartPolicy"] == {"Name": "no"}
    assert "PortBindings" not in host
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"p_default": {}}}, "the name of the service is not its own"
    assert other_networks(TEMPLATE) == ["p_other"]
    assert made["Labels"]["com.docker.compose.container-number"] == "42"


def test_what_its_labels_say_is_what_was_ordered() -> None:
    labels = worker_container(TEMPLATE, ORDER, 1234.5, "", 42)["Labels"]
    read = launched_of(labels)
    assert read is not None
    assert (read.worker, read.model, read.slot, read.need) == (ORDER.worker, ORDER.model, ORDER.slot, ORDER.need)
    assert (read.ordered_at, read.ended) == (1234.5, None)


@pytest.mark.parametrize(
    "strange", [{"headrace.need": "two"}, {"headrace.ordered-at": "noon"}, {"headrace.slot": None}]
)
def test_labels_that_are_not_as_ours_are_no_worker(strange: dict[str, str | None]) -> None:
    labels = worker_container(TEMPLATE, ORDER, 1234.5, "", 42)["Labels"] | strange
    assert launched_of({key: value for key, value in labels.items() if value is not None}) is None


def test_a_worker_has_the_time_to_end_that_its_service_has() -> None:
    template = {**TEMPLATE, "Config": {**TEMPLATE["Config"], "StopTimeout": 45, "Volumes": {"/cache": {}}}}
    made = worker_container(template, ORDER, 1234.5, "", 42)
    assert (made["StopTimeout"], made["Volumes"]) == (45, {"/cache": {}})
    assert "StopTimeout" not in worker_container(TEMPLATE, ORDER, 1234.5, "", 42)


def test_a_worker_on_cores_gets_no_gpu_and_one_on_a_gpu_only_its_own() -> None:
    template = {**TEMPLATE, "HostConfig": {**TEMPLATE["HostConfig"], "DeviceRequests": [GPU]}}
    assert worker_container(template, ORDER, 0.0, "", 2)["HostConfig"]["DeviceRequests"] == []
    made = worker_container(template, ORDER, 0.0, "GPU-bb", 2)
    assert made["HostConfig"]["DeviceRequests"] == [{**GPU, "Count": 0, "DeviceIDs": ["GPU-bb"]}]
    assert "CUDA_VISIBLE_DEVICES=GPU-bb" in made["Env"]


# What is read back


def test_the_end_of_a_grace_is_in_the_name() -> None:
    assert kill_at_of(name_of("p", "m-1")) is None
    assert kill_at_of("/" + name_until("p", "m-1", 1234.5)) == 1234.5


@pytest.mark.parametrize("worker", ["m-ends-at-noon-01ab", "m-ends-at-7"])
def test_a_worker_may_have_a_name_like_that(worker: str) -> None:
    assert kill_at_of(name_of("p", worker)) is None
    assert kill_at_of(name_until("p", worker, 1234.5)) == 1234.5


def test_without_a_limit_it_was_the_machine_that_had_no_memory() -> None:
    state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
    assert end_of(state, "", None, 0) == "SIGKILL: the machine had no memory left"


@pytest.mark.parametrize(
    ("state", "words", "kill_at", "said"),
    [
        ({"ExitCode": 0}, "error: of a job", None, "exit status 0"),
        ({"ExitCode": 1}, "error: no such model", None, "exit status 1: error: no such model"),
        ({"ExitCode": 137}, "", None, "SIGKILL"),
        ({"ExitCode": 137}, "", 5.0, "SIGKILL, since it was still there after its grace"),
        ({"ExitCode": 139}, "", None, "SIGSEGV"),
        ({"ExitCode": 137, "OOMKilled": True}, "", None, "SIGKILL: it needed more than the 2048 MiB"),
        ({"ExitCode": 127, "Error": "no such file"}, "", None, "exit status 127: no such file"),
        ({"ExitCode": 0, "Status": "created"}, "", None, "was never started"),
    ],
)
def test_how_a_container_ended(state: dict[str, object], words: str, kill_at: float | None, said: str) -> None:
    assert end_of({"Status": "exited", **state}, words, kill_at, 2 << 30).startswith(said)


# On a real Engine


@pytest.fixture
def place() -> Iterator[DockerPlace]:
    if why := missing():
        pytest.skip(f"NOT TESTED: {why}: nothing shows what a Docker Engine makes of our orders")
    made = DockerPlace()
    yield made
    made.clear()


@pytest.mark.docker
@pytest.mark.slow
async def test_a_model_without_a_service_is_named(place: DockerPlace) -> None:
    async with place.launcher() as launcher:
        with pytest.raises(
            LaunchError, match=r"no service for model other: add one with the label `headrace\.model: other`"
        ):
            await launcher.start(msgspec.structs.replace(place.order(), model="other"))
        assert await launcher.running() == ()


@pytest.mark.docker
@pytest.mark.slow
async def test_workers_of_another_project_are_not_ours(place: DockerPlace) -> None:
    other = DockerPlace()
    try:
        async with other.launcher() as theirs, place.launcher() as ours:
            order = other.order()
            await theirs.start(order)
            await ours.stop(order.worker, 0.0)
            await ours.forget(order.worker)
            assert await ours.running() == ()
            assert [each.ended for each in await theirs.running()] == [None]
    finally:
        other.clear()


@pytest.mark.docker
@pytest.mark.slow
async def test_a_name_that_somebody_else_has_is_no_worker_of_ours(place: DockerPlace) -> None:
    order = place.order()
    foreign = docker("create", "--name", f"{place.project}-{order.worker}", IMAGE)
    try:
        async with place.launcher() as launcher:
            with pytest.raises(LaunchError, match="another container has its name"):
                await launcher.start(order)
            assert await launcher.running() == ()
    finally:
        docker("rm", "--force", foreign)


@pytest.mark.docker
@pytest.mark.slow
async def test_a_gpu_without_a_driver_is_one_sentence_and_leaves_nothing(place: DockerPlace) -> None:
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this Engine has NVIDIA's runtime")
    order = Order("w-gpu", place.model, "gpu:1", Need(SlotKind.GPU, 1 << 30))
    environment = {"COMPOSE_PROJECT_NAME": place.project}
    async with DockerLauncher(ScalerSettings(), environment, SystemClock(), gpus=GoodGpus()) as launcher:
        with pytest.raises(LaunchError, match="NVIDIA Container Toolkit"):
            await launcher.start(order)
        await until(launcher, lambda running: running == ())


@pytest.mark.docker
@pytest.mark.slow
async def test_a_worker_has_the_limits_of_its_own_template(place: DockerPlace) -> None:
    place.template("limited", "--memory", "64m", "--stop-timeout", "45")
    async with place.launcher() as launcher:
        order = msgspec.structs.replace(place.order(), model="limited")
        await launcher.start(order)
        said = docker(
            "inspect", "--format", "{{.HostConfig.Memory}} {{.Config.StopTimeout}}", place.container(order.worker)
        )
        assert said == f"{64 << 20} 45"
        assert f"worker --model limited --id {order.worker} --slot cpu" in place.log(order.worker)


@pytest.mark.docker
@pytest.mark.slow
async def test_a_container_of_compose_run_is_no_template(place: DockerPlace) -> None:
    one_off = place.template("m", "--label", "com.docker.compose.oneoff=True", "--memory", "64m")
    async with place.launcher() as launcher:
        order = place.order()
        await launcher.start(order)
        assert docker("inspect", "--format", "{{.HostConfig.Memory}}", place.container(order.worker)) == "0", one_off


@pytest.mark.docker
@pytest.mark.slow
async def test_looking_at_a_container_while_it_is_removed_is_no_trouble(place: DockerPlace) -> None:
    """The Engine lists it for a moment, and refuses to show its log."""
    async with place.launcher() as launcher:
        for _ in range(8):
            order = place.failing_order()
            await launcher.start(order)
            await ended(launcher, order.worker)
            removing = asyncio.create_task(launcher._engine.remove(place.container(order.worker)))
            while not removing.done():
                launcher._ends.clear()  # as a scaler that has just begun
                await launcher.running()
            await removing


@pytest.mark.docker
@pytest.mark.slow
async def test_a_container_that_only_looks_like_a_worker_is_left_alone(place: DockerPlace) -> None:
    place.template("m", "--label", "headrace.worker=by-hand")
    async with place.launcher() as launcher:
        order = place.order()
        await launcher.start(order)
        assert [each.worker for each in await launcher.running()] == [order.worker]


@pytest.mark.docker
@pytest.mark.slow
async def test_the_engine_ends_a_grace_though_no_scaler_is_left(place: DockerPlace) -> None:
    order = place.order()
    async with place.launcher() as launcher:
        await launcher.start(order)
        place.log(order.worker)
        place.hang(order.worker)
        await launcher.stop(order.worker, 1.0)
        # Ours, and that of the Engine's stop: it has begun.
        async with asyncio.timeout(60):
            while place.signals(order.worker) < 2:
                await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        while place.processes():
            await asyncio.sleep(0.05)


@pytest.mark.docker
@pytest.mark.slow
async def test_a_worker_that_was_told_to_end_is_told_by_its_first_grace_alone(place: DockerPlace) -> None:
    order = place.order()
    async with place.launcher() as launcher:
        await launcher.start(order)
        place.log(order.worker)
        place.hang(order.worker)
        await launcher.stop(order.worker, 600.0)
        await launcher.stop(order.worker, 0.0)
    began = time.monotonic()
    async with place.launcher() as launcher:
        await launcher.stop(order.worker, 0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await ended(launcher, order.worker)
        assert time.monotonic() - began >= 2.0, "the second grace ended it"
        assert [each.ended for each in await launcher.running()] == [None]
