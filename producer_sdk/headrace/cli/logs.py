"""`headrace logs`: what workers logged about a job, wherever they run."""

import click
import msgspec

from headrace.cli.session import job_of, with_client
from headrace.client import Client
from headrace.errors import UnknownJob
from headrace.handle import Handle
from headrace.job_status import JobState
from headrace_contracts.log_line import LogLine


@click.command()
@click.argument("job_id")
@click.option("--model", help="The job's model; spares looking for it.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def logs(job_id: str, model: str | None, follow: bool, as_json: bool) -> None:
    """Print what workers logged about a job: when (UTC), level, worker, attempt, what.

    Lines are kept for a day, in the broker's memory. What the job itself does, its steps and its text, is in
    `headrace watch`.
    """

    def show(line: LogLine) -> None:
        click.echo(msgspec.json.encode(line).decode() if as_json else in_words(line))

    async def call(client: Client) -> None:
        job = await job_of(client, job_id, model)
        if follow:
            async for line in job.follow_logs():
                show(line)
            return
        lines = await job.logs()
        for line in lines:
            show(line)
        if not lines:
            await _say_none(client, job)

    with_client(call)


def in_words(line: LogLine) -> str:
    """A line for people."""
    attempt = f" attempt {line.attempt}" if line.attempt else ""
    trace = {"trace_id": line.trace_id} if line.trace_id else {}
    fields = "".join(f" {key}={_plain(value)}" for key, value in {**line.fields, **trace}.items())
    worker = f" {line.worker}" if line.worker else ""
    return (
        f"{line.at:%H:%M:%S}.{line.at.microsecond // 1000:03d} {line.level:<7}{worker}{attempt}: {line.event}{fields}"
    )


def _plain(value: object) -> str:
    """As one word, whatever is in it: what comes from a message may not steer a terminal."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else msgspec.json.encode(text).decode()


async def _say_none(client: Client, job: Handle) -> None:
    state = (await job.status()).state
    if state is JobState.UNKNOWN:
        raise UnknownJob(job.id, client.settings.tenant)
    waits = state is JobState.QUEUED
    why = "no worker has taken it yet" if waits else "they are kept for a day, in the broker's memory"
    click.echo(f"no log lines of {job.id}: it is {state}; {why}", err=True)
