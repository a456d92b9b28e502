"""What can only be tried out: the object store, and what the credentials may do. Leaves nothing behind."""

import asyncio
from uuid import uuid4

from headrace_contracts.errors import BlobError
from headrace_contracts.names import Lane, Stream, consumer_name, dead_subject, jobs_subject, results_subject
from headrace_storage.blobs.port import BlobStore
from headrace_storage.connection import Connection
from headrace_storage.doctor.asking import Silence, ask
from headrace_storage.doctor.observation import Denial

BLOBS_DEADLINE_S = 20.0
# No model of this name can matter: nothing is ever stored for it.
_NOBODY = "headrace-doctor"
# The server checks the permission first and this condition next, so nothing is stored and the answer is a refusal.
_ELSEWHERE = {"Nats-Expected-Stream": "headrace-doctor"}


async def try_blobs(store: BlobStore, tenant: str) -> str | None:
    """Put, stat, get and delete a probe; what went wrong, or None."""
    key, content = f"{tenant}/{_NOBODY}/{uuid4().hex}", uuid4().bytes
    try:
        async with asyncio.timeout(BLOBS_DEADLINE_S), store:
            await store.put(key, content, "application/octet-stream")
            try:
                size_bytes = (await store.stat(key)).size_bytes
                read = await store.get(key)
            finally:
                await store.delete(key)
    except BlobError as error:
        return error.reason
    except TimeoutError:
        return f"no answer in {BLOBS_DEADLINE_S:g} s"
    if size_bytes != len(content) or read != content:
        return "it does not return the bytes it was given"
    return None


async def denials(connection: Connection, tenant: str) -> tuple[Denial, ...]:
    """What these credentials may not do, of what clients and workers do."""
    tried = [
        ("submit jobs", "clients", jobs_subject(tenant, _NOBODY, Lane.LOW), _ELSEWHERE),
        (
            "read results",
            "clients",
            f"$JS.API.DIRECT.GET.{Stream.RESULTS}.{results_subject(tenant, _NOBODY, _NOBODY)}",
            None,
        ),
        ("commit results", "workers, and to cancel", results_subject(tenant, _NOBODY, _NOBODY), _ELSEWHERE),
        ("keep dead letters", "workers", dead_subject(tenant, _NOBODY, _NOBODY), _ELSEWHERE),
        (
            "see the queue of a model",
            "workers, `headrace status`",
            f"$JS.API.CONSUMER.INFO.{Stream.JOBS}.{consumer_name(_NOBODY, Lane.LOW)}",
            None,
        ),
    ]
    found = []
    # One after another: the server's word on a denial names its subject, and only the last word is kept.
    for action, needed_by, subject, headers in tried:
        if await ask(connection, subject, b"", headers) in (Silence.DENIED, Silence.TIMEOUT):
            found.append(Denial(action, needed_by))
    return tuple(found)
