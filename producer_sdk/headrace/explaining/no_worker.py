"""No worker of the model is there: is one coming, and if not, why not. Pure."""

from collections import Counter

from headrace.durations import duration
from headrace.explaining.facts import Explanation, Facts
from headrace.job_status import JobState
from headrace_contracts.alert import ScalingDecision


def no_worker(facts: Facts) -> Explanation:
    """The first reason that applies, from what the operator decided down to what the scaler does now."""
    assert facts.spec is not None
    none = f"No worker of {facts.model} takes jobs, and none is coming: "
    if facts.leader is None:
        return _said(
            f"{none}no scaler runs, so nobody starts one.",
            advice=f"start the scaler, `headrace scaler`, or a worker by hand, `headrace worker --model {facts.model}`",
        )
    if facts.spec.scaling.max_workers == 0:
        return _said(
            f"{none}`max_workers` of the model is 0.",
            advice=f"`headrace scale {facts.model} max=1` allows one worker",
        )
    decision = facts.decision
    if decision is None:
        return _said(
            f"No worker of {facts.model} takes jobs, and scaler {facts.leader} has decided nothing for it yet."
        )
    if decision.blocked:
        return _blocked(facts, decision, none)
    if decision.target > 0:
        ago = duration(max(0.0, (facts.now - decision.at).total_seconds()))
        wanted = f"{decision.target} worker{'' if decision.target == 1 else 's'}"
        return _said(f"Scaler {facts.leader} wants {wanted} since {ago}, and none has spoken yet: {decision.reason}.")
    return _said(
        f"No worker of {facts.model} takes jobs, and scaler {facts.leader} wants none: {decision.reason} "
        f"(at {decision.at:%H:%M:%S} UTC).",
        advice=f"if that does not change in some seconds, see the log of {facts.leader}",
    )


def _blocked(facts: Facts, decision: ScalingDecision, none: str) -> Explanation:
    match decision.blocked:
        case "crash_loop" | "backoff":
            return _said(
                f"No worker of {facts.model} takes jobs, since its workers fail to start: {decision.reason}.",
                advice="mend what the reason names; the worker's log has its last words",
            )
        case "never_fits":
            return _said(
                f"{none}it needs more than any slot has: {decision.reason}.",
                advice="ask for less in `[resources]` of the model's file, or give the scaler a larger machine",
            )
        case "no_slot":
            return _said(
                f"{none}every slot is taken: {decision.reason}.", _who_has_the_slots(facts), advice=_make_room(facts)
            )
        case other:
            return _said(f"{none}{decision.reason} [{other}].")


def _tenants_of_slots(facts: Facts) -> Counter[tuple[str, str]]:
    """Workers by slot and model. Only those that the scaler placed say their slot."""
    return Counter((w.slot, e.model) for w in facts.workers for e in w.engines if w.slot)


def _who_has_the_slots(facts: Facts) -> str:
    taken = _tenants_of_slots(facts)
    if not taken:
        return "No worker there says that it has one: other programs do, or workers that have not spoken yet."
    parts = ", ".join(f"{slot}: {model} ({count})" for (slot, model), count in sorted(taken.items()))
    return f"They have them: {parts}."


def _make_room(facts: Facts) -> str:
    others: Counter[str] = Counter()
    for (_, model), count in _tenants_of_slots(facts).items():
        others[model] += count
    if not others:
        return ""
    model, count = others.most_common(1)[0]
    return (
        f"`headrace scale {facts.model} priority=1` gives it slots of idle workers first; "
        f"`headrace scale {model} min=0 max={count - 1}` takes one from {model}"
    )


def _said(*sentences: str, advice: str = "") -> Explanation:
    return Explanation(JobState.QUEUED, sentences, advice)
