"""`python -m headrace_scaler.simulation FOLDER`: run each scenario and write a picture of it."""

from pathlib import Path

import click

from headrace_scaler.simulation.pictures import draw_all
from headrace_scaler.simulation.scenarios import scenarios


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def pictures(folder: Path) -> None:
    """Write a picture of each scenario into FOLDER."""
    for path in draw_all(scenarios(), folder):
        click.echo(path)


if __name__ == "__main__":
    pictures()
