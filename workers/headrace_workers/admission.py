"""Whether a job may run now. Pure: decided from the job, the model and the clock, before anything is fetched."""

from datetime import datetime

import msgspec

from headrace_contracts.errors import InvalidInput, InvalidSpec
from headrace_contracts.file import File
from headrace_contracts.job import Job, Scalar
from headrace_contracts.model import ModelSpec
from headrace_contracts.tasks.registry import TaskInput, decode_input, input_type
from headrace_storage.blobs.keys import is_key
from headrace_workers.outcome import Expired


def check_waiting_time(job: Job, spec: ModelSpec, now: datetime) -> None:
    """Refuse a job that has waited for too long.

    Raises:
        Expired: longer than its `ttl_s`, or than the model's `timeouts.queue_s`.
    """
    ttl_s = job.body.ttl_s if job.body.ttl_s is not None else spec.timeouts.queue_s
    waited_s = (now - job.created_at).total_seconds()
    if waited_s > ttl_s:
        raise Expired(waited_s, ttl_s)


def read_input(job: Job, spec: ModelSpec) -> TaskInput:
    """The job's input with the model's defaults filled in.

    Raises:
        InvalidInput: a field is wrong, or over a limit, or refers to a file that is not the tenant's.
    """
    given = decode_input(spec.task, job.body.input, job.encoding, spec.limits)
    for name, file in files_of(given).items():
        # A key with `..`, a scheme or an escape is none: no store may be asked for it, whatever it makes of such names.
        if file.blob is not None and not (file.blob.startswith(f"{job.tenant}/") and is_key(file.blob)):
            raise InvalidInput(f"input.{name}", f"the blob is not one of tenant {job.tenant}")
    return with_defaults(given, spec.defaults)


def with_defaults(given: TaskInput, defaults: dict[str, Scalar]) -> TaskInput:
    """Fill in what a job left out and the model has a default for."""
    missing = {name: value for name, value in defaults.items() if getattr(given, name, None) is None}
    if not missing:
        return given
    return msgspec.convert({**msgspec.structs.asdict(given), **missing}, type(given), from_attributes=True)


def check_defaults(spec: ModelSpec) -> None:
    """Make sure that every default is a field of the task's input.

    Raises:
        InvalidSpec: names the key and the fields there are.
    """
    known = input_type(spec.task).__struct_fields__
    for name in spec.defaults:
        if name not in known:
            raise InvalidSpec(f"default `{name}` of model {spec.name} is no field of {spec.task}: {', '.join(known)}")


def files_of(task_input: TaskInput) -> dict[str, File]:
    """Input field to file, for every field that is one."""
    return {
        name: value for name in task_input.__struct_fields__ if isinstance(value := getattr(task_input, name), File)
    }
