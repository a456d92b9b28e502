"""How the command line finds commands, and what it does without their libraries."""

from importlib.metadata import EntryPoint

import click
import pytest
from click.testing import CliRunner

from headrace.cli import commands, root
from headrace.cli.progress import BarDisplay
from headrace_contracts.clock import SystemClock
from headrace_contracts.event import Progress, Started


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands whose component is not installed, one of them below a group."""
    found = [
        EntryPoint("models", "headrace.cli.models:models", commands.GROUP),
        EntryPoint("work", "headrace_workers.nowhere:work", commands.GROUP),
        EntryPoint("models.tow", "headrace_local.nowhere:tow", commands.GROUP),
    ]
    monkeypatch.setattr(commands, "entry_points", lambda group: found)
    commands._below.cache_clear()
    yield
    commands._below.cache_clear()


@pytest.mark.usefixtures("entries")
def test_a_command_without_its_libraries_names_the_extra() -> None:
    asked = CliRunner().invoke(root, ["work", "--model", "draw"])
    assert asked.exit_code == 1
    assert "needs headrace_workers.nowhere, which is not installed: pip install 'headrace[worker]'" in asked.output
    nested = CliRunner().invoke(root, ["models", "tow", "x"])
    assert "pip install 'headrace[local]'" in nested.output


@pytest.mark.usefixtures("entries")
def test_help_lists_all_commands_and_what_is_missing() -> None:
    top = CliRunner().invoke(root, ["--help"]).output
    assert "models" in top
    assert "work" in top
    assert "(pip install 'headrace[worker]')" in top
    assert "models.tow" not in top
    below = CliRunner().invoke(root, ["models", "--help"]).output
    for name in ("add", "list", "rm", "show", "tow"):
        assert name in below


def test_every_declared_command_of_this_package_can_be_loaded() -> None:
    ctx = click.Context(root)
    names = root.list_commands(ctx)
    assert {"cancel", "models", "result", "run", "status", "submit", "watch"} <= set(names)
    for name in ("cancel", "models", "result", "run", "status", "submit", "watch"):
        command = root.get_command(ctx, name)
        assert command is not None
        assert command.help
        assert "not installed" not in command.help


def test_version() -> None:
    assert CliRunner().invoke(root, ["--version"]).output.startswith("headrace 0.")


def test_the_bar_follows_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    now = SystemClock().now()
    with BarDisplay("draw") as bar:
        bar.show(Started("j", now, 1, "w1"))
        bar.show(Progress("j", now, 1, 3, 4))
        assert bar._bar.tasks[0].percentage == 75
        bar.show(Started("j", now, 2, "w2"))
        assert bar._bar.tasks[0].completed == 0
