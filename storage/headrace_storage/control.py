"""Cancels on their way to the worker that runs the job: core messages, for whoever listens now."""

from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from headrace_contracts.names import cancel_subject, cancel_subjects_of_model, job_id_of_subject
from headrace_storage.connection import Connection


async def send_cancel(connection: Connection, tenant: str, model: str, job_id: str) -> None:
    """Tell the worker of a running job that it has been canceled. The canceled result is published before."""
    with connection.errors():
        await connection.nc.publish(cancel_subject(tenant, model, job_id))
        await connection.nc.flush()


async def listen_for_cancels(connection: Connection, model: str, heard: Callable[[str, str], Awaitable[None]]) -> None:
    """Call `heard(tenant, job_id)` for every cancel of a job of `model`, until the connection ends."""

    async def on_message(message: Msg) -> None:
        await heard(message.subject.split(".")[2], job_id_of_subject(message.subject))

    with connection.errors():
        await connection.nc.subscribe(cancel_subjects_of_model(model), cb=on_message)
