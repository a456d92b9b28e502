"""Spans of real jobs, from a client to a worker, as a collector has them."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest
from otlp import Collector, Seen
from rig import DEADLINE_S, TENANT, Rig
from zygotes import forking

import headrace
from headrace_contracts.names import Stream
from headrace_contracts.result import Status
from headrace_contracts.settings import NatsSettings, Settings
from headrace_storage.log_lines import follow_lines

pytestmark = pytest.mark.slow
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PHASES = ["commit", "fetch", "queue", "run", "store"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


async def spans_when(collector: Collector, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
    async with asyncio.timeout(DEADLINE_S):
        while not enough(collector.spans):
            await asyncio.sleep(0.02)
    return list(collector.spans)


def jobs_of(spans: list[Seen]) -> list[Seen]:
    return sorted((span for span in spans if span.name == "headrace.job"), key=lambda span: span.ended_ns)


async def traced(rig: Rig, collector: Collector) -> None:
    rig.environment |= collector.environment
    await rig.add_model()
    await rig.start_worker("--id", "w-7")


async def published(rig: Rig, body: bytes, headers: dict[str, str] | None) -> str:
    """As a client without our SDK does it; the job's id."""
    return f"seq-{await rig.publish(body, headers=headers)}"


async def headers_of_result(rig: Rig, job_id: str) -> dict[str, str]:
    message = await rig.connection.js.get_last_msg(Stream.RESULTS, f"results.{TENANT}.{rig.model}.{job_id}")
    return dict(message.headers or {})


async def test_a_job_is_one_trace_from_its_client_to_its_result(rig: Rig, collector: Collector) -> None:
    await traced(rig, collector)
    # The client is a program of its own, with the variables and without OpenTelemetry of its own.
    code = (
        "import asyncio, headrace, sys\n"
        "async def main():\n"
        "    async with headrace.Client() as client:\n"
        f"        print((await client.submit({rig.model!r}, echo='a secret')).id)\n"
        "asyncio.run(main())\n"
    )
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**rig.environment, "HEADRACE_TENANT": TENANT},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await client.communicate()
    job_id = out.decode().strip()
    assert (await rig.result(job_id)).status is Status.SUCCEEDED
    spans = await spans_when(collector, lambda seen: len(seen) >= 7)

    [submit] = [span for span in spans if span.name == "headrace.submit"]
    [job] = jobs_of(spans)
    children = [span for span in spans if span.parent_id == job.span_id]
    assert {span.trace_id for span in spans} == {submit.trace_id}
    assert (submit.parent_id, job.parent_id) == ("", submit.span_id)
    assert sorted(span.name for span in children) == PHASES
    assert (submit.service, job.service) == ("headrace-client", "headrace-worker")
    expected = {
        "messaging.system": "nats",
        "messaging.destination.name": "JOBS",
        "headrace.job_id": job_id,
        "headrace.model": rig.model,
        "headrace.lane": "normal",
        "headrace.tenant": TENANT,
        "headrace.worker": "w-7",
        "headrace.attempt": 1,
        "headrace.status": "succeeded",
        "headrace.code": "",
    }
    assert expected.items() <= job.attributes.items()
    at = {span.name: span for span in children}
    order = [at["queue"].ended_ns, at["run"].began_ns, at["run"].ended_ns, at["store"].began_ns, at["commit"].began_ns]
    assert order == sorted(order)
    assert job.began_ns == at["queue"].began_ns
    assert not any(span.failed for span in spans)
    assert b"secret" not in msgspec.json.encode(spans)


async def test_the_trace_of_a_job_goes_on_in_its_result_and_its_log_lines(rig: Rig, collector: Collector) -> None:
    await traced(rig, collector)
    headers = {"Traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    job_id = await published(rig, b'{"input": {}}', headers)
    await rig.result(job_id)
    [job] = jobs_of(await spans_when(collector, jobs_of))
    assert (job.trace_id, job.parent_id) == (TRACE, TRACEPARENT[36:52])
    answered = await headers_of_result(rig, job_id)
    assert answered["traceparent"] == f"00-{TRACE}-{job.span_id}-01"
    assert answered["tracestate"] == "vendor=1"
    async with asyncio.timeout(DEADLINE_S):
        line = await anext(follow_lines(rig.connection, TENANT, rig.model, job_id))
    assert line.trace_id == TRACE


async def test_the_last_spans_of_a_worker_that_ends_are_sent(rig: Rig, collector: Collector) -> None:
    rig.environment |= {**collector.environment, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    await rig.add_model()
    worker = await rig.start_worker()
    await rig.run(echo="x")
    assert collector.spans == []
    worker.terminate()
    assert await worker.wait() == 0
    assert len(jobs_of(collector.spans)) == 1


async def test_a_forked_worker_sends_its_spans(rig: Rig, collector: Collector) -> None:
    """The thread that sends them begins behind the fork: one of the parent would not be there."""
    rig.environment |= collector.environment
    await rig.add_model()
    async with forking(rig) as workers:
        await workers.start()
        await rig.run(echo="x")
        await spans_when(collector, jobs_of)


@pytest.mark.parametrize("traceparent", [TRACEPARENT, None])
async def test_attempts_of_a_job_are_in_one_trace(rig: Rig, collector: Collector, traceparent: str | None) -> None:
    await traced(rig, collector)
    headers = {"traceparent": traceparent} if traceparent else None
    job_id = await published(rig, b'{"input": {"behaviour": "crash_once"}}', headers)
    assert (await rig.result(job_id)).attempts == 2
    spans = await spans_when(collector, lambda seen: len(jobs_of(seen)) >= 2)
    first, second = jobs_of(spans)
    assert first.trace_id == second.trace_id
    assert first.trace_id == (TRACE if traceparent else first.trace_id)
    assert [first.attributes[f"headrace.{key}"] for key in ("attempt", "status", "code")] == [
        1,
        "retrying",
        "engine_crashed",
    ]
    assert [second.attributes[f"headrace.{key}"] for key in ("attempt", "status", "code")] == [2, "succeeded", ""]
    assert (first.failed, second.failed) == (True, False)
    assert second.began_ns >= first.began_ns
    [lost] = [span for span in spans if span.parent_id == first.span_id and span.name == "run"]
    assert lost.failed


async def test_the_span_of_a_canceled_job_says_so(rig: Rig, collector: Collector) -> None:
    await traced(rig, collector)
    job_id = await rig.submit(steps=100, step_s=0.2)
    await rig.until_running(job_id)
    await rig.cancel(job_id)
    [job] = jobs_of(await spans_when(collector, jobs_of))
    assert [job.attributes[f"headrace.{key}"] for key in ("status", "code")] == ["canceled", "canceled"]
    assert not job.failed


async def test_a_worker_without_tracing_passes_the_trace_on(rig: Rig) -> None:
    await rig.add_model()
    await rig.start_worker()
    for headers, body, expected in (
        ({"traceparent": TRACEPARENT}, b'{"input": {}}', TRACEPARENT),
        (None, b'{"input": {}, "trace": "%s"}' % TRACEPARENT.encode(), TRACEPARENT),
        (None, b'{"input": {}}', None),
        ({"traceparent": "00-nonsense"}, b'{"input": {}}', None),
    ):
        job_id = await published(rig, body, headers)
        assert (await rig.result(job_id)).status is Status.SUCCEEDED
        assert (await headers_of_result(rig, job_id)).get("traceparent") == expected


async def test_a_span_of_the_program_is_what_its_jobs_are_below(rig: Rig) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    await rig.add_model()
    span = TracerProvider(shutdown_on_exit=False).get_tracer("a program").start_span("its work")
    ours = span.get_span_context()
    async with headrace.Client(Settings(nats=NatsSettings(url=rig.server.url), tenant=TENANT)) as client:
        with trace.use_span(span, end_on_exit=True):
            await client.submit(rig.model, job_id="below")
            await client.submit(rig.model, job_id="given", traceparent=TRACEPARENT)
            with pytest.raises(headrace.InvalidInput, match="traceparent"):
                await client.submit(rig.model, traceparent="nonsense")
        await client.submit(rig.model, job_id="outside")
    sent = {}
    for _ in range(3):
        message = await rig.connection.js.get_last_msg(Stream.JOBS, f"jobs.{TENANT}.{rig.model}.normal")
        headers = dict(message.headers or {})
        sent[headers["Nats-Msg-Id"]] = headers.get("traceparent")
        await rig.connection.js.delete_msg(Stream.JOBS, message.seq)
    assert sent == {
        "below": f"00-{ours.trace_id:032x}-{ours.span_id:016x}-{int(ours.trace_flags):02x}",
        "given": TRACEPARENT,
        "outside": None,
    }


@pytest.fixture
async def deaf() -> AsyncIterator[str]:
    """A collector that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_collector_that_does_not_answer_holds_nothing_up(rig: Rig, deaf: str) -> None:
    rig.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": deaf, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    await rig.add_model()
    worker = await rig.start_worker()
    for _ in range(5):
        assert (await rig.run(echo="x")).status is Status.SUCCEEDED
    worker.terminate()
    async with asyncio.timeout(15):
        assert await worker.wait() == 0


async def test_a_collector_that_is_away_is_told_of_once(rig: Rig) -> None:
    rig.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    await rig.add_model()
    worker = await rig.start_worker()
    for _ in range(5):
        assert (await rig.run(echo="x")).status is Status.SUCCEEDED
    await rig.until_logged("spans are not taken")
    worker.terminate()
    async with asyncio.timeout(15):
        assert await worker.wait() == 0
    told = [msgspec.json.decode(line) for line in (rig.folder / "worker.log").read_bytes().splitlines()]
    assert [entry["event"] for entry in told].count("spans are not taken") == 1
