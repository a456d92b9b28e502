"""The checker: pure functions from the evidence of a run to verdicts. Asks the system nothing."""

from collections.abc import Iterator

from headrace_loadgen.check import artifacts, execution, results, surroundings
from headrace_loadgen.check.history import History
from headrace_loadgen.check.verdict import Finding, Verdict, Violation
from headrace_loadgen.evidence import Evidence

__all__ = ["Verdict", "Violation", "check"]


def check(evidence: Evidence) -> list[Verdict]:
    """A verdict for every invariant, but those the plan sets aside."""
    history, final = History.of(evidence), evidence.final
    findings: dict[str, tuple[str | None, Iterator[Finding]]] = {}

    def ask(name: str, sentence: str | None, found: Iterator[Finding]) -> None:
        findings[name] = (sentence, found)

    r, a, x, s = results, artifacts, execution, surroundings
    ask("conservation", r.conservation.__doc__, r.conservation(history))
    ask("drained", s.drained.__doc__, s.drained(final))
    ask("final", r.rewritten.__doc__, r.rewritten(evidence.seen, evidence.results))
    ask("nothing replaced", s.nothing_replaced.__doc__, s.nothing_replaced(final.results_state))
    ask("no strangers", r.strangers.__doc__, r.strangers(history))
    ask("readable", r.readable.__doc__, r.readable(history))
    ask("truth", r.truth.__doc__, r.truth(history))
    ask("innocents succeed", r.innocents_succeed.__doc__, r.innocents_succeed(history))
    ask("client view", r.client_view.__doc__, r.client_view(history))
    ask("backlog is whole", r.backlog_is_whole.__doc__, r.backlog_is_whole(history))
    ask("artifacts whole", a.whole.__doc__, a.whole(history, final.blobs))
    ask("one winner", a.one_winner.__doc__, a.one_winner(history, final.blobs))
    ask("mutual exclusion", x.mutual_exclusion.__doc__, x.mutual_exclusion(history))
    ask("no start after the end", x.no_start_after_end.__doc__, x.no_start_after_end(history))
    ask("expiry", x.expiry.__doc__, x.expiry(history))
    ask("poison capped", x.poison_capped.__doc__, x.poison_capped(history))
    ask("outages cost no attempt", x.outages_cost_no_attempt.__doc__, x.outages_cost_no_attempt(history))
    ask("outages are waited out", x.outages_are_waited_out.__doc__, x.outages_are_waited_out(history))
    ask("workers flat", s.workers_flat.__doc__, s.workers_flat(evidence.samples))
    ask("workers end well", s.workers_end_well.__doc__, s.workers_end_well(final))
    ask("faults happened", s.faults_happened.__doc__, s.faults_happened(history))
    return [
        _verdict(name, sentence or "", found)
        for name, (sentence, found) in findings.items()
        if name not in evidence.plan.ignores
    ]


def _verdict(name: str, sentence: str, found: Iterator[Finding]) -> Verdict:
    everything = list(found)
    return Verdict(name, sentence.strip(), len(everything), tuple(v for v in everything if v is not None))
