"""Requests of the NATS client that can be canceled.

The client waits by `asyncio.wait_for`. In Python 3.11 a cancel that meets the answer there is forgotten: the canceled
task goes on, and whoever waits for its end waits for ever.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client

T = TypeVar("T")


async def cancelable(request: Coroutine[Any, Any, T]) -> T:
    """The result of `request`, which is left to itself when we are canceled."""
    asking = asyncio.create_task(request)
    try:
        await asyncio.wait({asking})
    finally:
        asking.cancel()
    return await asking


class CancelableClient(Client):  # type: ignore[misc]  # the client has no types
    """The NATS client; everything in it that waits for an answer goes through these two methods."""

    async def request(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - the client's own signature
        """As the client's."""
        return await cancelable(super().request(*args, **options))

    async def flush(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - the client's own signature
        """As the client's."""
        await cancelable(super().flush(*args, **options))
