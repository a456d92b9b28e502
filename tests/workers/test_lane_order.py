"""Lanes: high first, and none starves."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_contracts.names import Lane
from headrace_workers.lane_order import PATIENCE, LaneOrder


def draw(order: LaneOrder, waiting: set[Lane]) -> Lane | None:
    asked = order.next()
    served = next((lane for lane in asked if lane in waiting), None)
    order.drew(asked, served)
    return served


def test_high_comes_first() -> None:
    assert LaneOrder().next() == (Lane.HIGH, Lane.NORMAL, Lane.LOW)


def test_a_lane_that_was_passed_over_often_enough_is_served_once() -> None:
    order = LaneOrder()
    served = [draw(order, {Lane.HIGH, Lane.LOW}) for _ in range(3 * (PATIENCE[Lane.LOW] + 1))]
    assert served.count(Lane.LOW) == 3
    assert served[: PATIENCE[Lane.LOW]] == [Lane.HIGH] * PATIENCE[Lane.LOW]


@given(st.lists(st.sets(st.sampled_from(Lane)), max_size=200))
def test_whatever_waits_no_lane_waits_for_more_draws_than_its_patience_allows(history: list[set[Lane]]) -> None:
    order, waited = LaneOrder(), dict.fromkeys(Lane, 0)
    # While both lower lanes are overdue, one of them goes first: one draw more.
    most = max(PATIENCE.values()) + len(Lane)
    for waiting in history:
        served = draw(order, waiting)
        assert (served is None) == (not waiting), "a job waited and none was drawn"
        for lane in Lane:
            waited[lane] = waited[lane] + 1 if lane in waiting and lane is not served else 0
            assert waited[lane] <= most


@given(st.sets(st.sampled_from(Lane), min_size=1))
def test_every_lane_is_asked(waiting: set[Lane]) -> None:
    order = LaneOrder()
    for _ in range(100):
        assert set(order.next()) == set(Lane)
        draw(order, waiting)
