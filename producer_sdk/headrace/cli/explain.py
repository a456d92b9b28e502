"""`headrace explain`: why a job still waits, or where its milliseconds went."""

import click
import msgspec

from headrace.cli.failures import FAILED
from headrace.cli.output import show_json
from headrace.cli.session import with_client
from headrace.client import Client
from headrace.durations import duration
from headrace.explaining import Bar, Explanation, collect, explain
from headrace.job_status import JobState
from headrace_contracts.clock import SystemClock

BAR_CELLS = 40


@click.command("explain")
@click.argument("job_id")
@click.option("--tenant", help="Whose job it is; else that of the settings.")
@click.option("--model", help="The job's model; spares looking for it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def explain_(ctx: click.Context, job_id: str, tenant: str | None, model: str | None, as_json: bool) -> None:
    """Say why a job still waits, who runs it, or where its time went, and what to do.

    Exit code 0: it is explained, 1: there is no such job.
    """

    async def call(client: Client) -> Explanation:
        facts = await collect(client.connection, SystemClock(), tenant or client.settings.tenant, job_id, model)
        return explain(facts)

    explanation = with_client(call)
    if as_json:
        show_json(msgspec.to_builtins(explanation))
    else:
        _show(job_id, explanation)
    ctx.exit(FAILED if explanation.state is JobState.UNKNOWN else 0)


def _show(job_id: str, explanation: Explanation) -> None:
    click.echo(f"{job_id} {explanation.state}")
    for sentence in explanation.sentences:
        click.echo(f"  {sentence}")
    for line in bar_lines(explanation.bars):
        click.echo(f"  {line}")
    if explanation.advice:
        click.echo(f"  To do: {explanation.advice}.")


def bar_lines(bars: tuple[Bar, ...]) -> list[str]:
    """A line for each phase: name, bar, time, share. A phase that took any time has at least one cell."""
    width = max((len(bar.phase) for bar in bars), default=0)
    lines = []
    for bar in bars:
        cells = max(round(bar.share * BAR_CELLS), 1 if bar.took_s > 0 else 0)
        drawn = ("#" * cells).ljust(BAR_CELLS, ".")
        lines.append(f"{bar.phase:<{width}} {drawn} {duration(bar.took_s):>10} {bar.share:>5.0%}")
    return lines
