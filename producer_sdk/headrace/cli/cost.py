"""`headrace cost`: where the time of workers went, and the money."""

import click

from headrace.cli.cost_lines import HEADINGS, By, lines_by, notes_on, total_of
from headrace.cli.output import show_json, show_table
from headrace.cli.session import with_client
from headrace.cli.since import moment
from headrace.client import Client
from headrace_contracts.clock import SystemClock
from headrace_contracts.cost import HourAccount
from headrace_storage.accounts import list_accounts
from headrace_storage.topology import ACCOUNTS_KEPT_S


@click.command()
@click.option("--since", "since_text", default="24h", show_default=True, help="90m, 24h, 7d, 2w, or a date (UTC).")
@click.option(
    "--by", type=click.Choice([by.value for by in By]), default="model", show_default=True, help="What to add up by."
)
@click.option("--model", help="Only of this model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cost(since_text: str, by: str, model: str | None, as_json: bool) -> None:
    """Say where the time of workers went: busy, idle, starting; what it cost, and what a success cost.

    Workers tell every 10 s. Prices are yours: `headrace plan` has some of others to compare with.
    """
    now = SystemClock().now()
    since = moment(since_text, now)

    async def call(client: Client) -> tuple[list[HourAccount], frozenset[str]]:
        accounts = await list_accounts(client.connection, since)
        alive = frozenset(worker.id for worker in await client.workers())
        return [account for account in accounts if model in (None, account.model)], alive

    accounts, alive = with_client(call)
    lines, notes = lines_by(accounts, By(by)), notes_on(accounts, alive, since, now, ACCOUNTS_KEPT_S)
    if as_json:
        total = total_of(lines).as_json()
        show_json(
            {"since": since, "by": by, "lines": [line.as_json() for line in lines], "total": total, "notes": notes}
        )
        return
    if not lines:
        click.echo(f"no worker has told of its time since {since:%Y-%m-%d %H:%M} UTC", err=True)
        return
    rows = [line.cells() for line in (*lines, total_of(lines))]
    show_table((by.upper(), *HEADINGS), rows)
    for note in notes:
        click.echo(note, err=True)
