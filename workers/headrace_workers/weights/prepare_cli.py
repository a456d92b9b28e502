"""`headrace models prepare`: weights ready to load before a worker needs them. Progress on stderr, a line on stdout."""

from pathlib import Path

import click

from headrace_contracts.errors import HeadraceError
from headrace_contracts.model import load_spec
from headrace_contracts.settings import load_settings
from headrace_workers.weights.ready import ensure


@click.command()
@click.argument("model", metavar="MODEL_FILE", type=click.Path(path_type=Path))
def prepare(model: Path) -> None:
    """Make sure that the weights of a model file are on this machine, ready to load.

    A GGUF file is unpacked into the cache; weights of a hub have to be pulled before. Without network.
    """
    try:
        spec = load_spec(model)
        folder = ensure(spec, load_settings().cache_path, lambda line: click.echo(line, err=True))
    except (HeadraceError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{spec.name}: {folder or 'a model without weights'}")
