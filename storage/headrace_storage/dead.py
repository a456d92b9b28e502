"""The DEAD stream: original messages of jobs that could not be run, with the reason."""

from collections.abc import Mapping

from headrace_contracts.names import dead_subject
from headrace_storage.connection import Connection
from headrace_storage.publishing import publish

REASON = "Headrace-Reason"
ORIGINAL_SUBJECT = "Headrace-Subject"


async def bury(
    connection: Connection,
    tenant: str,
    model: str,
    job_id: str,
    *,
    original_subject: str,
    headers: Mapping[str, str],
    data: bytes,
    reason: str,
    sequence: int,
) -> None:
    """Keep a message, its headers and why it was given up; burying it again keeps one.

    Args:
        connection: where to.
        tenant: with `model` and `job_id`, the place it is kept at.
        model: as above.
        job_id: as above.
        original_subject: where it was published.
        headers: its headers.
        data: its body, unchanged.
        reason: one line for the operator.
        sequence: its sequence in JOBS: names the message, so that a repetition is recognised.

    Raises:
        QueueFull: the stream is full; nothing may be removed from JOBS then.
        BrokerUnavailable: no answer.
    """
    kept = {key: value for key, value in headers.items() if not key.lower().startswith("nats-")}
    one_line = " ".join(reason.split())[:500]
    await publish(
        connection,
        dead_subject(tenant, model, job_id),
        data,
        {**kept, REASON: one_line, ORIGINAL_SUBJECT: original_subject, "Nats-Msg-Id": f"dead-{sequence}"},
    )
