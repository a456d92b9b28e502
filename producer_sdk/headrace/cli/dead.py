"""`headrace dead`: the jobs that were given up; look at them, run them again, drop them."""

from datetime import datetime

import click

from headrace.cli.commands import CommandGroup
from headrace.cli.failures import FAILED, sentence_of
from headrace.cli.letters import as_json_value, lines_of, row_of
from headrace.cli.output import show_json, show_table
from headrace.cli.session import with_client
from headrace.client import Client
from headrace_contracts.clock import SystemClock
from headrace_contracts.errors import UndecodableMessage
from headrace_contracts.result import Result
from headrace_storage.dead import (
    DeadLetter,
    count_letters,
    letters_of,
    newest_letters,
    oldest_letters,
    remove_letter,
    remove_letters,
)
from headrace_storage.redrive import NotRedrivable, redrive, why_it_may_fail_again
from headrace_storage.registry import model_names
from headrace_storage.results import find_result

SHOWN = 50

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_model = click.option("--model", default="*", help="Only of this model.")
_tenant = click.option("--tenant", default="*", help="Only of this tenant.")


@click.group(cls=CommandGroup)
def dead() -> None:
    """Jobs that could not be run: list them, look at one, run it again, drop it."""


@dead.command("ls")
@_model
@_tenant
@click.option("--limit", default=SHOWN, show_default=True, type=click.IntRange(min=1), help="Show no more than this.")
@_json
def ls(model: str, tenant: str, limit: int, as_json: bool) -> None:
    """List dead letters, newest first."""

    async def call(client: Client) -> tuple[list[DeadLetter], int]:
        return (
            await newest_letters(client.connection, limit, tenant, model),
            await count_letters(client.connection, tenant, model),
        )

    letters, total = with_client(call)
    if as_json:
        show_json([as_json_value(letter) for letter in letters])
        return
    if not letters:
        click.echo("there are no dead letters", err=True)
        return
    now: datetime = SystemClock().now()
    show_table(("AGE", "TENANT", "MODEL", "ID", "REASON", "SIZE"), [row_of(letter, now) for letter in letters])
    if total > len(letters):
        click.echo(f"{len(letters)} of {total}: --limit shows more", err=True)


@dead.command()
@click.argument("job_id")
@_model
@_tenant
@click.option("--body", "with_body", is_flag=True, help="Print the original message too; it may hold a prompt.")
@_json
def show(job_id: str, model: str, tenant: str, with_body: bool, as_json: bool) -> None:
    """Say why a job was given up."""

    async def call(client: Client) -> list[tuple[DeadLetter, Result | None]]:
        letters = await letters_of(client.connection, job_id, tenant, model)
        return [(letter, await _result_of(client, letter)) for letter in letters]

    found = with_client(call)
    if as_json:
        show_json([as_json_value(letter, result, with_body=with_body) for letter, result in found])
        return
    for position, (letter, result) in enumerate(found):
        if position:
            click.echo()
        for line in lines_of(letter, result, with_body=with_body):
            click.echo(line)


@dead.command("redrive")
@click.argument("job_id", required=False)
@click.option("--all", "every", is_flag=True, help="All letters of a model; needs --model.")
@_model
@_tenant
@click.pass_context
def redrive_(ctx: click.Context, job_id: str | None, every: bool, model: str, tenant: str) -> None:
    """Run a dead letter's job again, under a new id.

    The letter is removed when the broker has the new job. Repeating it after an error does not run the job twice.
    """
    if every and model == "*":
        raise click.UsageError("--all needs --model: redrive the jobs of one model after it was mended")

    _check_choice(job_id, every=every)

    async def call(client: Client) -> int:
        known = set(await model_names(client.connection))
        failures = 0
        if job_id is not None:
            for letter in await letters_of(client.connection, job_id, tenant, model):
                failures += await _redrive(client, letter, known)
        else:
            async for letter in oldest_letters(client.connection, tenant, model):
                failures += await _redrive(client, letter, known)
        return failures

    ctx.exit(FAILED if with_client(call) else 0)


@dead.command()
@click.argument("job_id", required=False)
@click.option("--all", "every", is_flag=True, help="All letters; narrow it with --model and --tenant.")
@_model
@_tenant
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def drop(ctx: click.Context, job_id: str | None, every: bool, model: str, tenant: str, yes: bool) -> None:
    """Remove dead letters for good; their results stay."""

    _check_choice(job_id, every=every)

    async def look(client: Client) -> tuple[int, list[DeadLetter]]:
        if job_id is None:
            return await count_letters(client.connection, tenant, model), []
        letters = await letters_of(client.connection, job_id, tenant, model)
        return len(letters), letters

    count, letters = with_client(look)
    question = f"Remove {count} dead letter{'s' if count > 1 else ''} for good?"
    if count and not yes and not click.confirm(question):
        click.echo("nothing was removed", err=True)
        ctx.exit(FAILED)

    async def remove(client: Client) -> int:
        if job_id is None:
            return await remove_letters(client.connection, tenant, model)
        for letter in letters:
            await remove_letter(client.connection, letter)
        return len(letters)

    click.echo(f"removed {with_client(remove)}")


def _check_choice(job_id: str | None, *, every: bool) -> None:
    if (job_id is None) is not every:
        raise click.UsageError("name one job id, or --all")


async def _redrive(client: Client, letter: DeadLetter, known: set[str]) -> int:
    """Run one letter's job again, and say so; 1 if it cannot be."""
    if doubt := why_it_may_fail_again(letter) or _unknown(letter, known):
        click.echo(f"warning: {letter.job_id} will probably die again: {doubt}", err=True)
    try:
        done = await redrive(client.connection, letter)
    except NotRedrivable as error:
        click.echo(f"error: {sentence_of(error)}", err=True)
        return 1
    note = " (an earlier redrive had sent it)" if done.already_there else ""
    click.echo(f"{done.old_id} runs again as {done.new_id}{note}")
    return 0


async def _result_of(client: Client, letter: DeadLetter) -> Result | None:
    try:
        return await find_result(client.connection, letter.tenant, letter.job_id)
    except UndecodableMessage:  # something else was published in its place
        return None


def _unknown(letter: DeadLetter, known: set[str]) -> str | None:
    model = letter.original_subject.split(".")[2] if letter.original_subject.count(".") == 3 else letter.model
    return None if model in known else f"model {model!r} is not in the registry"
