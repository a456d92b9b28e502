"""`headrace run` and `headrace submit`: a job from key=value arguments."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import click

from headrace.cli.failures import INTERRUPTED
from headrace.cli.key_values import parse
from headrace.cli.output import show_result
from headrace.cli.progress import display
from headrace.cli.session import with_client
from headrace.client import Client
from headrace.errors import StreamRestarted
from headrace.handle import Handle
from headrace.streaming import TextSoFar
from headrace_contracts.event import AnyEvent
from headrace_contracts.names import Lane, check_token

CommandT = TypeVar("CommandT", bound=Callable[..., object])

SECONDS = click.FloatRange(min=0, min_open=True)


def job_options(command: CommandT) -> CommandT:
    """Arguments and options of every command that submits."""
    for decorate in (
        click.option("--ttl-s", type=SECONDS, help="Longest wait in the queue; then the job expires."),
        click.option("--timeout-s", type=SECONDS, help="Longest run of one attempt."),
        click.option(
            "--lane", type=click.Choice([lane.value for lane in Lane]), default=Lane.NORMAL.value, help="Priority."
        ),
        click.argument("inputs", nargs=-1, metavar="[KEY=VALUE]..."),
        click.argument("model"),
    ):
        command = decorate(command)
    return command


class RunOptions:
    """What `headrace run` was told beside the job itself."""

    def __init__(self, stream: bool, folder: Path | None, as_json: bool, cancel_on_interrupt: bool) -> None:
        self.stream = stream and not as_json
        self.folder = folder
        self.as_json = as_json
        self.cancel_on_interrupt = cancel_on_interrupt


@click.command()
@job_options
@click.option("--id", "job_id", help="Job id: under one id a job is stored once.")
@click.option("--stream", is_flag=True, help="Print text while it is written.")
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), help="Save files here.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the job; otherwise it goes on.")
@click.pass_context
def run(
    ctx: click.Context,
    model: str,
    inputs: tuple[str, ...],
    lane: str,
    timeout_s: float | None,
    ttl_s: float | None,
    job_id: str | None,
    stream: bool,
    folder: Path | None,
    as_json: bool,
    cancel_on_interrupt: bool,
) -> None:
    """Run a model and wait for what it makes.

    \b
    headrace run tiny-shapes prompt="a red star on a blue background" seed=7 -o out/
    headrace run whisper-tiny-en audio=@speech.wav
    headrace run smollm2-135m prompt="Why is the sky blue?" --stream

    KEY=@FILE reads a file, KEY=- standard input; `headrace models show MODEL` lists the keys.
    """
    options = RunOptions(stream, folder, as_json, cancel_on_interrupt)
    name = uuid4().hex if job_id is None else check_token("job id", job_id)
    submitted: list[Handle] = []

    async def call(client: Client) -> int:
        spec = await client.model(model)
        values = parse(spec.task, inputs)
        job = await client.submit(
            model, lane=lane, job_id=name, timeout_s=timeout_s, ttl_s=ttl_s, metadata=None, traceparent=None, **values
        )
        submitted.append(job)
        return await _follow(job, options)

    try:
        code = with_client(call)
    except KeyboardInterrupt:
        _say_interrupted(name, bool(submitted), cancel_on_interrupt)
        code = INTERRUPTED
    ctx.exit(code)


async def _follow(job: Handle, options: RunOptions) -> int:
    """Show the job until its end, and what it made; returns the exit code."""
    text = TextSoFar(job.id)
    streaming = options.stream
    try:
        with display(job.model, streams_text=options.stream) as shown:
            async for event in job.events():
                shown.show(event)
                if streaming:
                    streaming = _write(text, event)
            result = await job.result()
    except asyncio.CancelledError:
        if options.cancel_on_interrupt:
            click.echo(f"{job.id} {await job.cancel()}", err=True)
        raise
    streamed = options.stream and streaming and _write_rest(text, result.text)
    return await show_result(result, options.folder, options.as_json, text_shown=streamed)


def _write(text: TextSoFar, event: AnyEvent) -> bool:
    """Print what an event adds to the text; False once that is no longer the job's text."""
    try:
        click.echo(text.take(event), nl=False)
    except StreamRestarted:
        click.echo("\n-- run again, with another text; it follows when it is complete --", err=True)
        return False
    return True


def _write_rest(text: TextSoFar, whole: str | None) -> bool:
    if whole is None:
        return False
    try:
        click.echo(text.finish(whole))
    except StreamRestarted:
        click.echo("\n-- run again, with another text --", err=True)
        return False
    return True


def _say_interrupted(job_id: str, submitted: bool, canceled: bool) -> None:
    if not submitted:
        click.echo(f"interrupted; if job {job_id} was submitted, `headrace status {job_id}` finds it", err=True)
    elif not canceled:
        click.echo(
            f"interrupted; job {job_id} goes on: `headrace result {job_id}` waits for it, "
            f"`headrace cancel {job_id}` stops it",
            err=True,
        )


@click.command()
@job_options
@click.option("--id", "job_id", help="Job id: under one id a job is stored once.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, help="Submit this many of the same job.")
def submit(
    model: str,
    inputs: tuple[str, ...],
    lane: str,
    timeout_s: float | None,
    ttl_s: float | None,
    job_id: str | None,
    repeat: int,
) -> None:
    """Submit a job and print its id; `headrace result ID` waits for its end."""
    if job_id is not None and repeat > 1:
        raise click.UsageError("--id names one job: leave out --repeat")

    async def call(client: Client) -> list[Handle]:
        values = parse((await client.model(model)).task, inputs)
        if repeat > 1:
            return await client.submit_many(model, [values] * repeat, lane=lane, timeout_s=timeout_s, ttl_s=ttl_s)
        job = await client.submit(
            model, lane=lane, job_id=job_id, timeout_s=timeout_s, ttl_s=ttl_s, metadata=None, traceparent=None, **values
        )
        return [job]

    for job in with_client(call):
        click.echo(job.id)
