"""Trace context as headers of a message."""

from headrace_contracts.names import Header
from headrace_contracts.trace_context import TraceContext


def trace_headers(trace: TraceContext | None) -> dict[str, str]:
    """None for a job that nobody traces."""
    if trace is None:
        return {}
    state = {Header.TRACESTATE.value: trace.tracestate} if trace.tracestate else {}
    return {Header.TRACEPARENT.value: trace.traceparent, **state}
