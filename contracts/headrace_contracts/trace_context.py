"""W3C trace context: which trace a job is part of, and below which span. Read leniently: what is no context is none."""

import re
from typing import Final

import msgspec

# https://www.w3.org/TR/trace-context/: version, trace id, span id, flags; later versions may say more behind them.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_LONGEST_TRACESTATE: Final = 512
_LONGEST_TRACEPARENT: Final = 256


class TraceContext(msgspec.Struct, frozen=True):
    """A valid `traceparent`, and the `tracestate` that came with it."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """Of the span that whatever comes of it is below: 16 hex digits."""
        return self.traceparent[36:52]

    @property
    def flags(self) -> int:
        """One byte; its lowest bit says that the trace is kept."""
        return int(self.traceparent[53:55], 16)


def trace_context(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The context that these say, or None if there is none or it is not valid."""
    if not traceparent or len(traceparent) > _LONGEST_TRACEPARENT:
        return None
    parts = _TRACEPARENT.fullmatch(traceparent)
    if parts is None:
        return None
    version, trace_id, span_id, _, more = parts.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate or ""
    kept = state if len(state) <= _LONGEST_TRACESTATE and state.isascii() and state.isprintable() else ""
    return TraceContext(traceparent, kept)
