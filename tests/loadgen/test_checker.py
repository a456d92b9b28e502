"""The checker says nothing of a history in which all went well, and names what is broken in any other."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from histories import LEASE_S, MODEL, NOW, Run, good_run, violated

from headrace_contracts.errors import ErrorCode
from headrace_contracts.result import Status
from headrace_contracts.tasks.synthetic import Behaviour
from headrace_loadgen.check import check
from headrace_loadgen.records import (
    Accepted,
    BacklogRead,
    Blob,
    CancelAnswered,
    Canceling,
    Fault,
    FaultKind,
    Final,
    ResultRead,
    Sample,
    StoredMessage,
    StreamState,
    Submitting,
)


def test_a_good_history_has_no_violation() -> None:
    assert violated(good_run()) == {}
    assert all(verdict.sentence for verdict in check(good_run().evidence()))


def lost(run: Run) -> None:
    run.asked("lost")


def two_results(run: Run) -> None:
    run.ended("plain", 3.0)


def never_submitted(run: Run) -> None:
    run.ended("stranger")


def ran_but_never_submitted(run: Run) -> None:
    run.ran("stranger", "9-1", 1.0, 2.0)


def replaced(run: Run) -> None:
    again = msgspec.structs.replace(run.seen[0], data=b"{}")
    run.rest["results"] = [again, *run.seen[1:]]


def gone(run: Run) -> None:
    run.rest["results"] = run.seen[1:]


def deleted(run: Run) -> None:
    final = run.evidence().final
    run.rest["final"] = msgspec.structs.replace(final, results_state=StreamState(3, 1, 4, 1))


def purged(run: Run) -> None:
    final = run.evidence().final
    run.rest["final"] = msgspec.structs.replace(final, results_state=StreamState(2, 2, 3, 0))


def garbage_as_result(run: Run) -> None:
    run.asked("x")
    run.seen.append(StoredMessage(2.0, len(run.seen) + 1, f"results.chaos.{MODEL}.x", {}, b"\xff", NOW))


def a_crash_succeeded(run: Run) -> None:
    run.asked("x", behaviour=Behaviour.NAN)
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x")


def nobody_ran_it(run: Run) -> None:
    run.asked("x")
    run.ended("x")


def output_of_another(run: Run) -> None:
    run.asked("x")
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x", echo="plain")


def canceled_by_nobody(run: Run) -> None:
    run.asked("x", behaviour=Behaviour.ERROR)
    run.ended("x", status=Status.CANCELED, code=ErrorCode.CANCELED)


def innocent_failed(run: Run) -> None:
    run.asked("x")
    run.ended("x", status=Status.FAILED, code=ErrorCode.POISONED)


def cancel_not_kept(run: Run) -> None:
    run.asked("x")
    run.ran("x", "9-1", 1.0, 1.5)
    run.client += [Canceling(1.0, "x"), CancelAnswered(1.1, "x", "canceled")]
    run.ended("x")


def read_another_status(run: Run) -> None:
    run.client.append(ResultRead(3.0, "plain", "failed"))


def file_missing(run: Run) -> None:
    run.blobs.clear()


def file_damaged(run: Run) -> None:
    run.blobs[0] = msgspec.structs.replace(run.blobs[0], sha256="0" * 64)


def file_of_another_input(run: Run) -> None:
    asked = run.asked("x", output_bytes=10, seed=1)
    artifact = run.stored("x", msgspec.structs.replace(asked, seed=2))
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x", artifacts=(artifact,))


def no_file(run: Run) -> None:
    run.asked("x", output_bytes=10)
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x")


def file_named_twice(run: Run) -> None:
    asked = run.asked("x", output_bytes=10)
    artifact = run.stored("x", asked)
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x", artifacts=(artifact,))
    run.asked("y", output_bytes=10)
    run.ran("y", "10-1", 1.0, 1.5)
    run.ended("y", artifacts=(artifact,))


def file_written_later(run: Run) -> None:
    run.blobs[0] = msgspec.structs.replace(run.blobs[0], stored_at=NOW + timedelta(seconds=60))


def two_at_once(run: Run) -> None:
    run.ran("plain", "1-2", 1.2, 1.6, pid=8)


def started_after_cancel(run: Run) -> None:
    run.asked("x")
    run.client += [Canceling(1.0, "x"), CancelAnswered(1.1, "x", "canceled")]
    run.ended("x", 1.1, Status.CANCELED, ErrorCode.CANCELED)
    run.ran("x", "9-1", 3.0, 3.1)


def started_after_its_result(run: Run) -> None:
    run.ran("plain", "1-2", 9.0, 9.1)


def started_too_late(run: Run) -> None:
    run.asked("x", ttl_s=1.0)
    run.ran("x", "9-1", 5.0, 5.1)
    run.ended("x", 5.2)


def too_poisonous(run: Run) -> None:
    run.ran("poison", "3-4", 5.5, 5.6, how="crash", pid=30)


def attempts_for_nothing(run: Run) -> None:
    run.asked("x")
    run.ran("x", "9-1", 1.0, 1.5)
    run.ended("x", attempts=2)


def hot_loop(run: Run) -> None:
    run.asked("x")
    run.ran("x", "9-1", 1.0, 1.1)
    run.ran("x", "9-2", 1.2, 1.3)
    run.ended("x")


def not_drained(run: Run) -> None:
    run.rest["final"] = msgspec.structs.replace(run.evidence().final, drained=False)


def left_in_queue(run: Run) -> None:
    left = StoredMessage(9.0, 7, "jobs.chaos.m.normal", {}, b"", NOW)
    run.rest["final"] = msgspec.structs.replace(run.evidence().final, jobs_left=(left,))


def backlog_short(run: Run) -> None:
    run.asked("x", behaviour=Behaviour.ERROR)
    run.ended("x", 9.0, Status.FAILED, ErrorCode.MODEL_ERROR)
    run.client.append(BacklogRead(5.0, "", MODEL, 0, 4.9))


def memory_grows(run: Run) -> None:
    run.rest["samples"] = [Sample(s, 7, (100 + 5 * s) << 20, 30) for s in range(100)]


def files_grow(run: Run) -> None:
    run.rest["samples"] = [Sample(s, 7, 100 << 20, 30 + s) for s in range(100)]


def bad_exit(run: Run) -> None:
    run.rest["final"] = msgspec.structs.replace(run.evidence().final, worker_exits=("exit status 1",))


def gave_up(run: Run) -> None:
    run.rest["final"] = msgspec.structs.replace(run.evidence().final, ended_by_themselves=("w: exit status 1",))


def empty_fault(run: Run) -> None:
    run.rest["faults"] = [Fault(FaultKind.LINK_RESET, "w", 0.0, 1.0, False, "0 connections")]


BROKEN: list[tuple[Callable[[Run], None], str]] = [
    (lost, "conservation"),
    (two_results, "conservation"),
    (two_results, "final"),
    (never_submitted, "no strangers"),
    (ran_but_never_submitted, "no strangers"),
    (replaced, "final"),
    (gone, "final"),
    (deleted, "nothing replaced"),
    (purged, "nothing replaced"),
    (garbage_as_result, "readable"),
    (a_crash_succeeded, "truth"),
    (nobody_ran_it, "truth"),
    (output_of_another, "truth"),
    (canceled_by_nobody, "truth"),
    (innocent_failed, "innocents succeed"),
    (cancel_not_kept, "client view"),
    (read_another_status, "client view"),
    (file_missing, "artifacts whole"),
    (file_damaged, "artifacts whole"),
    (file_of_another_input, "artifacts whole"),
    (no_file, "artifacts whole"),
    (file_named_twice, "one winner"),
    (file_written_later, "one winner"),
    (two_at_once, "mutual exclusion"),
    (started_after_cancel, "no start after the end"),
    (started_after_its_result, "no start after the end"),
    (started_too_late, "expiry"),
    (too_poisonous, "poison capped"),
    (attempts_for_nothing, "outages cost no attempt"),
    (hot_loop, "outages are waited out"),
    (not_drained, "drained"),
    (left_in_queue, "drained"),
    (backlog_short, "backlog is whole"),
    (memory_grows, "workers flat"),
    (files_grow, "workers flat"),
    (bad_exit, "workers end well"),
    (gave_up, "workers end well"),
    (empty_fault, "faults happened"),
]


@pytest.mark.parametrize(("break_it", "invariant"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_history_is_named(break_it: Callable[[Run], None], invariant: str) -> None:
    run = good_run()
    break_it(run)
    assert invariant in violated(run)


def test_every_invariant_is_broken_by_some_history() -> None:
    assert {verdict.invariant for verdict in check(good_run().evidence())} == {name for _, name in BROKEN}


def fault(kind: FaultKind, began_s: float, ended_s: float, *pids: int) -> Fault:
    return Fault(kind, "w", began_s, ended_s, True, "seen", pids)


@pytest.mark.parametrize(("frozen", "excused"), [(7, True), (9, False)])
def test_a_delivery_that_came_to_a_frozen_worker_may_be_run_beside_its_successor(frozen: int, excused: bool) -> None:
    run = good_run()
    run.asked("x")
    run.ran("x", "9-2", 4.0, 7.0, pid=9)
    run.ran("x", "9-1", 6.0, 8.0, pid=7)
    run.ended("x", 7.0, attempts=2)
    run.rest["faults"] = [fault(FaultKind.WORKER_STOP, 0.5, 5.9, frozen)]
    assert ("mutual exclusion" not in violated(run)) is excused


@pytest.mark.parametrize(
    ("excuse", "excused"),
    [
        (fault(FaultKind.WORKER_STOP, 0.5, 4.5, 7), True),
        (fault(FaultKind.WORKER_STOP, 0.5, 4.5, 8), False),  # not the one that held it
        (fault(FaultKind.BROKER_KILL, 0.5, 1.0), True),
        (fault(FaultKind.STORE_OUTAGE, 0.5, 4.5), False),  # no lease lapses by it
        (fault(FaultKind.WORKER_STOP, 30.0, 34.0, 7), False),  # later
    ],
)
def test_runs_may_overlap_only_where_the_holders_lease_may_have_lapsed(excuse: Fault, excused: bool) -> None:
    run = good_run()
    run.asked("x")
    run.ran("x", "9-1", 1.0, 6.0)
    run.ran("x", "9-2", 4.0, 7.0, pid=9)
    run.ended("x", 7.0, attempts=2)
    run.rest["faults"] = [excuse]
    assert ("mutual exclusion" not in violated(run)) is excused


@pytest.mark.parametrize(
    ("excuse", "excused"),
    [
        (fault(FaultKind.WORKER_KILL, 0.5, 0.6, 7), True),
        (fault(FaultKind.WORKER_STOP, 0.5, 0.5 + LEASE_S, 7), True),
        (fault(FaultKind.LINK_RESET, 0.5, 0.5, 7), False),
        (fault(FaultKind.BROKER_KILL, 0.5, 1.0, 7), False),
        (fault(FaultKind.STORE_OUTAGE, 0.5, 5.0), False),
        (fault(FaultKind.WORKER_TERM, 0.5, 5.0, 7), False),
        (fault(FaultKind.WORKER_KILL, 30.0, 30.1, 7), False),
    ],
)
def test_attempts_are_spent_only_by_deaths(excuse: Fault, excused: bool) -> None:
    run = good_run()
    run.asked("x")
    run.ran("x", "9-1", 6.0, 6.5)
    run.ended("x", 7.0, attempts=2)
    run.rest["faults"] = [excuse]
    assert ("outages cost no attempt" not in violated(run)) is excused


def test_a_submit_without_receipt_may_or_may_not_have_a_result() -> None:
    run = good_run()
    run.client.append(Submitting(0.0, "perhaps", MODEL, None))
    assert violated(run) == {}
    run.ended("perhaps", status=Status.FAILED, code=ErrorCode.UNDECODABLE)
    assert violated(run) == {}
    run.ended("perhaps", status=Status.FAILED, code=ErrorCode.UNDECODABLE)
    assert "conservation" in violated(run)


def test_the_same_job_submitted_twice_has_one_result() -> None:
    run = good_run()
    run.client.append(Accepted(1.0, "plain", duplicate=True))
    assert violated(run) == {}


def test_orphans_are_no_violation() -> None:
    run = good_run()
    run.blobs.append(Blob("chaos/m/plain/2-x/data.bin", 1, "0" * 64, NOW))
    assert violated(run) == {}


def test_a_run_that_never_ended_lasts_as_long_as_its_process_gave_signs() -> None:
    run = good_run()
    run.asked("x")
    run.ran("x", "9-1", 1.0, pid=50)  # its process died at once
    run.ran("x", "9-2", 5.0, 5.5, pid=51)
    run.ended("x", 6.0, attempts=2)
    run.rest["faults"] = [fault(FaultKind.WORKER_KILL, 1.1, 1.2, 49, 50)]
    assert violated(run) == {}


def test_an_empty_run_is_a_run() -> None:
    final = Final(True, 0.0, StreamState(0, 0, 0, 0), (), (), (), (), ())
    run = Run()
    run.rest["final"] = final
    assert violated(run) == {}
