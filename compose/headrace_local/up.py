"""`headrace up`: the whole system in the foreground, until Ctrl-C."""

from collections.abc import Callable

from headrace_contracts.alert import Alert, ScalingDecision, WorkerColdStart
from headrace_contracts.heartbeat import EngineStatus
from headrace_contracts.model import ModelSpec
from headrace_contracts.settings import NatsSettings
from headrace_local.examples import cli_example, nats_examples
from headrace_local.keeper import Ended
from headrace_local.system import Event, LocalSystem

Say = Callable[[str], None]

# An engine's last words may be a page; the log has all of them.
MAX_NOTE_CHARS = 300


def is_news(event: Event) -> bool:
    """Whether people want to hear of it: not that nothing is wanted and nothing done."""
    if isinstance(event, ScalingDecision):
        return bool(event.started or event.draining or event.stopped or event.blocked)
    return True


def describe(event: Event) -> str:
    """One line for people."""
    match event:
        case ScalingDecision():
            return f"{event.model:<18} {_decision(event)}"
        case WorkerColdStart(model=model, ready_s=ready_s, phases=phases):
            if phases.first_result_s:
                return f"{model:<18} first result {phases.first_result_s:.2f} s later"
            return f"{model:<18} worker ready {ready_s:.2f} s after the job that asked for it"
        case Alert(model=model, alert=alert, state=state, reason=reason):
            return f"{model:<18} alert {alert} {state}: {reason}"
        case EngineStatus(model=model, state=state, detail=detail):
            note = _one_line(detail)
            return f"{model:<18} {state}" + (f": {note}" if note not in ("", state) else "")
        case Ended(name=name, how=how, pace=pace):
            again = f"starting it again in {pace.delay_s:g} s"
            loop = f" ({pace.early_ends} early ends in a row: look into its log)" if pace.looping else ""
            return f"{name} ended ({how}); {again}{loop}"


def _decision(decision: ScalingDecision) -> str:
    """What was done, or what keeps it from being done."""
    done = [f"{decision.started} starting"] if decision.started else []
    done += [f"{len(decision.draining)} stopping"] if decision.draining else []
    done += [f"blocked ({decision.blocked})"] if decision.blocked else []
    return f"workers wanted: {decision.target}{''.join(f', {what}' for what in done)}: {_one_line(decision.reason)}"


def _one_line(text: str) -> str:
    """What a terminal would show last of text that overwrites itself (progress bars), without control characters."""
    last = text.rstrip().rpartition("\r")[2]
    return "".join(c if c.isprintable() else " " for c in last)[:MAX_NOTE_CHARS].strip()


async def stay_up(system: LocalSystem, models: list[ModelSpec], say: Say) -> None:
    """Start everything, say how to use it, and stay until canceled."""
    async with system:
        url = system.settings.nats.url
        say(f"Headrace runs at {url}")
        logs = "workers/logs, workers/scaler.log" if system.scaled else "worker.log"
        say(f"folder             {system.folder} (queue and results; logs: {logs}, nats/nats.log)")
        if system.settings.nats.monitor_url:
            say(f"NATS_MONITOR_URL   {system.settings.nats.monitor_url} (for `headrace doctor`)")
        if system.scaled:
            say(f"workers            none yet: jobs start them, and they stop without any ({', '.join(names(models))})")
        unhealthy = await system.wait_settled()
        healthy = [spec for spec in models if spec.name not in {engine.model for engine in unhealthy}]
        for line in usage(healthy, url):
            say(line)
        if memory_bytes := await system.wait_warm():
            say(
                f"Warm: workers start in a moment from now on ({memory_bytes >> 20} MiB; [scaler] zygote = false: none)"
            )
        await system.stay()


def names(models: list[ModelSpec]) -> list[str]:
    """Of the models."""
    return [spec.name for spec in models]


def usage(models: list[ModelSpec], url: str) -> list[str]:
    """How to send a first job."""
    if not models:
        return []
    lines = ["", "Try, in another terminal:"]
    if url != NatsSettings().url:
        lines.append(f"  export NATS_URL={url}")
    lines += [f"  {cli_example(spec)}" for spec in models]
    lines += ["Or with any NATS client, as with the `nats` command (the reply is the receipt):"]
    lines += [f"  {line}" for line in nats_examples(models[0])]
    return [*lines, "", "Ctrl-C stops it. What is queued is kept and runs after the next `headrace up`."]
