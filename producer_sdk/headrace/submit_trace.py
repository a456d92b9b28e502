"""Which trace a submitted job is part of: the one its submitter is in, or one of our own where traces are asked for."""

import contextlib
import logging
import os
from collections.abc import Iterator

from headrace_contracts.clock import Clock
from headrace_contracts.names import Lane, Stream
from headrace_contracts.trace_context import TraceContext
from headrace_telemetry.tracing import Tracing, close_spans, current_context, is_installed, is_wanted, open_spans

_log = logging.getLogger("headrace")


class SubmitTrace:
    """Opened when the first job is submitted; `close` sends what is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tracing: Tracing | None = None
        self._asked = False

    @contextlib.contextmanager
    def submitting(
        self, given: TraceContext | None, tenant: str, model: str, lane: Lane, job_id: str
    ) -> Iterator[TraceContext | None]:
        """Around one submission: what its job is to be below, if anything.

        Raises:
            SettingsError: traces are asked for by a protocol that we do not speak.
        """
        there = given or current_context()
        tracing = None if there is not None else self._opened()
        if tracing is None:
            yield there
            return
        attributes = {
            "messaging.system": "nats",
            "messaging.destination.name": str(Stream.JOBS),
            "messaging.operation.type": "send",
            "headrace.job_id": job_id,
            "headrace.model": model,
            "headrace.lane": str(lane),
            "headrace.tenant": tenant,
        }
        began_at = self._clock.now()
        span = tracing.begin("headrace.submit", "producer", f"{job_id}/{began_at.isoformat()}", began_at, attributes)
        error: str | None = None
        try:
            yield span.context
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            span.end(self._clock.now(), {}, error)

    async def close(self) -> None:
        """Send the spans that are left, within a deadline."""
        tracing, self._tracing, self._asked = self._tracing, None, False
        if tracing is not None:
            await close_spans(tracing)

    def _opened(self) -> Tracing | None:
        """A program without OpenTelemetry may have the variables from its surroundings: that is no error of its own."""
        if not self._asked:
            self._asked = True
            if is_wanted(os.environ) and is_installed():
                self._tracing = open_spans("client", f"pid-{os.getpid()}", self._clock, _tell)
        return self._tracing


def _tell(reason: str) -> None:
    _log.warning("spans are not taken: %s", reason)
