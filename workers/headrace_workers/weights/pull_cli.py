"""`headrace models pull`: fetch a model's weights from a hub. Progress on stderr, one line on stdout."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace_contracts.errors import HeadraceError
from headrace_contracts.model import EngineKind, load_spec
from headrace_contracts.settings import load_settings
from headrace_workers.weights.layout import LAYOUT_OF_ENGINE
from headrace_workers.weights.origin import HubModel, check_repo, hub_model

if TYPE_CHECKING:
    from rich.progress import Progress


@click.command()
@click.argument("model", metavar="MODEL_FILE_OR_REPO")
@click.option(
    "--engine",
    type=click.Choice([str(engine) for engine in LAYOUT_OF_ENGINE]),
    help="The engine that will run a repository; a model file names its own.",
)
@click.option("--variant", help="Variant of a repository's weights, as in fp16; a model file names its own.")
@click.option(
    "--lock",
    "lock_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="models.lock",
    show_default=True,
    help="File that pins commits and hashes; commit it.",
)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="Cache folder [default: cache_dir setting]."
)
@click.option("--update", is_flag=True, help="Take the newest commit instead of the one in the lock file.")
def pull(
    model: str, engine: str | None, variant: str | None, lock_file: Path, cache: Path | None, update: bool
) -> None:
    """Fetch a model's weights from a hub, and pin them in models.lock.

    MODEL_FILE_OR_REPO is a model file (TOML) with hub:<org>/<name> weights, or <org>/<name> itself. HF_ENDPOINT and
    HF_TOKEN are honoured. Pickles are never fetched.
    """
    from headrace_workers.weights.pull import pull as pull_model

    try:
        wanted = _wanted(model, engine, variant)
        folder = cache or load_settings().cache_path
        with _progress() as bars:
            pulled = pull_model(wanted, folder, lock_file, update=update, watcher=_Bars(bars))
    except (HeadraceError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{pulled.folder}  commit {pulled.commit}  {pulled.size_bytes / 1e6:,.1f} MB")


def _wanted(model: str, engine: str | None, variant: str | None) -> HubModel:
    path = Path(model)
    if path.suffix == ".toml" or path.is_file():
        if engine or variant:
            raise click.UsageError("--engine and --variant are for repositories; a model file names its own")
        return hub_model(load_spec(path))
    return HubModel(check_repo(model), LAYOUT_OF_ENGINE[EngineKind(engine)] if engine else None, variant)


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


class _Bars:
    """Shows a pull as lines and one bar."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task = progress.add_task("pull", visible=False, total=None)

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def begin(self, size_bytes: int) -> None:
        self._progress.update(self._task, total=size_bytes, visible=True)

    def advance(self, size_bytes: int) -> None:
        self._progress.advance(self._task, size_bytes)
