"""Headrace for people who submit jobs.

    async with headrace.Client() as client:
        job = await client.submit("tiny-shapes", prompt="a red star on a blue background")
        result = await job.result()

    result = headrace.run("tiny-shapes", prompt="a red star on a blue background")     # without asyncio

Names are loaded when they are first used, so that `import headrace` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.blocking import cancel, result, run, save, status, submit
    from headrace.client import Client
    from headrace.errors import BatchIncomplete, StreamRestarted, UnknownJob
    from headrace.handle import Handle
    from headrace.job_status import JobState, JobStatus
    from headrace.results import JobResult, ResultArtifact
    from headrace_contracts.errors import (
        BlobError,
        BrokerForbidden,
        BrokerFull,
        BrokerStorageFailing,
        BrokerUnavailable,
        HeadraceError,
        InvalidInput,
        JobConflict,
        JobFailed,
        MessageTooLarge,
        QueueFull,
        ResultTimeout,
        UnknownModel,
    )
    from headrace_contracts.settings import NatsSettings, S3Settings, Settings, load_settings

_HOMES = {
    "headrace.blocking": ("cancel", "result", "run", "save", "status", "submit"),
    "headrace.client": ("Client",),
    "headrace.errors": ("BatchIncomplete", "StreamRestarted", "UnknownJob"),
    "headrace.handle": ("Handle",),
    "headrace.results": ("JobResult", "ResultArtifact"),
    "headrace.job_status": ("JobState", "JobStatus"),
    "headrace_contracts.errors": (
        "BlobError",
        "BrokerForbidden",
        "BrokerFull",
        "BrokerStorageFailing",
        "BrokerUnavailable",
        "HeadraceError",
        "InvalidInput",
        "JobConflict",
        "JobFailed",
        "MessageTooLarge",
        "QueueFull",
        "ResultTimeout",
        "UnknownModel",
    ),
    "headrace_contracts.settings": ("NatsSettings", "S3Settings", "Settings", "load_settings"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BatchIncomplete",
    "BlobError",
    "BrokerForbidden",
    "BrokerFull",
    "BrokerStorageFailing",
    "BrokerUnavailable",
    "Client",
    "Handle",
    "HeadraceError",
    "InvalidInput",
    "JobConflict",
    "JobFailed",
    "JobResult",
    "JobState",
    "JobStatus",
    "MessageTooLarge",
    "NatsSettings",
    "QueueFull",
    "ResultArtifact",
    "ResultTimeout",
    "S3Settings",
    "Settings",
    "StreamRestarted",
    "UnknownJob",
    "UnknownModel",
    "cancel",
    "load_settings",
    "result",
    "run",
    "save",
    "status",
    "submit",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
