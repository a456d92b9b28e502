"""A worker's container, as the Engine's API has it; made from its model's template, and read back. Pure.

A template is the container of a compose service with the label `headrace.model`: whatever a worker may use is written
there once. A worker's container keeps the labels of compose, so that `docker compose ps`, `logs` and `down` know it as
another one of that service.
"""

import re
import signal
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace_scaler.launchers.port import ENDED_WELL, Launched, Order
from headrace_scaler.policy.observation import Need

MODEL: Final = "headrace.model"
WORKER: Final = "headrace.worker"
PROJECT: Final = "com.docker.compose.project"
_NUMBER: Final = "com.docker.compose.container-number"
_SLOT: Final = "headrace.slot"
_NEED: Final = "headrace.need"
_ORDERED_AT: Final = "headrace.ordered-at"

# A name can be changed, a label cannot: so the next scaler sees when a grace is over that this one has given.
_KILL_AT: Final = "-ends-at-"
# With its point, no worker's id ends like this.
_TOLD: Final = re.compile(rf"{_KILL_AT}(\d+\.\d{{3}})$")

# Without its StopTimeout, an Engine that ends would kill a worker after 10 s.
_COPIED_IF_SET: Final = ("StopSignal", "StopTimeout", "Healthcheck", "Volumes")
# Of the template's own life, not of what it may use.
_NOT_COPIED: Final = ("ContainerIDFile", "PortBindings", "AutoRemove", "Links")

Json = dict[str, Any]


def name_of(project: str, worker: str) -> str:
    """Name of a worker's container; two of one name there cannot be."""
    return f"{project}-{worker}"


def name_until(project: str, worker: str, kill_at: float) -> str:
    """Its name once it is told to end; `kill_at` in Unix time."""
    return f"{name_of(project, worker)}{_KILL_AT}{kill_at:.3f}"


def kill_at_of(name: str) -> float | None:
    """When the grace of a container is over, by its name; None if it was not told to end."""
    told = _TOLD.search(name)
    return float(told[1]) if told else None


def worker_container(template: Json, order: Order, ordered_at: float, devices: str, number: int) -> Json:
    """What the Engine is asked to create.

    Args:
        template: the template's container, as inspected.
        order: the worker.
        ordered_at: Unix time of the order, where its cold start is counted from.
        devices: UUIDs of its GPUs, separated by commas; empty on CPU slots.
        number: tells it from others of its service.
    """
    config, host = template["Config"], template["HostConfig"]
    changed = {"HEADRACE_LAUNCHED_AT": f"{ordered_at:.6f}", "CUDA_VISIBLE_DEVICES": devices}
    environment = [line for line in config.get("Env") or [] if line.partition("=")[0] not in changed]
    networks = list(template["NetworkSettings"]["Networks"])
    return {
        # By its id: a tag may be another image by now, and has then another template.
        "Image": template["Image"],
        "Entrypoint": config.get("Entrypoint"),
        "Cmd": ["worker", "--model", order.model, "--id", order.worker, "--slot", order.slot],
        "Env": [*environment, *(f"{key}={value}" for key, value in changed.items())],
        "User": config.get("User", ""),
        "WorkingDir": config.get("WorkingDir", ""),
        **{key: config[key] for key in _COPIED_IF_SET if config.get(key) is not None},
        "Labels": {
            **(config.get("Labels") or {}),
            MODEL: order.model,
            WORKER: order.worker,
            _SLOT: order.slot,
            _NEED: msgspec.json.encode(order.need).decode(),
            _ORDERED_AT: f"{ordered_at:.6f}",
            _NUMBER: str(number),
        },
        "HostConfig": {
            **{key: value for key, value in host.items() if key not in _NOT_COPIED},
            # Whether one that ended is wanted again is for the scaler to say.
            "RestartPolicy": {"Name": "no"},
            "DeviceRequests": _device_requests(host.get("DeviceRequests") or [], devices),
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {} for network in networks[:1]}},
    }


def other_networks(template: Json) -> list[str]:
    """Networks beyond the one that a container is created on."""
    return list(template["NetworkSettings"]["Networks"])[1:]


def launched_of(labels: Mapping[str, str]) -> Launched | None:
    """A worker as its container's labels have it, as if it ran; None if they are not as ours are."""
    try:
        return Launched(
            worker=labels[WORKER],
            model=labels[MODEL],
            slot=labels[_SLOT],
            need=msgspec.json.decode(labels[_NEED], type=Need),
            ordered_at=float(labels[_ORDERED_AT]),
        )
    except (KeyError, ValueError, msgspec.MsgspecError):
        return None


def end_of(state: Json, last_words: str, kill_at: float | None, memory_bytes: int) -> str:
    """How a container ended, with the last words of its log.

    Args:
        state: `State` of an inspected container that does not run.
        last_words: a line of its log, or nothing.
        kill_at: end of its grace, if it was told to end.
        memory_bytes: what it was allowed; 0: no limit.
    """
    code = int(state["ExitCode"])
    if state["Status"] == "created":
        return f"was never started: {state.get('Error') or 'the scaler ended before'}"
    if state.get("OOMKilled"):
        if not memory_bytes:
            return "SIGKILL: the machine had no memory left"
        return f"SIGKILL: it needed more than the {memory_bytes >> 20} MiB of its service's mem_limit"
    if code > 128 and code - 128 in {int(number) for number in signal.Signals}:
        name = signal.Signals(code - 128).name
        return f"{name}, since it was still there after its grace" if name == "SIGKILL" and kill_at else name
    how = f"exit status {code}"
    if state.get("Error"):
        return f"{how}: {state['Error']}"
    return f"{how}: {last_words}" if last_words and how != ENDED_WELL else how


def _device_requests(requests: list[Json], devices: str) -> list[Json]:
    """The template's, but of all GPUs only this worker's; none on CPU slots."""
    gpu = [request for request in requests if any("gpu" in all_ for all_ in request.get("Capabilities") or [])]
    others = [request for request in requests if request not in gpu]
    if not devices:
        return others
    wanted = gpu or [{"Driver": "nvidia", "Capabilities": [["gpu"]]}]
    return [*others, *({**request, "Count": 0, "DeviceIDs": devices.split(",")} for request in wanted)]
