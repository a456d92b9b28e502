"""`headrace result`, `watch`, `cancel` and `status`: jobs that were submitted before, by their id."""

from pathlib import Path

import click
import msgspec

from headrace.cli.failures import FAILED, LATER, WRONG
from headrace.cli.output import show_json, show_result, show_table, summary
from headrace.cli.overview import model_rows, worker_rows
from headrace.cli.progress import line
from headrace.cli.session import job_of, with_client
from headrace.client import Client
from headrace.job_status import JobState, JobStatus
from headrace_contracts.result import Status

_model = click.option("--model", help="The job's model; spares looking for it.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("job_id")
@_model
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), help="Save files here.")
@_json
@click.option("--wait/--no-wait", default=True, help="Wait for the end of the job (the default).")
@click.option("--wait-s", type=click.FloatRange(min=0, min_open=True), help="Wait no longer than this.")
@click.pass_context
def result(
    ctx: click.Context,
    job_id: str,
    model: str | None,
    folder: Path | None,
    as_json: bool,
    wait: bool,
    wait_s: float | None,
) -> None:
    """Print what a job made, when it has ended."""

    async def call(client: Client) -> int:
        job = await job_of(client, job_id, model)
        if not wait:
            state = await job.status()
            if state.result is None:
                click.echo(f"{describe(state)}: there is no result yet", err=True)
                return LATER
        return await show_result(await job.result(wait_s), folder, as_json)

    ctx.exit(with_client(call))


@click.command()
@click.argument("job_id")
@_model
@click.pass_context
def watch(ctx: click.Context, job_id: str, model: str | None) -> None:
    """Print what happens to a job, from its beginning to its end."""

    async def call(client: Client) -> int:
        job = await job_of(client, job_id, model)
        async for event in job.events():
            click.echo(f"{event.at:%H:%M:%S} {line(event)}")
        ended = await job.result()
        click.echo(summary(ended))
        return 0 if ended.status is Status.SUCCEEDED else FAILED

    ctx.exit(with_client(call))


@click.command()
@click.argument("job_id")
@_model
def cancel(job_id: str, model: str | None) -> None:
    """Stop a job, whether it waits or runs."""

    async def call(client: Client) -> str:
        return await (await job_of(client, job_id, model)).cancel()

    click.echo(f"{job_id} {with_client(call)}")


@click.command()
@click.argument("job_id", required=False)
@_model
@_json
@click.pass_context
def status(ctx: click.Context, job_id: str | None, model: str | None, as_json: bool) -> None:
    """Say where a job is; without a job, what waits and who works."""
    if job_id is None:
        with_client(lambda client: _show_overview(client, as_json))
        return

    async def call(client: Client) -> JobStatus:
        return await (await job_of(client, job_id, model)).status()

    state = with_client(call)
    if as_json:
        show_json(_plain(state))
    else:
        click.echo(describe(state))
    ctx.exit(WRONG if state.state is JobState.UNKNOWN else 0)


def describe(state: JobStatus) -> str:
    """A job's status in one line."""
    if state.result is not None:
        return summary(state.result)
    facts = [f"attempt {state.attempt}"] if state.attempt else []
    if state.worker:
        facts.append(f"on {state.worker}")
    if state.done is not None:
        facts.append(f"{state.done:.0%} done")
    if state.last_failure:
        facts.append(f"the attempt before: {state.last_failure}")
    return f"{state.id} {state.state}" + (f" ({', '.join(facts)})" if facts else "")


def _plain(state: JobStatus) -> dict[str, object]:
    ended = None if state.result is None else state.result.as_json()
    fields = ("id", "model", "state", "attempt", "worker", "done", "last_failure")
    return {**{name: getattr(state, name) for name in fields}, "result": ended}


async def _show_overview(client: Client, as_json: bool) -> None:
    specs, workers = await client.models(), await client.workers()
    backlog = {spec.name: await client.backlog(spec.name) for spec in specs}
    if as_json:
        show_json(msgspec.to_builtins({"backlog": backlog, "workers": workers}))
        return
    show_table(("MODEL", "WORKERS", "HIGH", "NORMAL", "LOW", "HELD"), model_rows(specs, workers, backlog), "Models")
    show_table(("WORKER", "HOST", "MODEL", "STATE", "RUNNING", "SLOTS", "DETAIL"), worker_rows(workers), "Workers")
