"""One submitted job, for the one who submitted it."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from headrace.canceling import Origin
from headrace.job_status import JobStatus
from headrace.results import JobResult
from headrace_contracts.event import AnyEvent
from headrace_contracts.log_line import LogLine

if TYPE_CHECKING:
    from headrace.client import Client


class Handle:
    """A job by model and id; works as long as its client is open. The job needs neither of them."""

    def __init__(self, client: "Client", model: str, job_id: str, origin: Origin | None = None) -> None:
        self._client = client
        self._origin = origin
        self.model = model
        self.id = job_id

    def __repr__(self) -> str:
        return f"<Handle {self.model} {self.id}>"

    async def result(self, timeout_s: float | None = None) -> JobResult:
        """Wait until the job has ended, whatever the end; see `Client.result`."""
        return await self._client.result(self.model, self.id, timeout_s)

    def events(self) -> AsyncGenerator[AnyEvent, None]:
        """What happens to the job, from its beginning to its end; see `Client.events`."""
        return self._client.events(self.model, self.id)

    async def logs(self) -> list[LogLine]:
        """What workers have logged about the job until now; see `Client.logs`."""
        return await self._client.logs(self.model, self.id)

    def follow_logs(self) -> AsyncGenerator[LogLine, None]:
        """What they log, as it comes; see `Client.follow_logs`."""
        return self._client.follow_logs(self.model, self.id)

    def stream(self) -> AsyncGenerator[str, None]:
        """The job's text, piece by piece; see `Client.stream`."""
        return self._client.stream(self.model, self.id)

    async def status(self) -> JobStatus:
        """Where the job is now; see `Client.status`."""
        return await self._client.status(self.model, self.id, submitted=self._origin is not None)

    async def cancel(self) -> str:
        """Stop the job: `canceled`, `canceling` or `already <status>`; see `Client.cancel`."""
        return await self._client.cancel(self.model, self.id, self._origin)
