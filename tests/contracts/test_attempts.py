"""What a record of attempts says, for every order in which its entries can be written."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.attempts import FREE_UNSEEN, Attempts, Failure, excused, failed, judged, suspected
from headrace_contracts.errors import ErrorCode

MOST = 6


def failure(delivery: int, code: ErrorCode = ErrorCode.ENGINE_CRASHED) -> Failure:
    return Failure(code, "it crashed", "w", delivery)


def apply(entries: list[tuple[str, int]]) -> Attempts:
    record = Attempts()
    for kind, delivery in entries:
        match kind:
            case "failed":
                record = failed(record, failure(delivery))
            case "excused":
                record = excused(record, delivery)
            case _:
                record = suspected(record, delivery)
    return record


ENTRIES = st.lists(st.tuples(st.sampled_from(["failed", "excused", "suspected"]), st.integers(1, MOST)), max_size=12)


@given(ENTRIES)
def test_every_entry_may_be_written_twice(entries: list[tuple[str, int]]) -> None:
    """A write whose answer was lost is repeated; it must not count again."""
    record = apply(entries)
    if entries:
        assert apply([*entries, entries[-1]]) == record


@given(ENTRIES, st.one_of(st.none(), st.integers(1, MOST)))
def test_a_delivery_is_explained_in_one_way(entries: list[tuple[str, int]], began: int | None) -> None:
    record = judged(apply(entries), MOST + 1, began, "w")
    explained = [*(f.delivery for f in record.failures), *record.excused, *record.suspected, *record.unseen]
    assert sorted(explained) == list(range(1, MOST + 1))
    assert record.unexplained(MOST + 1) == ()
    assert judged(record, MOST + 1, began, "w") == record


@given(ENTRIES, st.integers(1, MOST + 1))
def test_spent_is_bounded_by_deliveries_and_an_excuse_costs_nothing(entries, delivered: int) -> None:
    record = apply([(kind, delivery) for kind, delivery in entries if delivery < delivered])
    assert 0 <= record.spent <= delivered - 1 - len(record.excused)


def test_a_worker_that_began_and_is_silent_has_died() -> None:
    record = judged(Attempts(), 3, began=2, worker="w")
    assert [(f.code, f.delivery, f.worker) for f in record.failures] == [(ErrorCode.WORKER_LOST, 2, "w")]
    assert (record.unseen, record.spent) == ((1,), 1)


def test_a_delivery_that_nobody_began_costs_nothing_a_few_times() -> None:
    """The message was lost on its way, or the broker sent it to somebody who had just stopped asking."""
    assert judged(Attempts(), 2 + FREE_UNSEEN - 1, began=None, worker="").spent == 0
    assert judged(Attempts(), 2 + FREE_UNSEEN, began=None, worker="").spent == 1


def test_what_was_said_of_a_delivery_is_not_judged_again() -> None:
    record = excused(Attempts(), 1)
    assert judged(record, 2, began=1, worker="w") == record


def test_a_worker_that_was_taken_for_dead_says_that_it_lives() -> None:
    record = excused(judged(Attempts(), 2, began=1, worker="w"), 1)
    assert (record.failures, record.excused, record.spent) == ((), (1,), 0)


def test_a_failure_replaces_an_excuse_and_not_the_other_way() -> None:
    """A worker that was cut off says so, goes on, and then its engine crashes: that was an attempt."""
    record = failed(excused(Attempts(), 1), failure(1))
    assert (record.spent, record.excused) == (1, ())
    assert excused(record, 1) == record


def test_a_suspicion_counts_only_when_it_is_confirmed() -> None:
    innocent = suspected(Attempts(), 1)
    assert innocent.spent == 0
    assert failed(innocent, failure(2)).spent == 2
    earlier = suspected(failed(Attempts(), failure(1)), 2)
    assert earlier.spent == 1, "what happened before a suspicion does not confirm it"


def test_who_may_have_done_harm_runs_alone() -> None:
    assert not Attempts().must_run_alone
    assert not excused(Attempts(), 1).must_run_alone
    assert not judged(Attempts(), 2, began=None, worker="").must_run_alone
    assert not failed(Attempts(), failure(1, ErrorCode.MODEL_ERROR)).must_run_alone
    assert failed(Attempts(), failure(1, ErrorCode.OOM_KILLED)).must_run_alone
    assert suspected(Attempts(), 1).must_run_alone
    assert judged(Attempts(), 2, began=1, worker="w").must_run_alone, "a worker died of it, perhaps"
