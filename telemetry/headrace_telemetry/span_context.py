"""Between OpenTelemetry's contexts and ours. Imported only by a process that has OpenTelemetry."""

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from headrace_contracts.trace_context import TraceContext


def current() -> TraceContext | None:
    """Of the span that is current, if there is one."""
    span_context = trace.get_current_span().get_span_context()
    return context_of(span_context) if span_context.is_valid else None


def context_of(span_context: SpanContext) -> TraceContext:
    """As it is sent."""
    flags = int(span_context.trace_flags)
    traceparent = f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{flags:02x}"
    return TraceContext(traceparent, span_context.trace_state.to_header())


def remote_parent(parent: TraceContext) -> NonRecordingSpan:
    """What OpenTelemetry takes for a span of another process."""
    return NonRecordingSpan(
        SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(parent.flags),
            trace_state=TraceState.from_header([parent.tracestate]),
        )
    )
