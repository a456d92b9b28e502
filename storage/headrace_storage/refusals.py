"""What the server says this connection's role may not do, told to whoever waits for an answer to it.

NATS reports a denied publish or subscription beside the request: without this, a caller sees a timeout and never learns
why.
"""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import nats.errors

T = TypeVar("T")

# The client hands the server's text on in lower case.
_VIOLATION: Final = re.compile(r'permissions violation for (?P<what>publish|subscription) to "(?P<subject>[^"]+)"')


class Refused(nats.errors.Error):  # type: ignore[misc]  # the client has no types
    """The server does not let this role publish or subscribe there."""

    def __init__(self, action: str, subject: str) -> None:
        self.action = action
        self.subject = subject
        super().__init__(f"may not {action} {subject}")


class Refusals:
    """Requests that wait, by subject, and what the server refused. Used from one event loop.

    Args:
        inbox_prefix: where answers come to.
        api_prefix: what stands for `$JS.API` on the wire.
    """

    def __init__(self, inbox_prefix: str, api_prefix: str) -> None:
        self._inbox_prefix = f"{inbox_prefix}.".lower()
        self._api_prefix = f"{api_prefix}.".lower()
        self._waiting: dict[asyncio.Future[None], str] = {}
        self._inbox_refused: str | None = None

    def heard(self, text: str) -> None:
        """An error of the client; those that are no refusals are passed over."""
        found = _VIOLATION.search(text.lower())
        if found is None:
            return
        if found["what"] == "subscription":
            if found["subject"].startswith(self._inbox_prefix):
                # No answer can reach us any more, to any request.
                self._inbox_refused = found["subject"]
                self._fail(list(self._waiting), "subscribe to", found["subject"])
            return
        denied = found["subject"]
        if denied.startswith(self._api_prefix):
            denied = f"$js.api.{denied.removeprefix(self._api_prefix)}"
        refused = [future for future, subject in self._waiting.items() if subject.lower() == denied]
        self._fail(refused, "publish to", denied)

    def forget(self) -> None:
        """A new connection may have another role's rights."""
        self._inbox_refused = None

    async def unless_refused(self, subject: str, request: Coroutine[Any, Any, T]) -> T:
        """The result of `request`, which publishes to `subject` and waits for what comes back.

        A request that we are canceled for, or that is refused, is left to itself: the client waits by
        `asyncio.wait_for`, which in Python 3.11 forgets a cancel that meets the answer.

        Raises:
            Refused: the role may not publish there, or may not listen where answers come to.
        """
        if self._inbox_refused is not None:
            request.close()
            raise Refused("subscribe to", self._inbox_refused)
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[refused] = subject
        asking = asyncio.create_task(request)
        try:
            waited: set[asyncio.Future[Any]] = {asking, refused}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._waiting[refused]
            asking.cancel()
        if refused.done():
            # Read, so that nobody is told of an exception that was never retrieved.
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
            refused.result()
        return await asking

    def _fail(self, waiting: "list[asyncio.Future[None]]", action: str, subject: str) -> None:
        for future in waiting:
            if not future.done():
                future.set_exception(Refused(action, self._waiting[future] if action == "publish to" else subject))
