"""`headrace models`: what there is, what each takes, and the registry itself."""

from pathlib import Path

import click
import msgspec

from headrace.cli.commands import CommandGroup
from headrace.cli.fields import field_rows
from headrace.cli.output import show_json, show_table
from headrace.cli.overview import running, workers_state
from headrace.cli.session import with_client
from headrace.client import Client
from headrace_contracts.errors import BrokerForbidden
from headrace_contracts.model import ModelSpec, load_spec
from headrace_contracts.tasks.registry import input_schema, output_schema
from headrace_storage.registry import add_model, get_model, remove_model
from headrace_storage.topology import ensure_topology


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List models, say what they take, add and remove them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool = False) -> None:
    """List the models of the registry, with what waits and who works."""

    found = with_client(_models_seen)
    if as_json:
        show_json(found)
    elif not found:
        click.echo("the registry is empty: `headrace models add FILE.toml` adds a model", err=True)
    else:
        show_table([key.upper() for key in found[0]], [[str(value) for value in row.values()] for row in found])


async def _models_seen(client: Client) -> list[dict[str, object]]:
    """What this role may see of each model: a tenant's sees what there is, not what waits and who works for others."""
    specs = await client.models()
    plain: list[dict[str, object]] = [
        {"name": spec.name, "task": spec.task.value, "engine": spec.engine.value, "version": spec.version}
        for spec in specs
    ]
    try:
        workers = await client.workers()
        backlogs = [await client.backlog(spec.name) for spec in specs]
    except BrokerForbidden:
        return plain
    return [
        {
            **row,
            "workers": workers_state(spec.name, workers),
            "waiting": sum(lane.waiting for lane in backlog),
            "running": running(spec.name, workers),
        }
        for row, spec, backlog in zip(plain, specs, backlogs, strict=True)
    ]


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the schemas of input and output.")
def show(name: str, as_json: bool) -> None:
    """Say what a model takes: fields, types, defaults and limits."""

    async def call(client: Client) -> ModelSpec:
        return await client.model(name)

    spec = with_client(call)
    if as_json:
        schemas = {"input": input_schema(spec.task), "output": output_schema(spec.task)}
        show_json({**msgspec.to_builtins(spec), **schemas})
        return
    click.echo(f"{spec.name} (version {spec.version}): {spec.task}, run by {spec.engine}", err=True)
    if spec.description:
        click.echo(spec.description, err=True)
    show_table(("FIELD", "TYPE", "DEFAULT", "LIMITS"), field_rows(spec))


@models.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def add(files: tuple[Path, ...]) -> None:
    """Add models to the registry, or change them, from TOML files; all of them or, if one is wrong, none."""
    specs = [load_spec(path) for path in files]

    async def call(client: Client) -> None:
        await ensure_topology(client.connection)
        for spec in specs:
            await add_model(client.connection, spec)
            click.echo(f"added {spec.name}")

    with_client(call)


@models.command()
@click.argument("name")
def rm(name: str) -> None:
    """Remove a model from the registry; jobs that wait for it are refused."""

    async def call(client: Client) -> None:
        spec = await get_model(client.connection, name)
        await remove_model(client.connection, spec.name)

    with_client(call)
    click.echo(f"removed {name}")
