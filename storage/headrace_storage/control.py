"""Cancels and drains on their way to the worker they concern: core messages, for whoever listens now."""

import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import nats.errors
from nats.aio.msg import Msg

from headrace_contracts.errors import BrokerUnavailable
from headrace_contracts.heartbeat import DrainReply, DrainRequest
from headrace_contracts.names import cancel_subject, cancel_subjects_of_model, drain_subject, job_id_of_subject
from headrace_storage.connection import REQUEST_TIMEOUT_S, Connection


async def send_cancel(connection: Connection, tenant: str, model: str, job_id: str) -> None:
    """Tell the worker of a running job that it has been canceled. The canceled result is published before."""
    with connection.errors():
        await connection.nc.publish(cancel_subject(tenant, model, job_id))
        await connection.nc.flush()


async def listen_for_cancels(connection: Connection, model: str, heard: Callable[[str, str], Awaitable[None]]) -> None:
    """Call `heard(tenant, job_id)` for every cancel of a job of `model`, from now until the connection ends."""

    async def on_message(message: Msg) -> None:
        await heard(message.subject.split(".")[2], job_id_of_subject(message.subject))

    await _listen(connection, cancel_subjects_of_model(model), on_message)


async def ask_to_drain(connection: Connection, worker_id: str, request: DrainRequest) -> DrainReply | None:
    """Ask a worker to take no more jobs and to end; its answer, or None if there is no such worker.

    Raises:
        BrokerUnavailable: no answer; the worker may drain all the same.
    """
    with connection.errors():
        try:
            reply = await connection.nc.request(
                drain_subject(worker_id), msgspec.json.encode(request), timeout=REQUEST_TIMEOUT_S
            )
        except nats.errors.NoRespondersError:
            return None
    return msgspec.json.decode(reply.data, type=DrainReply)


async def listen_for_drain(connection: Connection, worker_id: str, asked: Callable[[DrainRequest], DrainReply]) -> None:
    """Answer with `asked` whoever asks this worker to drain, from now until the connection ends."""

    async def on_message(message: Msg) -> None:
        try:
            request = msgspec.json.decode(message.data or b"{}", type=DrainRequest)
        except msgspec.DecodeError:
            return
        reply = asked(request)
        if message.reply:
            await message.respond(msgspec.json.encode(reply))

    await _listen(connection, drain_subject(worker_id), on_message)


async def _listen(connection: Connection, subject: str, on_message: Callable[[Msg], Awaitable[None]]) -> None:
    """Subscribe, and return when the server knows of it: what is sent before then finds nobody."""
    with connection.errors():
        await connection.nc.subscribe(subject, cb=on_message)
    with contextlib.suppress(BrokerUnavailable), connection.errors():
        # In an outage there is nothing to wait for: reconnecting subscribes before anything else.
        await connection.nc.flush()
