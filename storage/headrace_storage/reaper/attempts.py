"""Rule: records of attempts go with their jobs."""

import msgspec
import nats.js.errors

from headrace_contracts.names import Bucket, is_token
from headrace_storage.reaper.duty import Act, Duty, Rule
from headrace_storage.reaper.evidence import named_by_results, queued_of
from headrace_storage.reaper.files import Origin


async def sweep_attempts(duty: Duty) -> None:
    """Remove records of attempts of jobs that ended, or are nowhere any more; also the markers of removed ones."""
    prefix = f"$KV.{Bucket.ATTEMPTS}."
    with duty.connection.errors():
        try:
            info = await duty.connection.js.stream_info(f"KV_{Bucket.ATTEMPTS}", subjects_filter=f"{prefix}>")
        except nats.js.errors.NotFoundError:
            return
    of_job: dict[Origin, str] = {}
    for subject in info.state.subjects or {}:
        key = subject.removeprefix(prefix)
        tokens = key.split(".")
        if len(tokens) == 3 and all(is_token(token) for token in tokens):
            of_job[Origin(*tokens)] = key
    ended = set(await named_by_results(duty, of_job))
    queued = await queued_of(duty, {job.tenant for job in of_job if job not in ended}, set(of_job) - ended, set())
    stale = [key for job, key in of_job.items() if job in ended or job not in queued.jobs]

    async def purge(key: str) -> None:
        # Not the client's own purge, which leaves a marker in the place of each.
        request = msgspec.json.encode({"filter": f"{prefix}{key}"})
        await duty.connection.api(f"STREAM.PURGE.KV_{Bucket.ATTEMPTS}", request)
        duty.tell(Act(Rule.ATTEMPTS, key, "record of attempts removed"))

    await duty.each(Rule.ATTEMPTS, stale, purge)
