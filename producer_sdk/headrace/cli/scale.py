"""`headrace scale`: how many workers a model may have, looked at and changed while everything runs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import click
import msgspec

from headrace.cli.output import show_json, show_table
from headrace.cli.overview import workers_state
from headrace.cli.session import with_client
from headrace.client import Client
from headrace.scaling_change import parse_changes, setting_rows, with_changes
from headrace.worker_phase import engines_of, phase_of
from headrace_contracts.alert import ScalingDecision
from headrace_contracts.heartbeat import WorkerStatus
from headrace_contracts.scaling import Scaling
from headrace_storage.alert_history import decisions_of, hearing_decisions
from headrace_storage.alerts import last_decision
from headrace_storage.leadership import LeaseName, leader_of
from headrace_storage.registry import get_model, update_model

# A scaler decides once a second; the rest is for a busy machine.
DECISION_WITHIN_S = 5.0

NO_SCALER = "no scaler runs: workers start and stop by themselves once `headrace scaler` or `headrace up` does"


ShowChange = Callable[[Scaling, Scaling], None]


class Outcome(msgspec.Struct, frozen=True):
    """What a change did."""

    before: Scaling
    after: Scaling
    leader: str | None
    decision: ScalingDecision | None
    """The newest."""
    followed: bool
    """That decision came after the change."""


@click.command()
@click.argument("model", required=False)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=DECISION_WITHIN_S,
    show_default=True,
    help="How long to wait for what the scaler makes of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def scale(model: str | None, changes: tuple[str, ...], wait_s: float, as_json: bool) -> None:
    """Show or change how many workers a model may have; nothing is restarted.

    headrace scale draw min=1 max=4 sets two bounds; min, max and buffer are short for min_workers, max_workers and
    buffer_workers, and every other setting goes by its own name. Without settings they are shown, with the workers
    there are; without a model, those of all models.
    """
    if model is None:
        with_client(lambda client: _show_all(client, as_json))
    elif not changes:
        with_client(lambda client: _show_model(client, model, as_json))
    else:
        wanted = parse_changes(changes)
        show_change = _show_nothing if as_json else _show_change
        outcome = with_client(lambda client: _change(client, model, wanted, wait_s, show_change))
        if as_json:
            show_json(msgspec.to_builtins(outcome))
        else:
            _show_what_followed(model, outcome)


async def _change(
    client: Client, model: str, changes: Mapping[str, int | float], wait_s: float, show_change: ShowChange
) -> Outcome:
    connection = client.connection
    await get_model(connection, model)  # its name is part of a subject below
    async with hearing_decisions(connection, model) as heard:
        before, after = await update_model(connection, model, lambda spec: with_changes(spec, changes))
        show_change(before.scaling, after.scaling)
        while not heard.empty():  # made before the change was there
            heard.get_nowait()
        leader = await leader_of(connection, LeaseName.SCALER)
        decision = None
        if leader is not None and before != after:
            try:
                async with asyncio.timeout(wait_s):
                    decision = await heard.get()
            except TimeoutError:
                pass
    followed = decision is not None
    return Outcome(before.scaling, after.scaling, leader, decision or await last_decision(connection, model), followed)


def _show_nothing(before: Scaling, after: Scaling) -> None:
    """What is shown at once where everything is shown at the end."""


def _show_change(before: Scaling, after: Scaling) -> None:
    if before != after:
        show_table(("SETTING", "BEFORE", "AFTER"), setting_rows(before, after))


def _show_what_followed(model: str, outcome: Outcome) -> None:
    if outcome.before == outcome.after:
        click.echo(f"nothing was changed: {model} has these settings already", err=True)
    elif outcome.leader is None:
        click.echo(NO_SCALER, err=True)
    elif outcome.decision is None:
        click.echo(f"scaler {outcome.leader} has decided nothing for {model} yet", err=True)
    else:
        stays = "" if outcome.followed else "nothing new; as before: "
        click.echo(f"scaler {outcome.leader}: {stays}{decided(outcome.decision)}")


def decided(decision: ScalingDecision) -> str:
    """A decision in one line."""
    blocked = f" [{decision.blocked}]" if decision.blocked else ""
    return f"{decision.workers} workers -> {decision.target}: {decision.reason}{blocked}"


async def _show_model(client: Client, model: str, as_json: bool) -> None:
    spec = await get_model(client.connection, model)
    workers = [w for w in await client.workers() if any(engine.model == model for engine in w.engines)]
    leader = await leader_of(client.connection, LeaseName.SCALER)
    decision = await last_decision(client.connection, model)
    if as_json:
        scaling = msgspec.structs.asdict(spec.scaling)
        show_json({"scaling": scaling, "workers": workers, "leader": leader, "decision": decision})
        return
    show_table(("SETTING", "VALUE"), setting_rows(spec.scaling), "Scaling")
    show_table(("WORKER", "SLOT", "PHASE", "RUNNING", "HELD", "DETAIL"), _worker_rows(model, workers), "Workers")
    if leader is None:
        click.echo(NO_SCALER, err=True)
    elif decision is not None:
        click.echo(f"scaler {leader}: {decided(decision)}")


async def _show_all(client: Client, as_json: bool) -> None:
    specs, workers = await client.models(), await client.workers()
    decisions = await decisions_of(client.connection, [spec.name for spec in specs])
    if as_json:
        show_json({spec.name: {"scaling": spec.scaling, "decision": decisions.get(spec.name)} for spec in specs})
        return
    rows = []
    for spec in specs:
        bounds = (spec.scaling.min_workers, spec.scaling.max_workers, spec.scaling.buffer_workers)
        target = str(decisions[spec.name].target) if spec.name in decisions else "-"
        rows.append((spec.name, *map(str, bounds), workers_state(spec.name, workers), target))
    show_table(("MODEL", "MIN", "MAX", "BUFFER", "WORKERS", "TARGET"), rows)


def _worker_rows(model: str, workers: Sequence[WorkerStatus]) -> list[tuple[str, ...]]:
    return [
        (
            worker.id,
            worker.slot or "-",
            phase_of(worker, engine),
            str(len(engine.running)),
            str(engine.held),
            engine.detail,
        )
        for worker, engine in engines_of(model, workers)
    ]
