"""What only a submitter can run into; everything else is in `headrace_contracts.errors`.

HeadraceError
├── UnknownJob         no trace of a job id
├── BatchIncomplete    only some jobs of a batch were accepted
└── StreamRestarted    a later attempt went another way than the text already given
"""

from typing import TYPE_CHECKING

from headrace_contracts.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.handle import Handle


class UnknownJob(HeadraceError):
    """Neither a result nor an event nor a waiting job has this id."""

    def __init__(self, job_id: str, tenant: str) -> None:
        self.job_id = job_id
        self.tenant = tenant
        super().__init__(
            f"there is no trace of a job {job_id!r} of tenant {tenant!r}: "
            "check the id; a result is kept for 7 days after the end of its job"
        )


class BatchIncomplete(HeadraceError):
    """The broker accepted only some jobs of a batch; `handles` are those, and they go on."""

    def __init__(self, batch: str, handles: "tuple[Handle, ...]", total: int, cause: HeadraceError) -> None:
        self.batch = batch
        self.handles = handles
        self.total = total
        self.cause = cause
        super().__init__(f"{len(handles)} of {total} jobs of batch {batch} were accepted, then: {cause}")


class StreamRestarted(HeadraceError):
    """Text that was given already is not how the job's text begins: a later attempt went another way."""

    def __init__(self, job_id: str, text: str) -> None:
        self.job_id = job_id
        self.text = text
        super().__init__(
            f"job {job_id} was run again and its text differs from the {len(text)} characters already streamed: "
            "take the text of its result"
        )
