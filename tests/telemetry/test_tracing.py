"""When spans are made, and what it takes; what a trace context is."""

import subprocess
import sys

import pytest

from headrace_contracts.clock import SystemClock
from headrace_contracts.codec import Encoding, encode
from headrace_contracts.errors import SettingsError
from headrace_contracts.job import decode_job
from headrace_contracts.trace_context import TraceContext, trace_context
from headrace_telemetry import tracing
from headrace_telemetry.tracing import is_wanted, tracing_if_wanted

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_spans_are_made_where_somebody_wants_them(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted


def test_a_protocol_that_is_not_spoken_is_said() -> None:
    with pytest.raises(SettingsError, match=r"`OTEL_EXPORTER_OTLP_PROTOCOL` is 'grpc'.*4318"):
        is_wanted({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


async def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"pip install 'headrace\[otel\]'"):
        async with tracing_if_wanted(ENDPOINT, "worker", "w", SystemClock(), print):
            pass


@pytest.mark.parametrize("module", ["headrace.client", "headrace_workers.worker", "headrace_workers.job_run"])
def test_nothing_of_it_is_imported_where_nobody_wants_spans(module: str) -> None:
    code = (
        f"import asyncio, sys, {module}\n"
        "from headrace_contracts.clock import SystemClock\n"
        "from headrace_telemetry.tracing import current_context, tracing_if_wanted\n"
        "async def main():\n"
        "    async with tracing_if_wanted({}, 'x', 'x', SystemClock(), print) as spans:\n"
        "        assert spans is None and current_context() is None\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        VALID.upper(),
        f"{VALID}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"{VALID}\n",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 300,
    ],
)
def test_what_is_no_context_is_none(text: str) -> None:
    assert trace_context(text) is None


def test_a_context_says_what_is_in_it() -> None:
    context = trace_context(VALID, "a=1")
    assert context == TraceContext(VALID, "a=1")
    assert (context.trace_id, context.span_id, context.flags) == (TRACE, SPAN, 1)
    later = trace_context(f"01-{TRACE}-{SPAN}-00-more")
    assert later is not None
    assert later.flags == 0
    assert trace_context(VALID, "a=\n") == TraceContext(VALID)
    assert trace_context(VALID, "x" * 513) == TraceContext(VALID)


@pytest.mark.parametrize(
    ("headers", "field", "expected"),
    [
        ({"TraceParent": VALID, "TRACESTATE": "a=1"}, None, TraceContext(VALID, "a=1")),
        ({}, VALID, TraceContext(VALID)),
        ({"traceparent": VALID}, f"00-{'1' * 32}-{SPAN}-01", TraceContext(VALID)),
        ({"traceparent": "nonsense"}, VALID, TraceContext(VALID)),
        ({"traceparent": "nonsense"}, "nonsense", None),
        ({"tracestate": "a=1"}, None, None),
    ],
)
def test_a_job_says_its_trace_in_a_header_or_its_body(
    headers: dict[str, str], field: str | None, expected: TraceContext | None
) -> None:
    body = encode({"input": {}, **({"trace": field} if field else {})}, Encoding.JSON)
    job = decode_job("jobs.t.m.normal", headers, body, 1, SystemClock().now())
    assert job.trace == expected
