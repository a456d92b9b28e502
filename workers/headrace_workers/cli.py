"""`headrace worker`: one worker process in the foreground."""

import asyncio
import signal

import click

from headrace_contracts.clock import SystemClock
from headrace_contracts.settings import load_settings
from headrace_telemetry.job_lines import JobLines
from headrace_telemetry.logs import configure_logs
from headrace_workers.process_age import process_age_s
from headrace_workers.worker import GRACE_S, Worker


@click.command()
@click.option(
    "--model", "models", multiple=True, required=True, help="A model of the registry to serve; repeat for several."
)
@click.option(
    "--grace-s", default=GRACE_S, show_default=True, help="Seconds that running jobs may go on after SIGTERM."
)
@click.option(
    "--id", "name", help="Name in the list of workers; whoever starts the worker knows it by it.  [default: made up]"
)
@click.option("--slot", default="", help="Where the worker was put, for that list.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
@click.option(
    "--allow-unsafe-broker",
    is_flag=True,
    envvar="HEADRACE_ALLOW_UNSAFE_BROKER",
    help="Work on a broker that could lose or drop accepted jobs.",
)
def worker(
    models: tuple[str, ...], grace_s: float, name: str | None, slot: str, log_level: str, allow_unsafe_broker: bool
) -> None:
    """Run jobs of some models until SIGTERM or Ctrl-C; then finish what runs, give back the rest, and exit 0.

    The broker and the blob store are found as by every other command: NATS_URL, S3_ENDPOINT_URL, headrace.toml.
    """
    lines = JobLines()
    configure_logs(log_level, component="worker", lines=lines)
    serving = Worker(
        load_settings(),
        models,
        SystemClock(),
        grace_s,
        allow_unsafe_broker=allow_unsafe_broker,
        name=name,
        slot=slot,
        age_s=process_age_s(),
        lines=lines,
    )
    asyncio.run(_serve(serving))


async def _serve(serving: Worker) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.stop)
    await serving.run()
