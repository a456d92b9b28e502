"""The `headrace` command: finds the commands of every installed component and turns errors into one line each.

Exit codes: 0 done, 1 the job did not succeed, 2 the request is wrong, 3 try again later (no broker or blob store,
a full queue, no result yet), 130 interrupted.
"""

import io
import logging
import sys

import click

from headrace.cli.commands import CommandGroup
from headrace.cli.failures import INTERRUPTED, exit_code_of, sentence_of
from headrace_contracts.errors import HeadraceError


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace", message="headrace %(version)s")
def root() -> None:
    """Run models on workers behind NATS: submit jobs, follow them, fetch what they made.

    The broker is found by NATS_URL (or NATS_CONTEXT, or headrace.toml); default nats://127.0.0.1:4222.
    """


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    # Over TLS it warns, on every connection, of something that only its authors can change.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Unicode shows `?`, rather than ending a job's output with an error.
            stream.reconfigure(errors="replace")
    try:
        code = root.main(arguments, prog_name="headrace", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except HeadraceError as error:
        click.echo(f"error: {sentence_of(error)}", err=True)
        return exit_code_of(error)
    except OSError as error:
        # A folder that cannot be written, a full disk.
        click.echo(f"error: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0
