"""From a click command into asyncio and back: one client per command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace.client import Client
from headrace.handle import Handle

T = TypeVar("T")


def with_client(call: Callable[[Client], Awaitable[T]]) -> T:
    """Run `call` with an open client."""

    async def main() -> T:
        async with Client() as client:
            return await call(client)

    return asyncio.run(main())


async def job_of(client: Client, job_id: str, model: str | None) -> Handle:
    """The job of a command line: looked up by its id, unless the model is named.

    Raises:
        UnknownJob: there is no trace of it.
        UnknownModel: `model` is none.
    """
    if model is None:
        return await client.find(job_id)
    return client.handle((await client.model(model)).name, job_id)
