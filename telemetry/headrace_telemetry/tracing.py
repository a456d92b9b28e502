"""OpenTelemetry's spans, where OTEL_EXPORTER_OTLP_ENDPOINT says that somebody wants them; else nothing is imported.

Spans are made with the times and the parents they are given, so that one job's spans are its own however many jobs run
at once. What they are sent with is in `spans`, which is imported only here.
"""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol

from headrace_contracts.clock import Clock
from headrace_contracts.errors import SettingsError
from headrace_contracts.trace_context import TraceContext

# At the end of a process: spans that a collector does not take by then are lost, and the process ends.
LAST_SPANS_S = 2.0

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A span that has begun."""

    @property
    def context(self) -> TraceContext:
        """What is below it names this as its parent."""
        ...

    def child(
        self, name: str, began_at: datetime, ended_at: datetime, attributes: Attributes, error: str | None = None
    ) -> None:
        """A span below it that has ended; `error` names what went wrong, without a foreign message."""
        ...

    def end(self, at: datetime, attributes: Attributes, error: str | None = None) -> None:
        """End it."""
        ...


class Tracing(Protocol):
    """Makes spans."""

    def begin(self, name: str, kind: str, parent: TraceContext | str, at: datetime, attributes: Attributes) -> Span:
        """Begin a span.

        Args:
            name: of the span.
            kind: `producer` or `consumer`.
            parent: what it is below; or, for a span that is below nothing, a text of which the trace's id is made, so
                that whoever has the same text is part of the same trace.
            at: when it began.
            attributes: what else is known of it.
        """
        ...

    def close(self, done: Callable[[], object]) -> None:
        """Send what is left, without holding anything up; `done` is called from another thread."""
        ...


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether these variables ask for spans.

    Raises:
        SettingsError: they ask for a protocol that we do not speak.
    """
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not endpoint or off or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environment.get(name)) and protocol != "http/protobuf":
            raise SettingsError(
                f"`{name}` is {protocol!r}, and spans are sent by `http/protobuf` only: unset it and name the "
                "collector's port for that, usually 4318, or set OTEL_SDK_DISABLED=true"
            )
    return True


def is_installed() -> bool:
    """Whether what spans are made and sent with is there."""
    try:
        return all(map(importlib.util.find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:
        return False


@asynccontextmanager
async def tracing_if_wanted(
    environment: Mapping[str, str], component: str, instance: str, clock: Clock, say: Callable[[str], None]
) -> AsyncIterator[Tracing | None]:
    """Make and send spans inside the block; afterwards those left have LAST_SPANS_S, and nobody waits for longer.

    Args:
        environment: its OTEL_* variables; the exporter reads the rest of them itself.
        component: what this process is.
        instance: which of them.
        clock: of how often `say` is called.
        say: is told, once in a while, that spans are not taken. From any thread.

    Raises:
        SettingsError: spans are wanted, and what they are made with is not installed; or the settings are wrong.
    """
    if not is_wanted(environment):
        yield None
        return
    if not is_installed():
        raise SettingsError(
            "`OTEL_EXPORTER_OTLP_ENDPOINT` asks for traces, and OpenTelemetry is not installed: "
            "pip install 'headrace[otel]', or set OTEL_SDK_DISABLED=true"
        )
    spans = open_spans(component, instance, clock, say)
    try:
        yield spans
    finally:
        await close_spans(spans)


def open_spans(component: str, instance: str, clock: Clock, say: Callable[[str], None]) -> Tracing:
    """As `tracing_if_wanted`, for who closes them by hand: they must be wanted and installed."""
    # Its thread begins here: in a process that was forked from a warm parent, this is behind the fork.
    from headrace_telemetry.spans import Spans

    return Spans(component, instance, clock, say)


async def close_spans(spans: Tracing) -> None:
    """Send what is left, for LAST_SPANS_S at most."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    spans.close(lambda: loop.call_soon_threadsafe(done.set))
    try:
        async with asyncio.timeout(LAST_SPANS_S):
            await done.wait()
    except TimeoutError:
        return


def current_context() -> TraceContext | None:
    """The span that this program is in, if it uses OpenTelemetry and is in one. Costs nothing where it does not."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from headrace_telemetry.span_context import current

    return current()
