"""The commands `headrace up` and `headrace demo`."""

import contextlib
import os
import tempfile
from pathlib import Path

import click
import msgspec

from headrace_contracts.errors import HeadraceError
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import data_folder, load_settings
from headrace_local.interrupt import run_until_signal
from headrace_local.models import ModelUnavailableError, bundled_models, check_installed, find_model
from headrace_local.nats_server import RANDOM_PORT
from headrace_local.system import DEFAULT_PORT, LocalSystem
from headrace_local.up import describe, is_news, stay_up


def _say(line: str) -> None:
    click.echo(line)


@click.command()
@click.option(
    "--model", "names", multiple=True, help="A model that comes with Headrace, or the path of a model file; repeatable."
)
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Port of the NATS server; -1 takes a free one.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Folder for queue, results and logs.  [default: XDG data]"
)
@click.option("--nats-url", envvar="NATS_URL", help="Use this NATS server instead of starting one.")
@click.option(
    "--no-scaler", is_flag=True, help="Run one worker for all models all the time, whether there are jobs or not."
)
def up(names: tuple[str, ...], port: int, folder: Path | None, nats_url: str | None, no_scaler: bool) -> None:
    """Run the whole system on this machine: broker, registry and a scaler, which starts workers as jobs come.

    Without --model, all models that come with Headrace and whose weights are installed. Ctrl-C stops it; what is
    queued runs after the next start.
    """
    try:
        models = [find_model(name) for name in names] if names else _installed_models()
        settings = load_settings()
        if nats_url:
            settings = msgspec.structs.replace(settings, nats=msgspec.structs.replace(settings.nats, url=nats_url))
        system = LocalSystem(
            models,
            (folder or data_folder(os.environ)).expanduser().absolute(),
            settings,
            port=port,
            own_server=not nats_url,
            scaled=not no_scaler,
            on_event=lambda event: _say(describe(event)) if is_news(event) else None,
        )
        run_until_signal(
            stay_up(system, models, _say),
            on_stop=lambda: _say("Stopping: running jobs get up to 25 s (Ctrl-C again: stop at once) ..."),
            on_second=system.hurry,
        )
        _say("Stopped.")
    except HeadraceError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Keep queue, results and logs in this folder.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for the picture that is drawn.",
)
@click.pass_context
def demo(context: click.Context, folder: Path | None, out: Path) -> None:
    """Draw a picture, write down speech and answer a question: three real models, through the whole system, each from
    nothing and then warm.

    Exits with 0 if all jobs succeeded.
    """
    from headrace_local.demo import MODELS, of_the_demo, run_demo  # the SDK and rich: `up` needs neither
    from headrace_local.demo_view import DemoView

    view = DemoView()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
        try:
            system = LocalSystem(
                [find_model(name) for name in MODELS],
                folder.expanduser().absolute(),
                load_settings(),
                port=RANDOM_PORT,
                on_event=lambda event: view.since_start(describe(event)) if of_the_demo(event) else None,
            )
            succeeded = run_until_signal(
                run_demo(system, out, view), on_stop=lambda: view.say("Stopping ..."), on_second=system.hurry
            )
        except HeadraceError as error:
            raise click.ClickException(str(error)) from error
    context.exit(0 if succeeded else 1)


def _installed_models() -> list[ModelSpec]:
    """The bundled models that can run here; says what the others lack.

    Raises:
        ModelUnavailableError: none can run.
    """
    found, last = [], None
    for spec in bundled_models():
        try:
            check_installed(spec)
        except ModelUnavailableError as error:
            _say(f"Without {spec.name}: {error}")
            last = error
        else:
            found.append(spec)
    if not found and last is not None:
        raise last
    return found
