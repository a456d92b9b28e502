"""The spans of one delivery of a job: `headrace.job`, and below it `queue`, `fetch`, `run`, `store` and `commit`.

Without tracing it makes none, and only passes on what the submitter said of the trace.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime

from headrace_contracts.job import Job
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_contracts.trace_context import TraceContext
from headrace_storage.delivery import Delivery
from headrace_telemetry.tracing import Attributes, Span
from headrace_workers.surroundings import Surroundings


class JobTrace:
    """Begins with the delivery; `end` it once."""

    def __init__(self, around: Surroundings, job: Job, delivery: Delivery, taken_at: datetime) -> None:
        self._clock = around.clock
        self._submitted = job.trace
        self._span: Span | None = None
        # A job that comes back has waited for its next turn since nobody knows when.
        self._began_at = job.created_at if delivery.num_delivered == 1 else taken_at
        self._started_at: datetime | None = None
        self._attempt = 0
        self._status = ""
        self._code = ""
        if around.tracing is not None:
            attributes: Attributes = {
                "messaging.system": "nats",
                "messaging.destination.name": str(Stream.JOBS),
                "messaging.operation.type": "process",
                "headrace.job_id": job.id,
                "headrace.model": job.model,
                "headrace.lane": str(job.lane),
                "headrace.tenant": job.tenant,
                "headrace.worker": around.worker_id,
                "headrace.delivery": delivery.num_delivered,
            }
            # Deliveries of a job that nobody traces are one trace all the same.
            alone = f"{job.tenant}/{job.model}/{job.id}/{job.created_at.isoformat()}"
            self._span = around.tracing.begin(
                "headrace.job", "consumer", job.trace or alone, self._began_at, attributes
            )

    @property
    def context(self) -> TraceContext | None:
        """What comes of this job is below it; None if nobody traces it."""
        return self._submitted if self._span is None else self._span.context

    @property
    def label(self) -> dict[str, str]:
        """For log lines."""
        return {} if (context := self.context) is None else {"trace_id": context.trace_id}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A span around the block."""
        if self._span is None:
            yield
            return
        began_at, error = self._clock.now(), None
        try:
            yield
        except BaseException as raised:
            # The type only: a message may quote the prompt.
            error = type(raised).__name__
            raise
        finally:
            self._span.child(name, began_at, self._clock.now(), {}, error)

    def started(self, at: datetime, attempt: int) -> None:
        """The engine has the job."""
        self._started_at, self._attempt = at, attempt
        if self._span is not None:
            self._span.child("queue", self._began_at, at, {})

    def ran(self, *, succeeded: bool) -> None:
        """The engine is done with it, if it had it."""
        if self._span is not None and self._started_at is not None:
            error = None if succeeded else "the run did not succeed"
            self._span.child("run", self._started_at, self._clock.now(), {"headrace.attempt": self._attempt}, error)

    def becomes(self, status: str, code: str = "") -> None:
        """What the delivery came to: the status that the job has now, or `retrying`, or `given_back`."""
        self._status, self._code = status, code

    def end(self) -> None:
        """No more will be said of it."""
        if self._span is None:
            return
        now = self._clock.now()
        if self._started_at is None:
            self._span.child("queue", self._began_at, now, {})
        attributes: Attributes = {
            "headrace.status": self._status,
            "headrace.code": self._code,
            "headrace.attempt": self._attempt,
        }
        # Who cancels a job gets what was asked for.
        error = "" if self._status == Status.CANCELED else self._code
        self._span.end(now, attributes, error or None)
