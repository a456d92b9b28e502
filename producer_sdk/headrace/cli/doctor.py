"""`headrace doctor`: is the broker safe and ready, and what to do if not."""

import click
import msgspec

from headrace.cli.failures import FAILED
from headrace.cli.output import show_json, show_table
from headrace.cli.session import with_client
from headrace.client import Client
from headrace_contracts.clock import SystemClock
from headrace_storage.doctor import Finding, Level, examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the broker and the object store, and say what to do about what is wrong.

    It stores nothing but a file of 16 bytes, which it removes. Exit code 0: nothing fails (there may be warnings), 1:
    something does, 3: no broker.
    """

    async def call(client: Client) -> list[Finding]:
        return await examine(client.connection, client.settings, SystemClock())

    findings = with_client(call)
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        show_table(("CHECK", "STATE", "FOUND", "WHAT TO DO"), [(f.check, f.level, f.found, f.advice) for f in findings])
    ctx.exit(FAILED if any(finding.level is Level.FAIL for finding in findings) else 0)
