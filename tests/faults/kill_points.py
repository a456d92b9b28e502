"""A worker that kills itself on the way of a job: before and after every step, once for each.

The job's `echo` names the place. What is killed is a real worker, by SIGKILL, and it writes down that it was.
"""

import functools
import inspect
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from headrace_loadgen.journal import Journal
from headrace_loadgen.records import Fault, FaultKind
from headrace_workers.job_run import JobRun
from headrace_workers.lease import Lease
from headrace_workers.settlement import Settlement

STEPS: dict[str, tuple[type, str, Callable[[Any], bytes]]] = {
    "decode": (JobRun, "_decode", lambda run: run.delivery.data),
    "admit": (JobRun, "_admit", lambda run: run.delivery.data),
    "fetch": (JobRun, "_fetch", lambda run: run.delivery.data),
    "run": (JobRun, "_run", lambda run: run.delivery.data),
    "store": (JobRun, "_store", lambda run: run.delivery.data),
    "commit": (Settlement, "_commit", lambda settlement: settlement._delivery.data),
    "ack": (Lease, "ack", lambda lease: lease._delivery.data),
}
PLACES = tuple(f"{when}-{step}" for step in STEPS for when in ("before", "after"))


def kill_points() -> None:
    """Wrap every step."""
    for step, (owner, name, data_of) in STEPS.items():
        setattr(owner, name, _wrapped(step, getattr(owner, name), data_of))


def _wrapped(step: str, method: Callable[..., Any], data_of: Callable[[Any], bytes]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def wrapped_coroutine(self: object, *args: object, **options: object) -> object:
            _perhaps_die(f"before-{step}", data_of(self))
            result = await method(self, *args, **options)
            _perhaps_die(f"after-{step}", data_of(self))
            return result

        return wrapped_coroutine

    @functools.wraps(method)
    def wrapped(self: object, *args: object, **options: object) -> object:
        _perhaps_die(f"before-{step}", data_of(self))
        result = method(self, *args, **options)
        _perhaps_die(f"after-{step}", data_of(self))
        return result

    return wrapped


def _perhaps_die(place: str, data: bytes) -> None:
    if f"kill-{place}".encode() not in data:
        return
    try:
        (Path(os.environ["HEADRACE_TEST_FOLDER"]) / f"killed-{place}").touch(exist_ok=False)
    except FileExistsError:
        return
    now, me = time.monotonic(), psutil.Process()
    pids = (me.pid, *(child.pid for child in me.children(recursive=True)))
    with Journal[Fault](Path(os.environ["HEADRACE_TEST_FOLDER"]) / "faults.jsonl") as journal:
        journal.write(Fault(FaultKind.WORKER_KILL, place, now, now, True, "killed itself", pids))
    os.kill(me.pid, signal.SIGKILL)
