"""Spans through OpenTelemetry's SDK, sent by OTLP over HTTP from a thread of their own.

A collector that is away costs spans and nothing else: they wait in a bounded place, and it is told once a minute.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode

from headrace_contracts.clock import Clock
from headrace_contracts.trace_context import TraceContext
from headrace_telemetry.span_context import context_of, remote_parent
from headrace_telemetry.tracing import Attributes

TELL_EVERY_S = 60.0
_KINDS = {"producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER}


class Spans:
    """Makes spans and has them sent. Used by one thread; closed once."""

    def __init__(self, component: str, instance: str, clock: Clock, say: Callable[[str], None]) -> None:
        _tell_seldom(clock, say)
        attributes = {"service.instance.id": instance, "service.version": version("headrace")}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = f"headrace-{component}"
        self._ids = _TraceIds()
        self._provider = TracerProvider(
            # At the end of the process it would wait for a collector that is away.
            shutdown_on_exit=False,
            resource=Resource.create(attributes),
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("headrace", version("headrace"))

    def begin(
        self, name: str, kind: str, parent: TraceContext | str, at: datetime, attributes: Attributes
    ) -> "OpenSpan":
        """See `Tracing.begin`."""
        # Never what happens to be current: jobs run beside each other.
        context = Context()
        if isinstance(parent, TraceContext):
            context = trace.set_span_in_context(remote_parent(parent), context)
        else:
            self._ids.next_trace_id = trace_id_of(parent)
        span = self._tracer.start_span(
            name, context, kind=_KINDS[kind], attributes=dict(attributes), start_time=_nanoseconds(at)
        )
        self._ids.next_trace_id = None
        return OpenSpan(self._tracer, span)

    def close(self, done: Callable[[], object]) -> None:
        """Send what is left, in a thread that holds nothing up; `done` is called from it."""

        def shut_down() -> None:
            self._provider.shutdown()
            done()

        Thread(target=shut_down, name="last spans", daemon=True).start()


class OpenSpan:
    """A span that has begun."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.context = context_of(span.get_span_context())

    def child(
        self, name: str, began_at: datetime, ended_at: datetime, attributes: Attributes, error: str | None = None
    ) -> None:
        """See `Span.child`."""
        context = trace.set_span_in_context(self._span, Context())
        span = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=_nanoseconds(began_at))
        _end(span, ended_at, error)

    def end(self, at: datetime, attributes: Attributes, error: str | None = None) -> None:
        """See `Span.end`."""
        self._span.set_attributes(dict(attributes))
        _end(self._span, at, error)


def trace_id_of(text: str) -> int:
    """The same for the same text, and never 0."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big") or 1


class _TraceIds(RandomIdGenerator):
    """Random ids, unless the next trace's is known."""

    def __init__(self) -> None:
        self.next_trace_id: int | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.next_trace_id is None else self.next_trace_id


class _Seldom(logging.Handler):
    """Passes on what OpenTelemetry complains about, at most once in TELL_EVERY_S."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._say = say
        self._told_at = -TELL_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._say(record.getMessage().partition("\n")[0][:300])


def _tell_seldom(clock: Clock, say: Callable[[str], None]) -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [_Seldom(clock, say)]
    logger.propagate = False


def _end(span: trace.Span, at: datetime, error: str | None) -> None:
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(_nanoseconds(at))


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000
