"""Every scenario ends with every promise kept, and its faults really happened."""

from collections import Counter
from pathlib import Path

import pytest
from kill_points import PLACES
from scenarios import CANCEL_RACES, SCENARIOS
from stage import Judged, play

from headrace_contracts.errors import ErrorCode
from headrace_loadgen.check.history import History
from headrace_loadgen.records import CancelAnswered, FaultKind, NotAccepted

pytestmark = pytest.mark.slow

F = FaultKind
# What must be in the fault log of a scenario; a scenario that breaks nothing has none.
FAULTS: dict[str, list[FaultKind]] = {
    "kill everywhere": [F.WORKER_KILL] * len(PLACES),
    "freeze past the lease": [F.WORKER_STOP],
    "zombie gives back": [F.WORKER_STOP, F.WORKER_TERM],
    "store is away": [F.STORE_OUTAGE],
    "drain under load": [F.WORKER_TERM, F.WORKER_TERM],
    "engine is killed": [F.ENGINE_KILL],
    "engine is frozen": [F.ENGINE_STOP],
    "broker is killed": [F.BROKER_KILL, F.BROKER_KILL],
    "broker is frozen": [F.BROKER_STOP],
    "leader is killed": [F.LEADER_KILL],
    "wires break": [F.LINK_RESET, F.LINK_SILENT, F.LINK_RESET, F.LINK_SLOW],
    "store misbehaves": [F.STORE_ERRORS, F.STORE_LOST_ANSWERS, F.STORE_KILL],
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_every_promise_is_kept(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    judged = await play(tmp_path, scenario.setting, scenario.play, scenario.deadline_s)
    assert judged.violated == {}
    happened = Counter(fault.kind for fault in judged.evidence.faults if fault.happened)
    assert happened == Counter(FAULTS.get(name, []))
    if name in PROOFS:
        PROOFS[name](judged)


def killed_everywhere(judged: Judged) -> None:
    assert {fault.target for fault in judged.evidence.faults} == set(PLACES)


def both_ran_and_one_yielded(judged: Judged) -> None:
    [job] = History.of(judged.evidence).jobs.values()
    assert {run.how for run in job.runs} == {"finish"}
    assert len(job.runs) == 2
    assert len(judged.evidence.final.blobs) == 1


def ran_three_times_at_most(judged: Judged) -> None:
    [job] = History.of(judged.evidence).jobs.values()
    assert len(job.runs) == 2


def waited_out(judged: Judged) -> None:
    assert judged.compared("outages are waited out") > 0


def never_ran(judged: Judged) -> None:
    jobs = History.of(judged.evidence).jobs
    assert jobs["job-1"].runs == []


def refused_by_name(judged: Judged) -> None:
    assert {r.error for r in judged.client if isinstance(r, NotAccepted)} == {"QueueFull"}


def both_ends_won(judged: Judged) -> None:
    answers = Counter(r.answer for r in judged.client if isinstance(r, CancelAnswered))
    assert answers.total() == CANCEL_RACES
    assert answers["already succeeded"] > CANCEL_RACES / 50
    assert answers["canceled"] + answers["canceling"] > CANCEL_RACES / 50


def poison_ended(judged: Judged) -> None:
    jobs = History.of(judged.evidence).jobs.values()
    ends = Counter(job.result.error.code if job.result and job.result.error else None for job in jobs)
    assert ends == {None: 25, ErrorCode.POISONED: 1}
    assert len(judged.evidence.final.dead) == 1


def counted(judged: Judged) -> None:
    assert judged.compared("backlog is whole") > 0


PROOFS = {
    "kill everywhere": killed_everywhere,
    "freeze past the lease": both_ran_and_one_yielded,
    "zombie gives back": ran_three_times_at_most,
    "store is away": waited_out,
    "cancel before anybody runs it": never_ran,
    "expire before anybody runs it": never_ran,
    "queue is full": refused_by_name,
    "cancel while it runs": both_ends_won,
    "poison": poison_ended,
    "backlog of a running job": counted,
}
