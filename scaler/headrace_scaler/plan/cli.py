"""`headrace plan`: what a load would cost, without a broker."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec

from headrace_scaler.plan import prices as list_prices
from headrace_scaler.plan.find import changed, find
from headrace_scaler.plan.forecast import SEED, Forecast, forecast
from headrace_scaler.plan.prices import compare, price_of, read_prices
from headrace_scaler.plan.report import comparison_rows, lines_of, sources
from headrace_scaler.plan.workload import Workload, built_in, load_workload, text_of

TRIES = 24
HEADINGS = ("PROVIDER", "GPU", "PRICE", "A MONTH IS", "COST", "AS OF")
CAVEAT = (
    "Prices change, and none of these is an offer: --prices FILE takes another table, --price-per-h what your worker "
    "costs. Staff, broker, storage and traffic are in none of them."
)


@click.command()
@click.argument("load", required=False)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key, as in scaling.max_workers=4.")
@click.option("--price-per-h", type=click.FloatRange(min=0, min_open=True), help="What an hour of a worker costs you.")
@click.option(
    "--prices", "prices_file", type=click.Path(path_type=Path), default=list_prices.PRICES, help="Others' prices."
)
@click.option("--find", "finds", is_flag=True, help="Try other scaling settings for the cheapest that hold.")
@click.option("--tries", default=TRIES, show_default=True, type=click.IntRange(min=2), help="Simulations of --find.")
@click.option("--seed", default=SEED, show_default=True, help="Of the moments of arrival and the service times.")
@click.option("--show", "shows", is_flag=True, help="Print the load's TOML, to begin one of your own with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    load: str | None,
    changes: tuple[str, ...],
    price_per_h: float | None,
    prices_file: Path,
    finds: bool,
    tries: int,
    seed: int,
    shows: bool,
    as_json: bool,
) -> None:
    """Simulate a month of a load under the scaling policy: workers, waits, cost, and what it is at others' list prices.

    LOAD is a built-in one (audio, chat, sdxl) or a TOML file.
    """
    if load is None:
        raise click.UsageError(f"name a load: {', '.join(built_in())}, or a TOML file (`--show` prints one)")
    if shows:
        click.echo(text_of(load), nl=False)
        return
    own = (f"price_per_h={price_per_h!r}",) if price_per_h else ()
    workload, prices = load_workload(load, (*changes, *own)), read_prices(prices_file)
    per_s, price = price_of(workload, prices)

    def run(one: Workload) -> Forecast:
        return forecast(one, per_s, seed)

    tried, planned = find(workload, _telling(run), tries) if finds else ([], run(workload))
    comparisons = compare(workload, planned, prices)
    if as_json:
        _print_json(planned, tried, [msgspec.to_builtins(one) for one in comparisons])
        return
    for line in lines_of(workload, planned, price):
        click.echo(line)
    if finds:
        _print_found(workload, tried, planned)
    click.echo("")
    _print_table(HEADINGS, comparison_rows(comparisons))
    for line in (*sources(comparisons), CAVEAT):
        click.echo(line, err=True)


def _telling(run: Callable[[Workload], Forecast]) -> Callable[[Workload], Forecast]:
    """Says what comes out of each try: some take seconds."""

    def told(workload: Workload) -> Forecast:
        planned = run(workload)
        holds = "holds" if planned.holds else "does not hold"
        click.echo(f"tried: ${planned.cost:,.2f} a month, p95 wait {planned.p95_wait_s:.1f} s, {holds}", err=True)
        return planned

    return told


def _print_found(workload: Workload, tried: list[Forecast], best: Forecast) -> None:
    first = tried[0]
    holding = sum(one.holds for one in tried)
    click.echo(f"found        {holding} of {len(tried)} settings hold; as given: ${first.cost:,.2f} a month")
    for line in changed(best.scaling, workload.scaling):
        click.echo(f"             {line}")


def _print_json(planned: Forecast, tried: list[Forecast], comparisons: list[object]) -> None:
    found = {**_numbers(planned), "tried": [_numbers(one) for one in tried], "comparisons": comparisons}
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def _numbers(one: Forecast) -> dict[str, object]:
    derived = {name: getattr(one, name) for name in ("utilization", "cost", "cost_per_job", "holds")}
    return {**msgspec.to_builtins(one), **derived}


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Drawn on a terminal, tab-separated elsewhere, as all tables of the command line."""
    if not sys.stdout.isatty():
        for row in (headings, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
