"""The checker: pure functions from the evidence of a run to verdicts. Asks the system nothing."""

from headrace_loadgen.check import artifacts, execution, results, surroundings
from headrace_loadgen.check.history import History
from headrace_loadgen.check.verdict import Invariant, Verdict, Violation
from headrace_loadgen.evidence import Evidence

__all__ = ["INVARIANTS", "Verdict", "Violation", "check"]

INVARIANTS: dict[str, Invariant] = {
    "conservation": results.conservation,
    "drained": surroundings.drained,
    "final": results.rewritten,
    "nothing replaced": surroundings.nothing_replaced,
    "no strangers": results.strangers,
    "readable": results.readable,
    "truth": results.truth,
    "innocents succeed": results.innocents_succeed,
    "client view": results.client_view,
    "backlog is whole": results.backlog_is_whole,
    "artifacts whole": artifacts.whole,
    "one winner": artifacts.one_winner,
    "mutual exclusion": execution.mutual_exclusion,
    "no start after the end": execution.no_start_after_end,
    "expiry": execution.expiry,
    "poison capped": execution.poison_capped,
    "outages cost no attempt": execution.outages_cost_no_attempt,
    "outages are waited out": execution.outages_are_waited_out,
    "workers flat": surroundings.workers_flat,
    "workers end well": surroundings.workers_end_well,
    "faults happened": surroundings.faults_happened,
}
"""What must hold, by the names that reports use."""


def check(evidence: Evidence) -> list[Verdict]:
    """A verdict for every invariant."""
    history = History.of(evidence)
    return [_verdict(name, invariant, history) for name, invariant in INVARIANTS.items()]


def _verdict(name: str, invariant: Invariant, history: History) -> Verdict:
    found = list(invariant(history))
    violations = tuple(finding for finding in found if finding is not None)
    return Verdict(name, (invariant.__doc__ or "").strip(), len(found), violations)
