"""What tests break on purpose: settings that make an outage short, kills at named places, and planted bugs.

Each is a function that changes the code of the process it is called in. Nothing of this is in the package.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import msgspec
from kill_points import kill_points
from nats.js import api

from headrace_contracts.attempts import Attempts, Failure, failed
from headrace_contracts.errors import ErrorCode
from headrace_storage import results, topology
from headrace_storage.delivery import Delivery
from headrace_workers import admission, job_files, job_run, outcome, worker
from headrace_workers.job_run import JobRun
from headrace_workers.lease import Lease
from headrace_workers.settlement import Settlement

SHORT_PATIENCE_S = 0.5
SHORT_OUTAGE_DELAY_S = 2.0


def short_outages() -> None:
    """A worker loses its patience with a store early, and a job rests for a short while."""
    job_files.STORE_PATIENCE_S = SHORT_PATIENCE_S
    outcome.OUTAGE_DELAY_S = SHORT_OUTAGE_DELAY_S


def no_reaper() -> None:
    """Nobody ends jobs but those who draw them: else the reaper may hide what they do wrong."""

    async def idle(*args: Any) -> None:
        await asyncio.Event().wait()

    worker.reap = idle


# Planted bugs of workers.


def ack_before_commit() -> None:
    """The job is removed from the queue before its result is stored."""
    end = Settlement.end

    @functools.wraps(end)
    async def broken(self: Settlement, *args: Any) -> Any:
        await self._delivery.ack()
        return await end(self, *args)

    Settlement.end = broken  # type: ignore[method-assign]


def no_self_fence() -> None:
    """A worker believes in its lease for ever."""
    Lease.held = property(lambda self: not self._settled)  # type: ignore[assignment,method-assign]


def nak_without_delay() -> None:
    """A job that is given back comes back at once."""
    nak = Delivery.nak

    async def broken(self: Delivery, delay_s: float = 0.0) -> None:
        await nak(self)

    Delivery.nak = broken  # type: ignore[method-assign]


def no_terminal_check() -> None:
    """Nobody looks whether a job has ended before it is run."""

    async def broken(self: JobRun, job: object) -> None:
        return None

    JobRun._check_not_ended = broken  # type: ignore[method-assign]


def renewal_tied_to_engine() -> None:
    """The lease is renewed only while the engine answers, so a long step costs it."""
    in_progress, run = Delivery.in_progress, JobRun._run
    busy: dict[int, bool] = {}

    async def tied(self: Delivery, *args: Any, **options: Any) -> None:
        if not busy.get(self.stream_sequence):
            await in_progress(self, *args, **options)

    @functools.wraps(run)
    async def marked(self: JobRun, *args: Any) -> Any:
        busy[self.delivery.stream_sequence] = True
        try:
            return await run(self, *args)
        finally:
            busy[self.delivery.stream_sequence] = False

    Delivery.in_progress = tied  # type: ignore[method-assign]
    JobRun._run = marked  # type: ignore[method-assign]


def key_without_nonce() -> None:
    """All attempts of a job write the same files."""
    prefix = job_run.artifact_prefix
    job_run.artifact_prefix = lambda tenant, model, job_id, _: prefix(tenant, model, job_id, "only")


def ttl_from_the_draw() -> None:
    """The time to live is counted from when a worker draws the job."""
    check = admission.check_waiting_time

    def broken(job: Any, spec: Any, now: Any) -> None:
        drawn_at = now - timedelta(seconds=0.001)
        check(msgspec.structs.replace(job, created_at=drawn_at), spec, now)

    admission.check_waiting_time = broken


def outage_counts_as_failure() -> None:
    """A job that is given back through no fault of its own is charged an attempt."""
    record = Settlement.record

    async def broken(self: Settlement, job: Any, change: Callable[[Attempts], Attempts]) -> Attempts:
        def charged(known: Attempts) -> Attempts:
            changed = change(known)
            new = set(changed.excused) - set(known.excused)
            for delivery in new:
                changed = failed(changed, Failure(ErrorCode.INTERNAL, "outage", "w", delivery))
            return changed

        return await record(self, job, charged)

    Settlement.record = broken  # type: ignore[method-assign]


def result_without_store() -> None:
    """The result is committed although the files are not stored."""
    store = JobRun._store

    @functools.wraps(store)
    async def broken(self: JobRun, *args: Any) -> Any:
        artifacts = await store(self, *args)
        for artifact in artifacts:
            await self._around.blobs.delete(artifact.blob)
        return artifacts

    JobRun._store = broken  # type: ignore[method-assign]


def endless_attempts() -> None:
    """No number of attempts is too many."""
    original = Attempts.spent.fget  # type: ignore[attr-defined]
    Attempts.spent = property(lambda self: min(1, original(self)))  # type: ignore[assignment,method-assign]


def unchecked_output() -> None:
    """What an engine says of an invalid output is taken for success."""
    run = JobRun._run

    @functools.wraps(run)
    async def broken(self: JobRun, job: Any, task_input: Any, *args: Any) -> Any:
        return await run(self, job, msgspec.structs.replace(task_input, behaviour="ok"), *args)

    JobRun._run = broken  # type: ignore[method-assign]


def result_replaced() -> None:
    """Results are published without a condition, onto a stream that keeps the last one."""
    results.EXPECT_EMPTY = {}
    _patch_streams(_results_keep_the_last)


def queue_drops_oldest() -> None:
    """A full queue makes room by dropping what it accepted."""
    _patch_streams(_jobs_drop_the_oldest)


def _results_keep_the_last(config: api.StreamConfig) -> None:
    if config.name == "RESULTS":
        config.discard, config.discard_new_per_subject = api.DiscardPolicy.OLD, False


def _jobs_drop_the_oldest(config: api.StreamConfig) -> None:
    if config.name == "JOBS":
        config.discard, config.discard_new_per_subject = api.DiscardPolicy.OLD, False


def _patch_streams(change: Callable[[api.StreamConfig], None]) -> None:
    topology.stream_configs = _changed(topology.stream_configs, change)


def _changed(original: Callable[..., list[api.StreamConfig]], change: Callable[[api.StreamConfig], None]) -> Any:
    def broken(limits: Any) -> list[api.StreamConfig]:
        configs = original(limits)
        for config in configs:
            change(config)
        return configs

    return broken


IN_WORKERS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        kill_points,
        short_outages,
        no_reaper,
        ack_before_commit,
        no_self_fence,
        nak_without_delay,
        no_terminal_check,
        renewal_tied_to_engine,
        key_without_nonce,
        ttl_from_the_draw,
        outage_counts_as_failure,
        result_without_store,
        endless_attempts,
        unchecked_output,
        result_replaced,
        queue_drops_oldest,
    )
}


# Planted bugs of clients and of whoever makes the streams: in the test's own process, and taken back afterwards.


@contextlib.contextmanager
def cancel_without_result() -> Iterator[None]:
    """A cancel is only told to the workers."""
    from headrace_storage.control import send_cancel

    async def broken(connection: Any, tenant: str, model: str, job_id: str, *rest: Any) -> str:
        await send_cancel(connection, tenant, model, job_id)
        return "canceled"

    with mock.patch("headrace.client.cancel_job", broken):
        yield


@contextlib.contextmanager
def backlog_without_held() -> Iterator[None]:
    """Jobs that workers hold are not counted."""
    from headrace_storage import lanes

    original = lanes.lanes_of_model

    async def broken(*args: Any) -> list[lanes.LaneState]:
        return [msgspec.structs.replace(lane, held=0) for lane in await original(*args)]

    with mock.patch("headrace.client.lanes_of_model", broken):
        yield


@contextlib.contextmanager
def streams_drop_oldest() -> Iterator[None]:
    """The other half of `queue_drops_oldest`."""
    with mock.patch.object(topology, "stream_configs", _changed(topology.stream_configs, _jobs_drop_the_oldest)):
        yield


@contextlib.contextmanager
def streams_keep_last_result() -> Iterator[None]:
    """The other half of `result_replaced`."""
    with mock.patch.object(topology, "stream_configs", _changed(topology.stream_configs, _results_keep_the_last)):
        yield


IN_CLIENTS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "cancel_without_result": cancel_without_result,
    "backlog_without_held": backlog_without_held,
    "queue_drops_oldest": streams_drop_oldest,
    "result_replaced": streams_keep_last_result,
}
