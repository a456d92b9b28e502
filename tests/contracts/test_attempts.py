"""What a record of attempts says, for every order in which its entries can be written."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.attempts import Attempts, Failure, excused, failed, suspected
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


@given(ENTRIES)
def test_a_delivery_is_explained_in_one_way(entries: list[tuple[str, int]]) -> None:
    record = apply(entries)
    explained = [*(f.delivery for f in record.failures), *record.excused, *record.suspected]
    assert sorted(explained) == sorted(set(explained)), record
    assert set(record.crashes(MOST + 1)) == set(range(1, MOST + 1)) - set(explained)


@given(ENTRIES, st.integers(1, MOST + 1))
def test_spent_is_bounded_by_deliveries_and_an_excuse_costs_nothing(entries, delivered: int) -> None:
    record = apply([(kind, delivery) for kind, delivery in entries if delivery < delivered])
    assert 0 <= record.spent(delivered) <= delivered - 1 - len(record.excused)


def test_a_delivery_that_nothing_explains_is_a_crash() -> None:
    assert Attempts().crashes(1) == ()
    assert Attempts().crashes(3) == (1, 2)
    assert excused(Attempts(), 2).crashes(3) == (1,)
    assert failed(Attempts(), failure(1)).crashes(3) == (2,)


def test_a_failure_replaces_an_excuse_and_not_the_other_way() -> None:
    """A worker that was cut off says so, goes on, and then its engine crashes: that was an attempt."""
    record = failed(excused(Attempts(), 1), failure(1))
    assert (record.spent(2), record.excused) == (1, ())
    assert excused(record, 1) == record


def test_a_suspicion_counts_only_when_it_is_confirmed() -> None:
    innocent = suspected(Attempts(), 1)
    assert innocent.spent(2) == 0
    guilty = failed(innocent, failure(2))
    assert guilty.spent(3) == 2
    earlier = suspected(failed(Attempts(), failure(1)), 2)
    assert earlier.spent(3) == 1, "what happened before a suspicion does not confirm it"


def test_who_may_have_done_harm_runs_alone() -> None:
    assert not Attempts().must_run_alone(1)
    assert not excused(Attempts(), 1).must_run_alone(2)
    assert not failed(Attempts(), failure(1, ErrorCode.MODEL_ERROR)).must_run_alone(2)
    assert failed(Attempts(), failure(1, ErrorCode.OOM_KILLED)).must_run_alone(2)
    assert suspected(Attempts(), 1).must_run_alone(2)
    assert Attempts().must_run_alone(2), "a worker died without a word"
