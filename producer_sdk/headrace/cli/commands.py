"""Commands by entry point: each component brings its own, and none is imported before it is run or listed.

An entry point of the group `headrace.commands` is one command; a dot in its name puts it below a group, as in
`models.pull`. A command whose libraries are not installed says which extra brings them.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

import click

GROUP = "headrace.commands"

# The component of a command, and the extra that brings its libraries.
_EXTRAS = {"headrace_workers": "worker", "headrace_scaler": "scaler", "headrace_local": "local"}


class CommandGroup(click.Group):
    """A group of its own commands and of those that entry points put below its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        return sorted({*super().list_commands(ctx), *_below(_place(ctx))})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of this name, or one that says what is missing."""
        own = super().get_command(ctx, name)
        if own is not None:
            return own
        entry = _below(_place(ctx)).get(name)
        return None if entry is None else _load(name, entry)


def _place(ctx: click.Context) -> str:
    """The prefix of entry points below this group: empty for the root, `models.` for `headrace models`."""
    names = []
    at: click.Context | None = ctx
    while at is not None and at.parent is not None:
        names.append(str(at.info_name))
        at = at.parent
    return "".join(f"{name}." for name in reversed(names))


@cache
def _below(place: str) -> dict[str, EntryPoint]:
    """Entry points right below a group, by the last part of their names."""
    found = {
        entry.name.removeprefix(place): entry for entry in entry_points(group=GROUP) if entry.name.startswith(place)
    }
    return {name: entry for name, entry in found.items() if "." not in name}


def _load(name: str, entry: EntryPoint) -> click.Command:
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        return _missing(name, entry.module.partition(".")[0], error.name or "a library")
    assert isinstance(loaded, click.Command), f"entry point {entry.name} is no command"
    return loaded


def _missing(name: str, component: str, library: str) -> click.Command:
    """A stand-in that explains itself."""
    extra = _EXTRAS.get(component, "all")
    wanted = f"needs {library}, which is not installed: pip install 'headrace[{extra}]'"

    def refuse() -> None:
        raise click.ClickException(f"`headrace {name}` {wanted}")

    return click.Command(
        name,
        callback=refuse,
        help=f"({wanted})",
        short_help=f"(pip install 'headrace[{extra}]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
